"""Who sent whom: the results below a result, as a graph that can be drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TextIO

from celeriac.result.base import ResultBase

Formatter = Callable[[Any], str]  # of a result


class Graph(dict[ResultBase, list[ResultBase]]):
    """Every result below one, with those that wait on it.

    Args:
        formatter: Returns the text of a node; its id when not given.
    """

    def __init__(self, formatter: Formatter | None = None) -> None:
        super().__init__()
        self.formatter: Formatter = formatter or str

    def add(self, parent: ResultBase | None, node: ResultBase) -> None:
        """Note a result, and whose child it is."""
        self.setdefault(node, [])
        if parent is not None:
            self[parent].append(node)

    def edges(self) -> Iterator[ResultBase]:
        """Yield the results that have children."""
        return (node for node, children in self.items() if children)

    def valency_of(self, node: ResultBase) -> int:
        """Return how many results are below one."""
        return sum(1 + self.valency_of(child) for child in self[node])

    def topsort(self) -> list[ResultBase]:
        """Return all results, each after its children."""
        order: dict[ResultBase, None] = {}

        def visit(node: ResultBase) -> None:
            for child in self[node]:
                if child not in order:
                    visit(child)
            order[node] = None

        for node in self:
            if node not in order:
                visit(node)
        return list(order)

    def to_dot(self, file: TextIO, formatter: Formatter | None = None) -> None:
        """Write it in the language of Graphviz.

        Args:
            file: Where to.
            formatter: Returns the text of a node; the graph's own when not given.
        """
        text = formatter or self.formatter
        names = {node: '"{}"'.format(text(node).replace('"', r"\"")) for node in self}
        file.write("digraph dependencies {\n")
        file.writelines(f"    {name} [shape=oval];\n" for name in names.values())
        for node, children in self.items():
            file.writelines(f"    {names[node]} -> {names[child]};\n" for child in children)
        file.write("}\n")
