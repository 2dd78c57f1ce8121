"""Waiting for results in a file of this machine: whoever stores one rings."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence

from celeriac.message import Outcome
from celeriac.net.doorbell import Bell
from celeriac.states import READY_STATES

_NO_BELL_POLL_SECONDS = 0.05


class BellListener:
    """Hears of results by a doorbell, and looks by itself now and then; see `celeriac.ports.Listener`.

    Args:
        fetch: Returns what is known of some ids.
        hang_up: Makes the bell; None where none can be hung up. Asked when there is something to wait for.
        pause_seconds: How long it trusts in the bell before it looks.
    """

    def __init__(
        self,
        fetch: Callable[[Sequence[str]], Mapping[str, Outcome]],
        hang_up: Callable[[], Bell | None],
        pause_seconds: float,
    ) -> None:
        self._fetch = fetch
        self._hang_up = hang_up
        self._bell: Bell | None = None
        self._hung = False
        self._pause_seconds = pause_seconds
        self._watched: dict[str, None] = {}
        self._woken = threading.Event()

    def watch(self, ids: Sequence[str]) -> list[Outcome]:
        """Hear of these too; return what is known already."""
        self._watched.update(dict.fromkeys(ids))
        return self._look(ids)

    def unwatch(self, ids: Sequence[str]) -> None:
        """Do not hear of these any longer."""
        for id in ids:
            self._watched.pop(id, None)

    def hear(self, until: float) -> list[Outcome]:
        """Wait for a ring and return what is known of those that it is about."""
        if not self._hung:
            self._bell, self._hung = self._hang_up(), True
            return self._look(list(self._watched))  # one may have come before the bell hung
        if self._woken.is_set():
            self._woken.clear()
            return []
        pause = max(0.0, min(self._pause_seconds, until - time.monotonic()))
        if self._bell is None:
            if self._woken.wait(min(pause, _NO_BELL_POLL_SECONDS)):
                return []
            return self._look(list(self._watched))
        if not self._bell.wait(pause):
            return self._look(list(self._watched))  # the slow look behind the bell
        self._woken.clear()
        news, some_missed = self._bell.drain()
        if some_missed or not all(news):
            return self._look(list(self._watched))
        rung = {task_id for ids in news for task_id in ids.decode().split("\0")}
        return self._look([task_id for task_id in rung if task_id in self._watched])

    def wake(self) -> None:
        """Have `hear` return soon."""
        self._woken.set()
        if (bell := self._bell) is not None:
            bell.touch()

    def close(self) -> None:
        """Take the bell down."""
        if self._bell is not None:
            self._bell.close()

    def _look(self, ids: Sequence[str]) -> list[Outcome]:
        found = list(self._fetch(ids).values()) if ids else []
        for outcome in found:
            if outcome.state in READY_STATES:
                del self._watched[outcome.id]
        return found
