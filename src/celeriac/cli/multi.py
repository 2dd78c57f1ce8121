"""``celery multi``: start, stop and restart several workers of this machine."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import click

from celeriac.cli import nodes, worker
from celeriac.cli.context import CLIContext
from celeriac.cli.nodes import Given, Node
from celeriac.cli.pidfile import alive, running_pid
from celeriac.settings.spelling import did_you_mean

_LOOK_SECONDS: Final = 0.1
_OWN_FLAGS: Final = ("--nosplash", "--verbose", "--no-color", "--quiet", "-q")
_USAGE: Final = """\
usage: multi start <node1 node2 nodeN|range> [worker options]
       multi stop <n1 n2 nN|range> [-SIG (default: -TERM)]
       multi stopwait <n1 n2 nN|range> [-SIG]
       multi restart <n1 n2 nN|range> [-SIG] [worker options]
       multi kill <n1 n2 nN|range>

       multi show <n1 n2 nN|range> [worker options]
       multi get <name> <n1 n2 nN|range> [worker options]
       multi names <n1 n2 nN|range>
       multi expand <template> <n1 n2 nN|range>
       multi help

An option is for all nodes, or for some: -c:1-3 10, -Q:images,video media.
More options behind the command: --nosplash, --quiet, --verbose, --no-color, --range-prefix, --prefix,
--suffix, --hostname, --cmd, --executable, --append; what stands behind -- goes to every worker."""


class Nodes:
    """The nodes of one command line, and what can be done with them.

    Args:
        obj: Speaks to the person.
        given: The arguments.
        program: Begins a worker, such as ``python -m celery worker --detach``.
    """

    def __init__(self, obj: CLIContext, given: Given, program: Sequence[str]) -> None:
        self._obj = obj
        self._program = program
        self.nodes: list[Node] = nodes.nodes_of(given)

    def command_line(self, node: Node) -> list[str]:
        """Return what starts a node."""
        named = [word for name in (self._obj.app_name,) if name for word in ("-A", name)]
        place = self._program.index("worker") if "worker" in self._program else len(self._program)
        before, behind = self._program[:place], self._program[place:]
        return [*before, *named, *node.front, *behind, *node.options]

    def start(self) -> int:
        """Start all; return 1 when one of them failed."""
        self._obj.say("> Starting nodes...")
        return max([self._start(node, f"\t> {node.name}: ") for node in self.nodes], default=0)

    def stop(self, number: signal.Signals, wait: bool) -> int:
        """Signal all that run, and wait for their end if wanted."""
        pids = self._signal(number)
        if wait and pids:
            self._wait(pids)
        return 0

    def restart(self, number: signal.Signals) -> int:
        """Stop each and start it again."""
        pids = self._signal(number)
        self._wait(pids)
        return max([self._start(node, f"> Restarting node {node.name}: ") for node in self.nodes], default=0)

    def _start(self, node: Node, text: str) -> int:
        for path in (node.pidfile, node.logfile):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        # Its words go to the terminal; what goes on in the background has let go of it.
        code = subprocess.run(self.command_line(node), check=False).returncode  # noqa: S603 - ours
        if code:
            self._obj.error(f"* Child terminated with exit code {code}")
        self._obj.say(text + (self._obj.style("FAILED", fg="red") if code else self._obj.style("OK")))
        return 1 if code else 0

    def _signal(self, number: signal.Signals) -> list[int]:
        found = [(node, running_pid(node.pidfile)) for node in self.nodes]
        alive = [(node, pid) for node, pid in found if pid is not None]
        for node, pid in found:
            if pid is None:
                self._obj.say(f"> {node.name}: {self._obj.style('DOWN', fg='magenta')}")
        if alive:
            self._obj.say("> Stopping nodes...")
        for node, pid in alive:
            self._obj.say(f"\t> {node.name}: {number.name.removeprefix('SIG')} -> {pid}")
            with suppress(ProcessLookupError):  # it has ended since we looked, which is what is wanted
                os.kill(pid, number)
        return [pid for _, pid in alive]

    def _wait(self, pids: Sequence[int]) -> None:
        left = list(pids)
        while left:
            one = len(left) == 1
            self._obj.say(f"> Waiting for {len(left)} node{'' if one else 's'} -> {_listed(left)}...")
            before = len(left)
            while len(left) == before:
                time.sleep(_LOOK_SECONDS)
                left = [pid for pid in left if alive(pid)]
        if pids:
            self._obj.say("> All nodes have ended.")


@click.command("multi", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def command(ctx: click.Context, /, arguments: tuple[str, ...]) -> None:
    """Start, stop and restart several workers of this machine; `multi help` tells more."""
    obj: CLIContext = ctx.obj
    name, *words = arguments or ("help",)
    if name == "help":
        obj.echo(_USAGE)
        return
    if name not in _COMMANDS:
        meant = did_you_mean(name, list(_COMMANDS))
        raise click.UsageError(
            f"Invalid command: {name}.{f' Did you mean {meant}?' if meant else ''}\n{_USAGE}"
        )
    words = _take_own(obj, words)
    number, words = _take_signal(words) if name in _SIGNALLED else (signal.SIGTERM, words)
    first = words.pop(0) if name in ("get", "expand") and words else ""
    with_value = {
        text
        for param in worker.command.params
        if isinstance(param, click.Option) and not param.is_flag
        for text in param.opts
    }
    given = nodes.take_apart(words, with_value)
    if not given.names:
        raise click.UsageError(f"Name the nodes, or say how many: multi {name} 2.")
    module = "celery" if ctx.find_root().info_name == "celery" else "celeriac"
    program = [
        nodes.option(given, "--executable") or sys.executable,
        *shlex.split(nodes.option(given, "--cmd") or f"-m {module} worker --detach"),
    ]
    sys.exit(_COMMANDS[name](obj, Nodes(obj, given, program), number, first))


def _take_own(obj: CLIContext, words: Sequence[str]) -> list[str]:
    kept = [word for word in words if word not in _OWN_FLAGS]
    obj.no_color = obj.no_color or "--no-color" in words
    obj.quiet = obj.quiet or "--quiet" in words or "-q" in words
    return kept


def _take_signal(words: Sequence[str]) -> tuple[signal.Signals, list[str]]:
    """Return the signal that is asked for, TERM if none is, and the other words."""
    for place, word in enumerate(words):
        found = re.fullmatch(r"-(?:SIG)?([A-Z][A-Z0-9]+|\d+)", word)
        if found is not None:
            text = found[1]
            known = {one.name: one for one in signal.Signals} | {
                str(one.value): one for one in signal.Signals
            }
            chosen = known.get(text) or known.get(f"SIG{text}")
            if chosen is not None:
                return chosen, [*words[:place], *words[place + 1 :]]
    return signal.SIGTERM, list(words)


def _listed(pids: Sequence[int]) -> str:
    return ", ".join(map(str, pids))


def _show(obj: CLIContext, fleet: Nodes, number: signal.Signals, first: str) -> int:
    for node in fleet.nodes:
        obj.echo(shlex.join(fleet.command_line(node)))
    return 0


def _get(obj: CLIContext, fleet: Nodes, number: signal.Signals, first: str) -> int:
    found = [node for node in fleet.nodes if first in (node.name, node.name.partition("@")[0])]
    for node in found:
        obj.echo(shlex.join(fleet.command_line(node)))
    return 0 if found else 1


def _names(obj: CLIContext, fleet: Nodes, number: signal.Signals, first: str) -> int:
    for node in fleet.nodes:
        obj.echo(node.name)
    return 0


def _expand(obj: CLIContext, fleet: Nodes, number: signal.Signals, first: str) -> int:
    for place, node in enumerate(fleet.nodes, start=1):
        obj.echo(nodes.expanded(first, node.name, place))
    return 0


_SIGNALLED: Final = ("stop", "stopwait", "stop_verify", "restart")
_COMMANDS: Final[dict[str, Callable[[CLIContext, Nodes, signal.Signals, str], int]]] = {
    "start": lambda obj, fleet, number, first: fleet.start(),
    "stop": lambda obj, fleet, number, first: fleet.stop(number, wait=False),
    "stopwait": lambda obj, fleet, number, first: fleet.stop(number, wait=True),
    "stop_verify": lambda obj, fleet, number, first: fleet.stop(number, wait=True),
    "restart": lambda obj, fleet, number, first: fleet.restart(number),
    "kill": lambda obj, fleet, number, first: fleet.stop(signal.SIGKILL, wait=False),
    "show": _show,
    "get": _get,
    "names": _names,
    "expand": _expand,
}
