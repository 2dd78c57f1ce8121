"""``celery graph``: pictures of a worker, and of the workers, in the language of Graphviz."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import click

from celeriac import addresses
from celeriac.cli.context import CLIContext
from celeriac.cli.remote import Unavailable

Edge = tuple[str, str]  # what needs what

# What a worker is put together from: Celery's names, as `ARCHITECTURE.md` explains ours.
_WORKER: Final = (
    ("Consumer", ("Timer", "Hub", "Pool", "Autoscaler", "Beat", "StateDB")),
    ("Pool", ("Hub",)),
    ("Hub", ("Timer",)),
    ("Autoscaler", ("Pool",)),
)
_CONSUMER: Final = (
    ("event loop", ("Connection", "Events", "Mingle", "Gossip", "Heart", "Control", "Tasks")),
    ("Events", ("Connection",)),
    ("Mingle", ("Events",)),
    ("Gossip", ("Mingle",)),
    ("Heart", ("Events",)),
    ("Tasks", ("Mingle",)),
    ("Control", ("Tasks",)),
)
_JOIN: Final = (("Connection", ("Consumer",)),)
_PARTS: Final = {"worker": _WORKER, "consumer": _CONSUMER}
_LOOK: Final = (
    'graph [fontname="HelveticaNeue", bgcolor="mintcream"]',
    'node [shape="box", style="filled", fillcolor="palegreen3", color="palegreen4"]',
    'edge [arrowhead="vee", color="darkseagreen4", arrowsize="0.7"]',
)
_SHAPES: Final = {
    "broker": 'shape="circle", fillcolor="cadetblue3", color="cadetblue4"',
    "backend": 'shape="folder", fillcolor="peachpuff3", color="black"',
    "thread": 'shape="oval", fillcolor="lightcyan4", color="black", fontcolor="yellow", fontsize="10"',
}
_MOST_NODES: Final = 4  # that are drawn one by one
_SETTINGS: Final = ("nodes", "threads", "wmax", "tmax", "broker", "backend")


@click.group("graph")
def command() -> None:
    """Draw pictures, to be read by Graphviz: celery graph workers | dot -Tpng > workers.png."""


@command.command("bootsteps")
@click.argument("parts", nargs=-1, type=click.Choice(tuple(_PARTS)))
@click.pass_obj
def bootsteps(obj: CLIContext, parts: tuple[str, ...]) -> None:
    """Draw what a worker is put together from, in Celery's words: the worker itself, its consumer, or both.

    Steps that the app adds are drawn too.
    """
    chosen = parts or tuple(_PARTS)
    table = [row for part in chosen for row in _PARTS[part]]
    if len(chosen) > 1:
        table += _JOIN
    steps = [row for part in chosen for row in _added(obj, part)] if obj.app_name is not None else []
    edges = [(name, need) for name, needs in (*table, *steps) for need in needs]
    obj.echo(_digraph(edges, [_quoted(name) for name, needs in steps if not needs]))


def _added(obj: CLIContext, part: str) -> list[tuple[str, tuple[str, ...]]]:
    """Return the steps that the app adds to a part, by name, with what they need."""
    rows = []
    for step in obj.app.steps.get(part, ()):
        name = step if isinstance(step, str) else getattr(step, "name", None) or step.__name__
        needs = () if isinstance(step, str) else getattr(step, "requires", ())
        rows.append((_short(name), tuple(sorted(_short(need) for need in needs))))
    return sorted(rows)


def _short(name: object) -> str:
    """Return a step's own name: of its path, or of its class."""
    text = name if isinstance(name, str) else getattr(name, "__name__", repr(name))
    return text.replace(":", ".").rpartition(".")[2]


