"""What is counted of a kind of task for those who measure: its endings, waits and run times."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from typing import Final

# From a task that does nothing to one that takes an hour.
BOUNDS_SECONDS: Final = (
    0.001,
    0.005,
    0.01,
    0.05,
    0.1,
    0.5,
    1.0,
    5.0,
    10.0,
    30.0,
    60.0,
    300.0,
    1800.0,
    3600.0,
)


MOST_TALLIES: Final = 200  # a task's name becomes a label, and there shall be few
OTHERS: Final = "(others)"


class Histogram:
    """How many durations were at most so long, and their sum."""

    __slots__ = ("counts", "seconds")

    def __init__(self) -> None:
        self.counts: list[int] = [0] * (len(BOUNDS_SECONDS) + 1)  # of each interval; the last has no end
        self.seconds: float = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self.counts[bisect_left(BOUNDS_SECONDS, seconds)] += 1
        self.seconds += seconds


class Tally:
    """The figures of one kind of task."""

    __slots__ = ("endings", "runs", "waits")

    def __init__(self) -> None:
        self.endings: Counter[str] = Counter()  # by what became of it
        self.waits: Histogram = Histogram()  # from when it could have begun here until it did
        self.runs: Histogram = Histogram()

    def ran(self, ending: str, waited_seconds: float, run_seconds: float) -> None:
        """Count a run."""
        self.endings[ending] += 1
        self.waits.observe(max(0.0, waited_seconds))
        self.runs.observe(run_seconds)
