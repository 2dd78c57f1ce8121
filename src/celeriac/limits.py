"""Limits: how often tasks of a kind may begin, and how many of them may run at a time. Pure."""

from __future__ import annotations

import math
from typing import Any, Final

from celeriac.errors import ConfigError

SCOPES: Final = ("worker", "global")
_PER_SECOND: Final = {"s": 1.0, "m": 1 / 60.0, "h": 1 / 3600.0}


def tokens_per_second(rate: float | str | None) -> float:
    """Return how many may begin in a second; 0: as many as can.

    Args:
        rate: A number for a second, or text such as ``10/m``; the units are s, m and h.

    Raises:
        ValueError: It is no number, or one below 0.
        KeyError: There is no such unit.
    """
    if not rate:
        return 0.0
    count, unit = rate, ""
    if isinstance(rate, str):
        count, _, unit = rate.partition("/")
    number = float(count)
    if not 0.0 <= number < math.inf:
        raise ValueError(f"nothing can begin {count!s} times")
    return number * _PER_SECOND[unit.strip() or "s"]


def check_time_limits(soft: float | None, hard: float | None) -> None:
    """Look at the time limits of a call, in seconds.

    Raises:
        ValueError: The soft one is above the hard one.
    """
    if hard is not None and (soft or 0) > hard:
        raise ValueError("soft_time_limit must be less than or equal to time_limit")


def check(task: Any) -> None:  # Any: a Task of any parameters
    """Look at the limits that a task was declared with.

    Raises:
        ConfigError: One makes no sense.
    """
    limit, scope, per = task.concurrency_limit, task.rate_limit_scope, task.per
    if limit is not None and (type(limit) is not int or limit < 1):
        raise ConfigError(f"Task {task.name}: concurrency_limit={limit!r} is no whole number above 0.")
    if scope not in SCOPES:
        raise ConfigError(f"Task {task.name}: rate_limit_scope={scope!r} is neither 'worker' nor 'global'.")
    if per is not None and limit is None and scope != "global":
        raise ConfigError(
            f"Task {task.name}: per={per!r} has nothing to count for: there is neither a concurrency_limit "
            "nor rate_limit_scope='global'."
        )
    try:
        tokens_per_second(task.rate_limit)
    except (ValueError, KeyError, TypeError) as exc:
        raise ConfigError(
            f"Task {task.name}: rate_limit={task.rate_limit!r} is no rate; it is a number for a second, or "
            "text such as '10/s', '100/m' or '5/h'."
        ) from exc


class TokenBucket:
    """One token at a time, so many a second: the first may begin at once, and there is no burst.

    Args:
        rate: Tokens in a second, above 0.
        now: Seconds on the clock that the other methods are told.
    """

    def __init__(self, rate: float, now: float) -> None:
        self.rate = rate
        self._next = now  # when there is a token

    def take(self, now: float) -> bool:
        """Take a token, if there is one."""
        if now < self._next:
            return False
        self._next = now + 1.0 / self.rate
        return True

    def wait_seconds(self, now: float) -> float:
        """Return how long it takes until there is a token."""
        return max(0.0, self._next - now)
