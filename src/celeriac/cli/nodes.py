"""What ``celery multi`` is told: the nodes, and the command line of each."""

from __future__ import annotations

import re
import socket
from collections.abc import Collection, Iterable, Sequence
from typing import Final

import msgspec

# Options of `multi` itself and of the program; all others are the worker's.
_NAMING: Final = {"--range-prefix": "celery", "--prefix": "", "--suffix": "", "--hostname": "", "-n": ""}
_GLOBAL: Final = ("-A", "--app", "-b", "--broker", "--result-backend", "--loader", "--config", "--workdir")
_GLOBAL_FLAGS: Final = ("-C", "--no-color", "-q", "--quiet", "--skip-checks")
_FILES: Final = {"--pidfile": "/var/run/celery/%n.pid", "--logfile": "/var/log/celery/%n%I.log"}
_SHORT: Final = {"-f": "--logfile"}


class Node(msgspec.Struct, frozen=True):
    """One worker."""

    name: str
    front: tuple[str, ...]  # options in front of the word `worker`
    options: tuple[str, ...]  # behind it
    pidfile: str
    logfile: str  # %i and %I are left for the worker


class Given(msgspec.Struct, frozen=True):
    """The arguments behind the name of the sub-command, taken apart."""

    names: tuple[str, ...]
    options: tuple[tuple[str, str, str | None], ...]  # name, for which nodes ("" = all), value
    rest: tuple[str, ...]  # from `--` on


def take_apart(arguments: Sequence[str], with_value: Collection[str]) -> Given:
    """Take the arguments apart.

    Args:
        arguments: Such as ``3 -c 2 -c:1 10``.
        with_value: The options that take a value; of others only what is behind ``=`` is one.
    """
    wanted = {*with_value, *_NAMING, *_GLOBAL, *_FILES, "--cmd", "--executable", "--append"}
    names: list[str] = []
    options: list[tuple[str, str, str | None]] = []
    waiting = iter(arguments)
    for argument in waiting:
        if argument == "--":
            return Given(tuple(names), tuple(options), ("--", *waiting))
        if not argument.startswith("-") or argument == "-":
            names.append(argument)
            continue
        head, equals, value = argument.partition("=")
        name, _, nodes = head.partition(":")
        if equals:
            options.append((name, nodes, value))
        elif name in wanted:
            options.append((name, nodes, next(waiting, "")))
        else:
            options.append((name, nodes, None))
    return Given(tuple(names), tuple(options), ())


def nodes_of(given: Given) -> list[Node]:
    """Return the nodes with the options of each; what is said for one goes before what is said for all."""
    names = _names(given)
    return [_node(name, place, given) for place, name in enumerate(names, start=1)]


def option(given: Given, name: str) -> str | None:
    """Return the last value of an option that is meant for all nodes."""
    return next((value for key, nodes, value in reversed(given.options) if key == name and not nodes), None)


def expanded(template: str, node: str, place: int) -> str:
    """Return a template with a node's facts: %n name, %h or %p whole name, %d host, %i place; %I is left."""
    short, _, host = node.partition("@")
    facts = {"%n": short, "%N": short, "%h": node, "%p": node, "%d": host, "%i": str(place), "%%": "%"}
    return re.sub("%[nNhpdi%]", lambda match: facts[match[0]], template)


def _names(given: Given) -> list[str]:
    naming = {key: option(given, key) or default for key, default in _NAMING.items()}
    host = naming["--suffix"] or naming["--hostname"] or naming["-n"] or socket.gethostname()
    bare: Iterable[str] = given.names
    if len(given.names) == 1 and given.names[0].isdigit():
        bare = (f"{naming['--range-prefix']}{number}" for number in range(1, int(given.names[0]) + 1))
    full = (name if "@" in name else f"{naming['--prefix']}{name}@{host}" for name in bare)
    return [name.replace("%h", socket.gethostname()) for name in full]


def _node(name: str, place: int, given: Given) -> Node:
    front: list[str] = []
    chosen: dict[str, tuple[bool, list[str]]] = {}  # option -> whether for this node alone, its words
    files = dict(_FILES)
    for option_name, nodes, value in given.options:
        key = _SHORT.get(option_name, option_name)
        if (nodes and not _is_meant(nodes, name, place)) or key in (*_NAMING, "--cmd", "--executable"):
            continue
        words = [key] if value is None else [f"{key}={value}"] if key.startswith("--") else [key, value]
        if key in (*_GLOBAL, *_GLOBAL_FLAGS):
            front += words
        elif key == "--append":
            chosen.setdefault(key, (False, []))[1].append(value or "")
        elif key in _FILES:
            if not chosen.get(key, (False, []))[0] or nodes:
                files[key] = value or ""
                chosen[key] = bool(nodes), []
        elif nodes or not chosen.get(key, (False, []))[0]:
            chosen[key] = bool(nodes), words
    pidfile = expanded(files["--pidfile"], name, 0)
    logfile = files["--logfile"]
    for letters in ("%n", "%N", "%h", "%p", "%d"):
        logfile = logfile.replace(letters, expanded(letters, name, 0))
    options = [word for key, (_, words) in chosen.items() if key != "--append" for word in words]
    options += ["-n", name, f"--pidfile={pidfile}", f"--logfile={logfile}"]
    options += chosen.get("--append", (False, []))[1]
    return Node(name, tuple(front), (*options, *given.rest), pidfile, logfile)


def _is_meant(nodes: str, name: str, place: int) -> bool:
    for part in nodes.split(","):
        first, dash, last = part.partition("-")
        if first.isdigit() and (last.isdigit() if dash else True):
            if int(first) <= place <= int(last or first):
                return True
        elif part in (name, name.partition("@")[0]):
            return True
    return False
