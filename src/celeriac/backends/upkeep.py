"""Removing expired results where the store does not do so itself, and nobody has to schedule it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from celeriac.errors import BackendError

logger: logging.Logger = logging.getLogger(__name__)

_LONGEST_SECONDS = 3600.0
_SHARE = 10  # of the time that results are kept: they are in the way for a tenth longer at most


class Upkeep:
    """Cleans a store now and then, on the occasion of something being stored.

    Args:
        expires_seconds: How long results are kept; None or 0 = for ever.
        cleanup: Removes what has expired.
    """

    def __init__(self, expires_seconds: float | None, cleanup: Callable[[], None]) -> None:
        self._every_seconds = min(expires_seconds / _SHARE, _LONGEST_SECONDS) if expires_seconds else None
        self._cleanup = cleanup
        # Not at once: whoever stores one result and ends shall not pay for it.
        self._next_at = time.monotonic() + (self._every_seconds or 0.0)

    def after_store(self) -> None:
        """Clean up when it is time; what goes wrong is logged, as the result itself is stored."""
        if self._every_seconds is None or time.monotonic() < self._next_at:
            return
        self._next_at = time.monotonic() + self._every_seconds
        try:
            self._cleanup()
        except BackendError as exc:
            logger.warning(
                "Expired results were not removed; next attempt in %.0f s: %s", self._every_seconds, exc
            )
