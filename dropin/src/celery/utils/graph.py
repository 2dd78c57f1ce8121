"""Graphs of what depends on what."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from graphlib import CycleError as _CycleError
from graphlib import TopologicalSorter
from typing import Any, TextIO

__all__ = ("CycleError", "DependencyGraph", "GraphFormatter")


class CycleError(Exception):
    """Raised for nodes that depend on each other in a circle."""


class GraphFormatter:
    """Writes a graph in the language of Graphviz.

    Args:
        root: The node that stands out.
        type: ``digraph`` or ``graph``.
        id: The graph's name.
        indent: How deep it is written.
        inw: One step of indentation.
        **scheme: Attributes of edges and nodes.
    """

    _arrows = {"graph": "--", "digraph": "->"}  # noqa: RUF012 - a table
    scheme: dict[str, Any] = {  # noqa: RUF012 - a table
        "shape": "box",
        "arrowhead": "vee",
        "style": "filled",
        "fontname": "HelveticaNeue",
    }

    def __init__(
        self,
        root: Any = None,
        type: str | None = None,
        id: str | None = None,
        indent: int = 0,
        inw: str = " " * 4,
        **scheme: Any,
    ) -> None:
        self.id: str = id or "dependencies"
        self.root = root
        self.type: str = type or "digraph"
        self.direction: str = self._arrows[self.type]
        self.IN = inw * (indent or 0)
        self.INp: str = self.IN + inw
        self.scheme = {**self.scheme, **scheme}
        self.graph_scheme: dict[str, str] = {"root": self.label(root)} if root else {}

    def attr(self, name: str, value: Any) -> str:
        """Return an attribute."""
        return f'{name}="{value}"'

    def attrs(self, d: dict[str, Any], scheme: dict[str, Any] | None = None) -> str:
        """Return attributes, with the scheme's."""
        merged = {**self.scheme, **(scheme or {}), **d}
        return ", ".join(self.attr(name, value) for name, value in merged.items())

    def head(self, **attrs: Any) -> str:
        """Return the beginning."""
        return (
            f"\n{self.IN}{self.type} {self.id} {{\n{self.INp}graph [{self.attrs(attrs, self.graph_scheme)}]\n"
        )

    def tail(self) -> str:
        """Return the end."""
        return f"{self.IN}}}\n"

    def label(self, obj: Any) -> str:
        """Return what a node is called."""
        return str(obj)

    def node(self, obj: Any, **attrs: Any) -> str:
        """Return a node."""
        return f'{self.INp}"{self.label(obj)}" [{self.attrs(attrs)}]\n'

    terminal_node = node

    def edge(self, a: Any, b: Any, **attrs: Any) -> str:
        """Return an edge."""
        return f'{self.INp}"{self.label(a)}" {self.direction} "{self.label(b)}" [{self.attrs(attrs)}]\n'


class DependencyGraph:
    """What depends on what.

    Args:
        it: Pairs of a node and the nodes that it depends on.
        formatter: Writes it.
    """

    def __init__(self, it: Iterable[tuple[Any, Iterable[Any]]] | None = None, formatter: Any = None) -> None:
        self.formatter: Any = formatter or GraphFormatter()
        self.adjacent: dict[Any, list[Any]] = {}
        if it is not None:
            self.update(it)

    def add_arc(self, obj: Any) -> None:
        """Add a node."""
        self.adjacent.setdefault(obj, [])

    def add_edge(self, A: Any, B: Any) -> None:  # noqa: N803 - Celery's names
        """Let one node depend on another."""
        self[A].append(B)

    def connect(self, graph: DependencyGraph) -> None:
        """Add the nodes of another graph."""
        self.adjacent.update(graph.adjacent)

    def update(self, it: Iterable[tuple[Any, Iterable[Any]]]) -> None:
        """Add nodes with what they depend on."""
        pairs = [(obj, list(others)) for obj, others in it]
        for obj, _ in pairs:
            self.add_arc(obj)
        for obj, others in pairs:
            for other in others:
                self.add_arc(other)
                self.add_edge(obj, other)

    def topsort(self) -> list[Any]:
        """Return the nodes, each after those that it depends on.

        Raises:
            CycleError: Some depend on each other in a circle.
        """
        try:
            return list(TopologicalSorter(self.adjacent).static_order())
        except _CycleError as exc:
            raise CycleError(f"these depend on each other in a circle: {exc.args[1]}") from exc

    def valency_of(self, obj: Any) -> int:
        """Return how many edges begin at a node and at those that it depends on, the node counted."""
        if obj not in self.adjacent:
            return 0
        return len(self[obj]) + sum(self.valency_of(other) for other in self[obj]) or 1

    def edges(self) -> Iterator[Any]:
        """Yield the nodes that depend on others."""
        return (obj for obj, others in self.items() if others)

    def to_dot(self, fh: TextIO, formatter: Any = None) -> None:
        """Write it in the language of Graphviz."""
        draw = formatter or self.formatter
        fh.write(draw.head())
        for obj, others in self.items():
            fh.write(draw.node(obj) if others else draw.terminal_node(obj))
            fh.writelines(draw.edge(obj, other) for other in others)
        fh.write(draw.tail())

    def format(self, obj: Any) -> Any:  # Any: what the formatter makes
        """Return what the formatter calls a node."""
        return self.formatter(obj) if callable(self.formatter) else obj

    def items(self) -> Iterable[tuple[Any, list[Any]]]:
        """Return the nodes with what they depend on."""
        return self.adjacent.items()

    iteritems = items

    def __iter__(self) -> Iterator[Any]:
        return iter(self.adjacent)

    def __getitem__(self, node: Any) -> list[Any]:
        return self.adjacent[node]

    def __len__(self) -> int:
        return len(self.adjacent)

    def __contains__(self, obj: object) -> bool:
        return obj in self.adjacent

    def __repr__(self) -> str:
        return "\n".join(f"{obj}({self.valency_of(obj)})" for obj in self)
