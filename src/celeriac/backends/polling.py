"""Waiting for results in stores that cannot call back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence

from celeriac.message import Outcome
from celeriac.states import READY_STATES

FIRST_PAUSE_SECONDS = 0.02
LONGEST_PAUSE_SECONDS = 0.5  # two looks a second at a store is what a patient client may cost
GROWTH = 1.5


class PollingListener:
    """Hears of results by looking again and again; see `celeriac.ports.Listener`.

    The pause between two looks grows from 20 ms to half a second and starts anew when something arrived.

    Args:
        fetch: Returns what is known of some ids.
    """

    def __init__(self, fetch: Callable[[Sequence[str]], Mapping[str, Outcome]]) -> None:
        self._fetch = fetch
        self._watched: dict[str, None] = {}
        self._pause_seconds = FIRST_PAUSE_SECONDS
        self._woken = threading.Event()

    def watch(self, ids: Sequence[str]) -> list[Outcome]:
        """Look for these too from now on; return what is known already."""
        self._watched.update(dict.fromkeys(ids))
        self._pause_seconds = FIRST_PAUSE_SECONDS
        return self._look(ids)

    def unwatch(self, ids: Sequence[str]) -> None:
        """Do not look for these any longer."""
        for id in ids:
            self._watched.pop(id, None)

    def hear(self, until: float) -> list[Outcome]:
        """Sleep, then look for all; wakes early, without a look, when told to."""
        pause = max(0.0, min(self._pause_seconds, until - time.monotonic()))
        if self._woken.wait(pause):
            self._woken.clear()
            return []
        self._pause_seconds = min(self._pause_seconds * GROWTH, LONGEST_PAUSE_SECONDS)
        return self._look(list(self._watched))

    def wake(self) -> None:
        """Have `hear` return soon."""
        self._woken.set()

    def close(self) -> None:
        """Do nothing: it holds nothing."""

    def _look(self, ids: Sequence[str]) -> list[Outcome]:
        found = list(self._fetch(ids).values())
        for outcome in found:
            if outcome.state in READY_STATES:
                del self._watched[outcome.id]
                self._pause_seconds = FIRST_PAUSE_SECONDS
        return found
