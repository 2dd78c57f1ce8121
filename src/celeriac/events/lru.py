"""A dict with a limit, which forgets what was used least recently."""

from __future__ import annotations

import threading
from collections import OrderedDict, UserDict
from collections.abc import Iterator
from typing import Any, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class LRUCache(UserDict[K, V]):
    """Keeps at most so many entries; safe for threads, and can be pickled.

    Args:
        limit: How many; None: all.
    """

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit
        self.mutex: Any = threading.RLock()  # Any: one kind of lock or another
        self.data: OrderedDict[K, V] = OrderedDict()

    def __getitem__(self, key: K) -> V:
        """Return a value, which counts as a use."""
        with self.mutex:
            self.data.move_to_end(key)
            return self.data[key]

    def __setitem__(self, key: K, value: V) -> None:
        """Set a value; the one used least recently goes when there are too many."""
        with self.mutex:
            self.data[key] = value
            self.data.move_to_end(key)
            self._trim()

    def __delitem__(self, key: K) -> None:
        """Remove a value."""
        with self.mutex:
            del self.data[key]

    def __contains__(self, key: object) -> bool:
        """Return whether there is a value."""
        return key in self.data

    def __iter__(self) -> Iterator[K]:
        """Yield the keys, those used least recently first."""
        with self.mutex:
            return iter([*self.data])

    def get(self, key: K, default: Any = None) -> Any:  # Any: as a dict's
        """Return a value or the default."""
        try:
            return self[key]
        except KeyError:
            return default

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Set many values; those used least recently go when there are too many."""
        with self.mutex:
            self.data.update(*args, **kwargs)
            self._trim()

    def popitem(self, last: bool = True) -> tuple[K, V]:
        """Remove and return the entry that was used last, or least recently."""
        with self.mutex:
            return self.data.popitem(last)

    def _trim(self) -> None:
        if self.limit is not None:
            while len(self.data) > self.limit:
                self.data.popitem(last=False)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the lock."""
        return {"limit": self.limit, "data": self.data}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Make a new lock."""
        self.__dict__.update(state, mutex=threading.RLock())
