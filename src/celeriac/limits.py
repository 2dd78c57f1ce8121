"""Rate limits: how often tasks of a kind may begin. Pure."""

from __future__ import annotations

from typing import Final

_PER_SECOND: Final = {"s": 1.0, "m": 1 / 60.0, "h": 1 / 3600.0}


def tokens_per_second(rate: float | str | None) -> float:
    """Return how many may begin in a second; 0: as many as can.

    Args:
        rate: A number for a second, or text such as ``10/m``; the units are s, m and h.

    Raises:
        ValueError: It is no number.
        KeyError: There is no such unit.
    """
    if not rate:
        return 0.0
    if isinstance(rate, str):
        count, _, unit = rate.partition("/")
        return float(count) * _PER_SECOND[unit.strip() or "s"]
    return float(rate)


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
