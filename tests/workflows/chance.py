"""Random workflows, from any source of chance: a seed, or Hypothesis."""

from __future__ import annotations

import itertools
from random import Random

from workflows.model import Call, Chain, Chord, Group, Node

DEPTH = 5
CALLS = 24  # a workflow has no more

_HOW = ("ok",) * 14 + ("fail",) * 2 + ("retry", "retry", "gives up", "replace", "replace")
_SAFE = tuple(how for how in _HOW if how not in {"fail", "gives up"})

_ANY, _SOME, _MANY = (0, 1, 2, 3), (1, 2, 3), (2, 3)  # sizes of groups


class Growth:
    """Makes one workflow.

    Args:
        chance: Where the choices come from.
        failing: Whether calls may fail.
    """

    def __init__(self, chance: Random, *, failing: bool = True) -> None:
        self._chance = chance
        self._how = _HOW if failing else _SAFE
        self._left = CALLS
        self._numbers = itertools.count(1)

    def workflow(self) -> Node:
        """Return a workflow."""
        return self._node(DEPTH, sizes=_ANY)

    def _node(self, depth: int, *, sizes: tuple[int, ...]) -> Node:
        """Return a part of a workflow.

        Args:
            depth: How many parts may be inside each other.
            sizes: How many members it may have if it is a group.
        """
        kinds = ("call", "chain", "group", "chord") if depth > 1 and self._left > 0 else ("call",)
        kind = self._chance.choice(kinds)
        if kind == "chain":
            return self._chain(depth)
        if kind == "group":
            return Group(self._several(depth, sizes, inside=_SOME))
        if kind == "chord":
            return Chord(self._several(depth, _ANY, inside=_ANY), self._node(depth - 1, sizes=_MANY))
        return self._call(depth)

    def _several(self, depth: int, sizes: tuple[int, ...], *, inside: tuple[int, ...]) -> tuple[Node, ...]:
        return tuple(self._node(depth - 1, sizes=inside) for _ in range(self._chance.choice(sizes)))

    def _chain(self, depth: int) -> Chain:
        count = self._chance.randint(1, 3)
        plain = self._chance.random() < 0.3
        steps: list[Node] = []
        for place in range(count):
            # After a group, a group of one is a body that is a group; elsewhere in a chain it is its member.
            after_call = bool(steps) and isinstance(steps[-1], Call)
            few = (0, 1) if after_call and place < count - 1 else (1,) if after_call else ()
            steps.append(self._node(depth - 1, sizes=(*few, 2, 3)))
        errbacks = self._labels("new", "old") if count > 1 else []
        return Chain(tuple(steps), errbacks=tuple(errbacks), plain=plain)

    def _call(self, depth: int) -> Call:
        self._left -= 1
        how = self._chance.choice(self._how)
        if how == "replace" and (depth <= 1 or self._left <= 0):
            how = "ok"
        return Call(
            label=f"c{next(self._numbers)}",
            how=how,
            immutable=self._chance.random() < 0.15,
            links=tuple(self._labels("link")),
            errbacks=tuple(self._labels("new", "old", "fixed")),
            instead=self._node(depth - 1, sizes=_SOME) if how == "replace" else None,
        )

    def _labels(self, *kinds: str) -> list[str]:
        if self._chance.random() < 0.7:
            return []
        count = self._chance.randint(1, 2)
        return [f"{self._chance.choice(kinds)}-{next(self._numbers)}" for _ in range(count)]
