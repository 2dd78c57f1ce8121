"""Waiting for results in a store that may be out of reach for a while."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from celeriac.errors import BackendError, BackendUnreachable
from celeriac.message import Outcome
from celeriac.ports import Listener
from celeriac.states import READY_STATES
from celeriac.tries import Tries

logger: logging.Logger = logging.getLogger(__name__)


class PatientListener:
    """Hears of results by a listener that is made anew when the store cannot be reached.

    See `celeriac.ports.Listener`. Who waits has a limit of his own: `hear` ends with it, store or no store.

    Args:
        listen: Makes a listener.
        tries: How often it is made anew until one is of use, and after which pauses.
    """

    def __init__(self, listen: Callable[[], Listener], tries: Tries) -> None:
        self._listen = listen
        self._tries = tries
        self._pauses: Iterator[float] = tries.pauses()
        self._listener: Listener | None = None
        self._watched: dict[str, None] = {}
        self._woken = threading.Event()

    def watch(self, ids: Sequence[str]) -> list[Outcome]:
        """Hear of these too; return what is known already, unless `hear` will."""
        self._watched.update(dict.fromkeys(ids))
        if self._listener is None:
            return []  # `hear` makes one, which is told of all
        try:
            return self._noted(self._listener.watch(ids))
        except BackendUnreachable as exc:
            self._drop(exc)
            return []

    def unwatch(self, ids: Sequence[str]) -> None:
        """Do not hear of these any longer."""
        for id in ids:
            self._watched.pop(id, None)
        if self._listener is not None:
            self._listener.unwatch(ids)

    def hear(self, until: float) -> list[Outcome]:
        """Return the next outcomes; see `celeriac.ports.Listener`.

        Raises:
            BackendUnreachable: The store stayed away for all the tries that there are.
        """
        while not self._woken.is_set():
            try:
                found = self._heard(until)
            except BackendUnreachable as exc:
                self._drop(exc)
                pause = next(self._pauses, None)
                if pause is None:
                    self._pauses = self._tries.pauses()
                    raise
                left = until - time.monotonic()
                if left <= 0:
                    return []
                self._woken.wait(min(pause, left))
            else:
                if found is not None:
                    self._pauses = self._tries.pauses()
                    self._woken.clear()
                    return self._noted(found)
        self._woken.clear()
        return []

    def wake(self) -> None:
        """Have `hear` return soon."""
        self._woken.set()
        if (listener := self._listener) is not None:
            listener.wake()

    def close(self) -> None:
        """Let go of what it listens with."""
        if self._listener is not None:
            self._listener.close()

    def _heard(self, until: float) -> list[Outcome] | None:
        """Return what is heard next; None when it is to be asked once more."""
        if self._listener is None:
            # Before it is asked anything: who wakes us from now on wakes it as well.
            self._listener = self._listen()
            return self._listener.watch(list(self._watched)) or None
        return self._listener.hear(until)

    def _noted(self, outcomes: list[Outcome]) -> list[Outcome]:
        for outcome in outcomes:
            if outcome.state in READY_STATES:
                self._watched.pop(outcome.id, None)
        return outcomes

    def _drop(self, why: BackendUnreachable) -> None:
        logger.warning("%d result(s) are waited for all the same: %s", len(self._watched), why)
        listener, self._listener = self._listener, None
        if listener is not None:
            with contextlib.suppress(BackendError):  # it is out of reach, which was told
                listener.close()
