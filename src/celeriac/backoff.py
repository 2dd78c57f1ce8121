"""How long to wait before the next try: of a task, of a publish, of a connection."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

CONNECTION_INTERVALS = (2.0, 2.0, 4.0)  # seconds; a worker is back within 5 s of the broker's return


def exponential(
    retries: int,
    *,
    factor: float = 1,
    maximum: float = 600,
    full_jitter: bool = True,
    pick: Callable[[int], int] = random.randrange,
) -> int:
    """Return the seconds before a task's next try: ``factor * 2**retries``, at most ``maximum``.

    Args:
        retries: How many tries failed before this one, from 0.
        factor: Seconds before the first retry; below 1 counts as 1, fractions are dropped.
        maximum: Most seconds.
        full_jitter: Whether to pick any whole number from 0 to that, so that tasks that failed together
            do not come back together.
        pick: Returns a whole number from 0 to below its argument.
    """
    base = int(max(1, factor))
    ceiling = int(maximum)
    # Beyond the ceiling's own bits every power is too large: a task may have been retried a million times.
    doublings = min(max(0, retries), ceiling.bit_length() + 1)
    seconds = max(0, min(ceiling, base << doublings))
    return pick(seconds + 1) if full_jitter else seconds


def intervals(start: float, step: float, maximum: float, retries: int | None = None) -> Iterator[float]:
    """Yield the seconds before each further try: ``start``, then ``step`` more each time, up to ``maximum``.

    Args:
        start: Before the first further try.
        step: By what it grows.
        maximum: Where it stops growing.
        retries: How many further tries there are; None never ends.
    """
    for number in itertools.count() if retries is None else range(retries):
        yield min(maximum, start + step * number)


def left_of(pause: float, took: float, *, least: float) -> float:
    """Return the seconds to wait before the next try when the pauses are between the beginnings of two.

    Args:
        pause: Seconds from the beginning of one try to that of the next.
        took: Seconds that the failed try took.
        least: Seconds to wait in any case.
    """
    return min(pause, max(least, pause - took))


def publish_intervals(policy: Mapping[str, Any] | None) -> Iterator[float]:  # Any: a user's numbers
    """Yield the seconds before each further try of a publish.

    Args:
        policy: A retry policy as of ``task_publish_retry_policy``; keys left out have its defaults.
    """
    merged = {
        "max_retries": 3,
        "interval_start": 0,
        "interval_step": 0.2,
        "interval_max": 1,
        **(policy or {}),
    }
    return intervals(
        merged["interval_start"] or 0,
        merged["interval_step"] or 0,
        merged["interval_max"] or 0,
        merged["max_retries"],
    )
