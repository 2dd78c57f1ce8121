"""Whether a scheduler gets on."""

from __future__ import annotations

from typing import Final

from celeriac.clock import Clock, SystemClock

__all__ = ["Pulse"]

# More than one call takes to be sent, or a store to be waited for.
_GRACE_SECONDS: Final = 60.0


class Pulse:
    """When the schedule was looked at, and when that is due again; safe for threads.

    Args:
        clock: Its monotonic time counts.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self.born: float = self._clock.monotonic()
        self.trouble: str | None = "starting"  # why the last look was none
        self._due = self.born + _GRACE_SECONDS

    def looked(self, pause_seconds: float, trouble: str | None) -> None:
        """Be told of a look.

        Args:
            pause_seconds: Until the next one.
            trouble: What was wrong with it.
        """
        self._due = self._clock.monotonic() + pause_seconds + _GRACE_SECONDS
        self.trouble = trouble

    @property
    def dead(self) -> str | None:
        """Why the scheduler had better be started again; None: it gets on."""
        late_seconds = self._clock.monotonic() - self._due
        if late_seconds <= 0:
            return None
        late_seconds += _GRACE_SECONDS
        return f"the schedule should have been looked at {late_seconds:.0f} s ago"
