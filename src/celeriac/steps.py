"""The steps of a chain that are handed on as they came: JSON that nobody decodes before somebody looks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast, overload

Step = dict[str, Any]  # a signature as it travels; Any: signatures are open dicts


class Steps(Sequence[Step]):
    """Steps of a chain, the next one last as in a message; decoded when one of them is looked at.

    Args:
        text: The JSON list of them.
        count: How many they are.
        decode: Makes the list of the text.
    """

    __slots__ = ("_count", "_decode", "_list", "text")

    def __init__(self, text: bytes, count: int, decode: Callable[[bytes], Any]) -> None:
        self.text: bytes = text
        self._count = count
        self._decode = decode
        self._list: list[Step] | None = None

    def __len__(self) -> int:
        """Return how many they are, without decoding them."""
        return self._count

    @overload
    def __getitem__(self, index: int) -> Step: ...

    @overload
    def __getitem__(self, index: slice) -> list[Step]: ...

    def __getitem__(self, index: int | slice) -> Step | list[Step]:
        """Return a step, or a list of some."""
        steps = self._list
        if steps is None:
            steps = self._list = cast("list[Step]", self._decode(self.text))
        return steps[index]

    def __repr__(self) -> str:
        """Say how many they are."""
        return f"<{self._count:,} steps>"

    def __json__(self) -> list[Step]:
        """Return the plain list, for serializers that ask for it."""
        return self[:]

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle as the plain list."""
        return list, (self[:],)


class Remainder(NamedTuple):
    """What remains of a chain at one of its steps."""

    following: Step  # the next one
    rest: Steps  # those after it

    def decoded(self) -> list[Step]:
        """Return all of it in a list of its own, the next step last, as a message has it."""
        return [*self.rest, self.following]