@command.command("workers", context_settings={"ignore_unknown_options": True})
@click.argument("settings", nargs=-1, metavar="[nodes:a,b] [threads:N] [wmax:N] [tmax:N] [generic]...")
@click.pass_obj
def workers(obj: CLIContext, settings: tuple[str, ...]) -> None:
    """Draw workers, their slots, broker and result store: those that are there, unless nodes: names some.

    threads: says how many slots each has, one number for all or one for each; wmax: and tmax: how many
    workers and slots are drawn one by one; broker: and backend: what stands there instead of the app's.
    `generic` and `enumerate` number the workers instead of naming them.
    """
    given = _read(settings)
    if "nodes" in given:
        slots = dict(zip(*_named(given), strict=True))
    else:
        slots = _found(obj)
    names = list(slots)
    shown = names[: int(given.get("wmax", _MOST_NODES))]
    numbered = "generic" in given or "enumerate" in given
    lines: list[str] = []
    edges: list[Edge] = []
    ends = _ends(obj, given)
    lines += [f"{_quoted(name)} [{_SHAPES[kind]}]" for kind, name in ends]
    for number, node in enumerate([*shown, *([_rest(names, shown)] if len(names) > len(shown) else [])], 1):
        label = f"Worker {number}" if numbered and node in slots else node
        edges += [(label, end) for _, end in ends]
        for slot in _slots(slots.get(node, 0), int(given.get("tmax", _MOST_NODES))):
            name = f"{label} {slot}"
            lines.append(f"{_quoted(name)} [{_SHAPES['thread']}, label={_quoted(slot)}]")
            edges.append((name, label))
    obj.echo(_digraph(edges, lines))


def _read(settings: Sequence[str]) -> dict[str, str]:
    given: dict[str, str] = {}
    for setting in settings:
        name, colon, value = setting.partition(":")
        if name in ("generic", "enumerate"):
            given[name] = value
        elif not colon or name not in _SETTINGS:
            raise click.UsageError(f"{setting} is none of {', '.join(f'{each}:' for each in _SETTINGS)}.")
        elif name in ("threads", "wmax", "tmax") and not value.replace(",", "").isdigit():
            raise click.UsageError(f"{name}: wants a number, and not {value!r}.")
        else:
            given[name] = value
    return given


def _named(given: dict[str, str]) -> tuple[list[str], list[int]]:
    """Return the nodes and slots that somebody has named."""
    nodes = [name for name in given["nodes"].split(",") if name]
    if len(nodes) == 1 and nodes[0].isdigit():
        nodes = [f"Worker {number + 1}" for number in range(int(nodes[0]))]
    slots = [int(each) for each in given.get("threads", "0").split(",") if each]
    return nodes, (slots + [slots[-1]] * len(nodes))[: len(nodes)]


def _found(obj: CLIContext) -> dict[str, int]:
    """Return the slots of the nodes that answer, by their names."""
    obj.app.finalize()
    answers = obj.app.control.inspect().stats() or {}
    if not answers:
        raise Unavailable("No nodes replied within time constraint")
    return {node: int(facts["pool"].get("max-concurrency") or 0) for node, facts in sorted(answers.items())}


def _ends(obj: CLIContext, given: dict[str, str]) -> list[tuple[str, str]]:
    """Return broker and result store, where there is one, with their kinds."""
    broker = given.get("broker") or addresses.of_messages(obj.app)
    backend = given.get("backend") or addresses.of_results(obj.app)
    return [("broker", broker), *([] if backend.startswith("disabled") else [("backend", backend)])]


def _rest(names: list[str], shown: list[str]) -> str:
    return f"{len(names) - len(shown)} more"


def _slots(count: int, most: int) -> Iterator[str]:
    yield from (str(number) for number in range(1, min(count, most) + 1))
    if count > most:
        yield f"… {count}"


def _digraph(edges: Iterable[Edge], lines: Iterable[str] = ()) -> str:
    """Return a graph in the language of Graphviz."""
    drawn = [*_LOOK, *lines, *(f"{_quoted(one)} -> {_quoted(other)}" for one, other in edges)]
    return "\n".join(["digraph dependencies {", *(f"    {line}" for line in drawn), "}"])


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
