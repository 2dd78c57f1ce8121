"""Waiting for results: all who wait in a process share one listener, and nobody listens when nobody waits."""

from __future__ import annotations

import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

from celeriac.backends.marks import Marks
from celeriac.backends.patient_listener import PatientListener
from celeriac.errors import TimeoutError as ResultTimeout
from celeriac.message import Outcome
from celeriac.ports import Listener
from celeriac.states import READY_STATES
from celeriac.tries import Tries


class Waiter:
    """Lets any number of threads wait for results through one listener.

    One of the threads that wait leads: it alone talks to the listener, and hands the others what is theirs.
    When it has what it wanted, another one leads. So a lone thread waits without any hand-over, fifty share
    a connection, and no thread of ours is needed. A forked child begins anew and leaves its parent's
    listener alone.

    Args:
        listen: Makes a listener; called when somebody begins to wait and nobody else does.
        tries: What to do when the store cannot be reached; None has everybody who waits told at once.
    """

    def __init__(self, listen: Callable[[], Listener], tries: Tries | None = None) -> None:
        self._listen = listen if tries is None else lambda: PatientListener(listen, tries)
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._room = _Room(self._listen)

    def open(self, *, every_state: bool = False) -> Waiting:
        """Return a wait that ids can be added to; `Waiting.close` it.

        Args:
            every_state: Whether states that are not final are news as well.
        """
        if self._pid != os.getpid():
            self._begin()
        return Waiting(self._room, every_state)

    def wait(self, ids: Sequence[str], timeout: float | None) -> Iterator[Outcome]:
        """Yield the outcome of each id once, as it becomes ready; see `celeriac.ports.ResultBackend.wait`."""
        waiting = self.open()
        try:
            waiting.add(ids)
            until = math.inf if timeout is None else time.monotonic() + timeout
            while waiting.missing:
                outcomes = waiting.next(until)
                if not outcomes:
                    raise ResultTimeout(
                        f"The operation timed out: {len(waiting.missing)} result(s) not ready in {timeout} s."
                    )
                yield from outcomes
        finally:
            waiting.close()


class Awaited(Marks):
    """The part of a backend that is waited for; the backend makes its `Waiter`."""

    _waiter: Waiter

    def wait(self, ids: Sequence[str], timeout: float | None) -> Iterator[Outcome]:
        """Yield the outcome of each id once, as it becomes ready; see `celeriac.ports.ResultBackend`."""
        return self._waiter.wait(ids, timeout)

    def waiting(self, *, every_state: bool = False) -> Waiting:
        """Return a wait that ids can be added to; see `celeriac.ports.ResultBackend`."""
        return self._waiter.open(every_state=every_state)


class Waiting:
    """One who waits for the outcomes of some ids; see `celeriac.ports.Waiting`."""

    def __init__(self, room: _Room, every_state: bool) -> None:
        self._room = room
        self.every_state = every_state
        self.missing: dict[str, Outcome | None] = {}  # with what was last said of it
        self.news: deque[Outcome | Exception] = deque()
        self.turn: threading.Event = threading.Event()  # set: there is news, or the lead to take

    def add(self, ids: Iterable[str]) -> None:
        """Wait for these too."""
        self._room.add(self, ids)

    def drop(self, ids: Iterable[str]) -> None:
        """Do not wait for these any longer."""
        self._room.drop(self, ids)

    def next(self, until: float) -> list[Outcome]:
        """Return the outcomes that have come since the last call, waiting for one if need be."""
        self._room.attend(self, until)
        outcomes = []
        while self.news:
            news = self.news.popleft()
            if isinstance(news, Exception):
                raise news.with_traceback(None)  # or every waiting thread would add its frames to it
            outcomes.append(news)
        return outcomes

    def wake(self) -> None:
        """Have `next` return soon, in whichever thread it waits."""
        self._room.wake(self)

    def close(self) -> None:
        """Wait for nothing any longer."""
        self._room.drop(self, list(self.missing))
        self._room.tidy()


