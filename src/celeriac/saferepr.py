"""`repr` for showing a task's arguments: short, quick, and safe with whatever users pass."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

_SHORT_STR: Final = 256
_SHORT_SEQUENCE: Final = 16
_SMALL_INT: Final = 1 << 256
_MAX_DEPTH: Final = 12


def saferepr(value: Any, max_chars: int = 1024) -> str:  # Any: the user's value
    """Return the repr of a value, cut to ``max_chars`` and ended by ``...`` when it is longer.

    Never raises, never follows a cycle, and spends no time on what would be cut off anyway.
    """
    kind = type(value)
    if value is None or kind is bool or (kind is int and -_SMALL_INT < value < _SMALL_INT):
        text = repr(value)  # what most tasks return: 0.1 µs against 1.5 below
        if len(text) <= max_chars:
            return text
    if (kind is tuple or kind is list or kind is dict) and len(value) <= _SHORT_SEQUENCE:
        # Plain short arguments, which are nearly all of them: 0.5 µs against 3 µs below.
        for item in value.values() if kind is dict else value:
            kind = type(item)
            if kind is int:
                if not -_SMALL_INT < item < _SMALL_INT:
                    break
            elif kind is str:
                if len(item) > _SHORT_STR:
                    break
            elif item is not None and kind is not bool and kind is not float:
                break
        else:
            try:
                text = repr(value)
            except Exception:  # noqa: BLE001 - the keys of a dict may be objects of the user's
                text = ""
            if 0 < len(text) <= max_chars:
                return text
    writer = _Writer(max_chars)
    writer.write(value, 0)
    return writer.text()


class _Writer:
    """Writes reprs piece by piece until there is enough."""

    def __init__(self, max_chars: int) -> None:
        self._max_chars = max_chars
        self._pieces: list[str] = []
        self._left = max_chars + 1  # one more than fits, so that `text` knows that something was left out
        self._open: set[int] = set()  # ids of the containers that are being written

    def text(self) -> str:
        text = "".join(self._pieces)
        return text if len(text) <= self._max_chars else text[: max(self._max_chars - 3, 0)] + "..."

    def write(self, value: Any, depth: int) -> None:
        shape = getattr(type(value), "__repr__", None)
        if shape is str.__repr__ or shape is bytes.__repr__:
            whole = len(value) <= self._left
            self._add(repr(value if whole else value[: self._left]))
        elif shape is int.__repr__ and not -_SMALL_INT < value < _SMALL_INT:
            self._add(f"<int of {value.bit_length()} bits>")  # Python refuses to print the largest
        elif shape is dict.__repr__:
            self._container("{", ((key, item) for key, item in value.items()), "}", value, depth)
        elif shape is list.__repr__:
            self._container("[", ((item,) for item in value), "]", value, depth)
        elif shape is tuple.__repr__:
            closing = ",)" if len(value) == 1 else ")"
            self._container("(", ((item,) for item in value), closing, value, depth)
        elif type(value) is set and value:
            self._container("{", ((item,) for item in value), "}", value, depth)
        else:
            self._object(value)

    def _add(self, piece: str) -> None:
        self._pieces.append(piece)
        self._left -= len(piece)

    def _container(
        self, opening: str, entries: Iterable[tuple[Any, ...]], closing: str, value: Any, depth: int
    ) -> None:
        if id(value) in self._open or depth >= _MAX_DEPTH:
            self._add(f"{opening}...{closing.lstrip(',')}")
            return
        self._open.add(id(value))
        self._add(opening)
        first = True
        for entry in entries:
            if self._left <= 0:
                break
            if not first:
                self._add(", ")
            first = False
            self.write(entry[0], depth + 1)
            if len(entry) == 2:
                self._add(": ")
                self.write(entry[1], depth + 1)
        self._add(closing)
        self._open.discard(id(value))

    def _object(self, value: Any) -> None:
        try:
            self._add(repr(value))
        except Exception as exc:  # noqa: BLE001 - a user's __repr__ may raise anything; it must not stop a task
            self._add(f"<{type(value).__qualname__} at {id(value):#x}: repr raised {type(exc).__name__}>")
