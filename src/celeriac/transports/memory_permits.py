"""The permits of a memory broker."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from celeriac.clock import Clock
from celeriac.permits import PERMIT_SECONDS, Claim


class MemoryPermits:
    """Permits for the nodes of one process, `celeriac.permits.Permits`.

    Args:
        clock: Its monotonic time says when permits end.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._held: dict[str, dict[str, float]] = {}  # by what is limited: holders, and when they lose it
        self._lines: dict[str, dict[str, float]] = {}  # likewise who waits, in order

    def exchange(self, back: Sequence[Claim], wanted: Sequence[Claim]) -> list[bool]:
        """See `celeriac.permits.Permits`."""
        with self._lock:
            for claim in back:
                for table in (self._held, self._lines):
                    table.get(claim.limited, {}).pop(claim.holder, None)
            return [self._ask(claim) for claim in wanted]

    def renew(self, claims: Sequence[Claim]) -> list[bool]:
        """See `celeriac.permits.Permits`."""
        with self._lock:
            return [self._renew(claim) for claim in claims]

    def close(self) -> None:
        """Do nothing: there is no connection."""

    def _ask(self, claim: Claim) -> bool:
        now = self._clock.monotonic()
        held = _alive(self._held, claim.limited, now)
        line = _alive(self._lines, claim.limited, now)
        if claim.holder not in held:
            line[claim.holder] = now + PERMIT_SECONDS  # who is in line already keeps the place
            if [*line].index(claim.holder) >= claim.limit - len(held):
                return False
            del line[claim.holder]
            held[claim.holder] = now + (claim.keeps_seconds or PERMIT_SECONDS)
        elif not claim.keeps_seconds:
            held[claim.holder] = now + PERMIT_SECONDS
        return True

    def _renew(self, claim: Claim) -> bool:
        now = self._clock.monotonic()
        held = _alive(self._held, claim.limited, now)
        if claim.holder not in held:
            return False
        held[claim.holder] = now + PERMIT_SECONDS
        return True


def _alive(table: dict[str, dict[str, float]], limited: str, now: float) -> dict[str, float]:
    """Return the holders of something, without those whose time is over."""
    found = table.setdefault(limited, {})
    for holder in [holder for holder, until in found.items() if until <= now]:
        del found[holder]
    return found