class _Room:
    """Where those wait who share a listener: of one backend in one process."""

    def __init__(self, listen: Callable[[], Listener]) -> None:
        self._listen = listen
        self._lock = threading.Lock()
        self._led = False  # somebody leads, who alone may touch the listener, but for `wake`
        self._listener: Listener | None = None
        self._waits: dict[str, list[Waiting]] = {}
        self._following: dict[Waiting, None] = {}  # those who sleep until there is news or the lead to take
        self._new: list[str] = []  # ids that the listener does not know yet
        self._old: list[str] = []  # ids that it may forget
        self._roused: set[Waiting] = set()

    def add(self, one: Waiting, ids: Iterable[str]) -> None:
        with self._lock:
            for id in ids:
                if id in one.missing:
                    continue
                one.missing[id] = None
                others = self._waits.setdefault(id, [])
                if not others or one.every_state:  # it has to be told what is known already
                    self._new.append(id)
                others.append(one)
            if self._new and self._led and self._listener is not None:
                self._listener.wake()

    def drop(self, one: Waiting, ids: Iterable[str]) -> None:
        with self._lock:
            for id in ids:
                if id in one.missing:
                    del one.missing[id]
                    others = self._waits[id]
                    others.remove(one)
                    if not others:
                        del self._waits[id]
                        self._old.append(id)

    def wake(self, one: Waiting) -> None:
        with self._lock:
            self._roused.add(one)
            one.turn.set()
            if self._led and self._listener is not None:
                self._listener.wake()

    def attend(self, one: Waiting, until: float) -> None:
        """Return when there is news for this one, when it misses nothing, is woken, or at ``until``."""
        while True:
            with self._lock:
                if one.news or not one.missing or one in self._roused:
                    self._roused.discard(one)
                    return
                leads = not self._led
                if leads:
                    self._led = True
                else:
                    one.turn.clear()
                    self._following[one] = None
            if leads:
                self._lead(one, until)
            else:
                self._follow(one, until)
            if time.monotonic() >= until and not one.news:
                return

    def tidy(self) -> None:
        """Close the listener when nobody waits any longer; else see that somebody leads."""
        with self._lock:
            if self._led:
                return
            self._led = True
        self._step_down()

    def _follow(self, one: Waiting, until: float) -> None:
        try:
            one.turn.wait(None if until == math.inf else max(0.0, until - time.monotonic()))
        finally:
            with self._lock:
                self._following.pop(one, None)
            self._pass_on()  # it may have been this one's turn to lead, while it has other news

    def _lead(self, one: Waiting, until: float) -> None:
        try:
            while True:
                self._catch_up()
                if one.news or not one.missing or one in self._roused:
                    return
                assert self._listener is not None
                self._spread(self._listener.hear(until))
                if time.monotonic() >= until:
                    return
        except Exception as exc:  # noqa: BLE001 - raised again in everybody who waits
            self._fail(exc)
        finally:
            self._step_down()

    def _catch_up(self) -> None:
        """Tell the listener who came and who left."""
        if self._listener is None:
            self._listener = self._listen()
        with self._lock:
            new = list(dict.fromkeys(id for id in self._new if id in self._waits))
            old = [id for id in self._old if id not in self._waits]
            self._new, self._old = [], []
        if old:
            self._listener.unwatch(old)
        if new:
            self._spread(self._listener.watch(new))

    def _spread(self, outcomes: Iterable[Outcome]) -> None:
        with self._lock:
            for outcome in outcomes:
                ready = outcome.state in READY_STATES
                others = self._waits.pop(outcome.id, ()) if ready else self._waits.get(outcome.id, ())
                for other in others:
                    if ready:
                        del other.missing[outcome.id]
                    elif not other.every_state or other.missing[outcome.id] == outcome:
                        continue
                    else:
                        other.missing[outcome.id] = outcome
                    other.news.append(outcome)
                    other.turn.set()

    def _fail(self, exc: Exception) -> None:
        with self._lock:
            for one in {one for others in self._waits.values() for one in others}:
                one.missing.clear()
                one.news.append(exc)
                one.turn.set()
            self._waits.clear()

    def _step_down(self) -> None:
        with self._lock:
            listener = self._listener
            if self._waits:
                listener = None
            else:
                self._listener = None
                self._new, self._old = [], []
        try:
            if listener is not None:
                listener.close()
        finally:
            with self._lock:
                self._led = False
            self._pass_on()

    def _pass_on(self) -> None:
        """Wake somebody who can lead, when nobody does."""
        with self._lock:
            if not self._led and self._following:
                next(iter(self._following)).turn.set()
