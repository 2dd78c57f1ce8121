"""Which entry comes next, of many thousands."""

from __future__ import annotations

import heapq

__all__ = ["Agenda"]


class Agenda:
    """Names in the order of their times; putting and taking one costs the logarithm of how many there are."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, str]] = []
        self._times: dict[str, float] = {}  # what counts; the heap may also hold what has been

    def put(self, name: str, time: float) -> None:
        """Put a name down for a time, instead of the one that it had."""
        if self._times.get(name) != time:
            self._times[name] = time
            heapq.heappush(self._heap, (time, name))

    def drop(self, name: str) -> None:
        """Forget a name."""
        self._times.pop(name, None)

    def clear(self) -> None:
        """Forget all."""
        self._heap.clear()
        self._times.clear()

    def first(self) -> tuple[float, str] | None:
        """Return the first time and its name, which stays; None when there is nothing."""
        heap = self._heap
        while heap:
            time, name = heap[0]
            if self._times.get(name) == time:
                return time, name
            heapq.heappop(heap)
        return None
