"""The asynchronous side of the app floor: waiting for results and running coroutines.

The only module of floors 0-3 besides the drivers that needs asyncio; it is loaded when somebody awaits.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import math
import os
import threading
import weakref
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar

from celeriac.forklock import ForkLock
from celeriac.message import Outcome
from celeriac.ports import ResultBackend, Waiting
from celeriac.states import READY_STATES

T = TypeVar("T")

_Future = asyncio.Future[Outcome]
_News = Outcome | Exception


def outcome_of(backend: ResultBackend, id: str) -> _Future:
    """Return a future of the outcome of a task; cancelling it leaves nothing behind."""
    future: _Future = asyncio.get_running_loop().create_future()
    _watcher_of(backend).join(id, future)
    return future


def outcomes_of(backend: ResultBackend, ids: Sequence[str]) -> asyncio.Future[list[Outcome]]:
    """Return a future of the outcomes of several tasks, in order."""
    return asyncio.gather(*_futures_of(backend, ids))


async def outcomes_as_they_come(backend: ResultBackend, ids: Sequence[str]) -> AsyncIterator[Outcome]:
    """Yield the outcome of each task once, as it becomes ready."""
    ready: asyncio.Queue[_Future] = asyncio.Queue()
    futures = _futures_of(backend, ids)
    try:
        for future in futures:
            future.add_done_callback(ready.put_nowait)
        for _ in futures:
            yield (await ready.get()).result()
    finally:
        for future in futures:
            future.cancel()


async def states_of(backend: ResultBackend, id: str) -> AsyncIterator[Outcome]:
    """Yield what is known of a task, again at each change, up to its final outcome."""
    stream = _Stream(asyncio.get_running_loop())
    _watcher_of(backend, every_state=True).join(id, stream)
    try:
        while not stream.done():
            yield await stream.next()
    finally:
        stream.cancel()


def _futures_of(backend: ResultBackend, ids: Sequence[str]) -> list[_Future]:
    loop, watcher = asyncio.get_running_loop(), _watcher_of(backend)
    futures = [loop.create_future() for _ in ids]
    for id, future in zip(ids, futures, strict=True):
        watcher.join(id, future)
    return futures


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end; in a thread of its own when this one's loop is running."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    ended: list[T] = []
    failed: list[BaseException] = []

    def target() -> None:
        try:
            ended.append(asyncio.run(coroutine))
        except BaseException as exc:  # noqa: BLE001
            failed.append(exc)

    around = contextvars.copy_context()  # so that it knows which task it runs in
    thread = threading.Thread(target=around.run, args=(target,), name="celeriac-coroutine")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return ended[0]


async def pause(seconds: float) -> None:
    """Wait without blocking the loop."""
    await asyncio.sleep(seconds)


class _Stream:
    """What is known of a task, one outcome after the other; told as a future is, but more than once."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._news: asyncio.Queue[_News] = asyncio.Queue()
        self._last: Outcome | None = None
        self._told_all = self._cancelled = False
        self._on_cancel: Callable[[_Stream], object] = lambda _: None

    async def next(self) -> Outcome:
        news = await self._news.get()
        if isinstance(news, Exception):
            raise news
        return news

    def done(self) -> bool:
        """Return whether nothing will come any more."""
        return self._cancelled or (self._told_all and self._news.empty())

    def cancelled(self) -> bool:
        return self._cancelled

    def cancel(self) -> None:
        if not self._told_all and not self._cancelled:
            self._cancelled = True
            self._on_cancel(self)

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    def add_done_callback(self, callback: Callable[[_Stream], object]) -> None:
        self._on_cancel = callback

    def set_result(self, outcome: Outcome) -> None:
        if outcome != self._last and not self._told_all:
            self._last = outcome
            self._told_all = outcome.state in READY_STATES
            self._news.put_nowait(outcome)

    def set_exception(self, error: Exception) -> None:
        self._told_all = True
        self._news.put_nowait(error)


_Sink = _Future | _Stream


class _Watcher:
    """Waits for results on behalf of all event loops of this process: in one thread, while there are any.

    The loops never touch the store. What is awaited in the same turn of a loop is told to the thread at once.

    Args:
        backend: Where the results are kept.
        every_state: Whether states that are not final are told as well, to streams.
    """

    def __init__(self, backend: ResultBackend, every_state: bool) -> None:
        self.pid = os.getpid()
        self._every_state = every_state
        self._backend = weakref.ref(backend)  # which is the key that this is kept under
        self._lock = threading.Lock()
        self._sinks: dict[str, list[_Sink]] = {}  # that the thread waits for
        self._fresh: dict[asyncio.AbstractEventLoop, list[tuple[str, _Sink]]] = {}
        self._waiting: Waiting | None = None  # of the thread that runs

    def join(self, id: str, sink: _Sink) -> None:
        """Tell a future or a stream of the running loop what becomes known of a task."""
        loop = sink.get_loop()
        with self._lock:
            if fresh := self._fresh.get(loop):
                fresh.append((id, sink))
            else:
                self._fresh[loop] = [(id, sink)]
                loop.call_soon(self._tell, loop)

    def _tell(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have the thread wait for what was awaited in this turn of the loop."""
        with self._lock:
            fresh = [(id, sink) for id, sink in self._fresh.pop(loop) if not sink.done()]
            for id, sink in fresh:
                self._sinks.setdefault(id, []).append(sink)
                sink.add_done_callback(functools.partial(self._leave, id))
                known = None if self._waiting is None else self._waiting.missing.get(id)
                if known is not None:
                    sink.set_result(known)  # others were told of it before this one came
            if not fresh:
                return
            starts = self._waiting is None
            if starts:
                backend = self._backend()
                assert backend is not None, "its results hold it"
                self._waiting = backend.waiting(every_state=self._every_state)
            assert self._waiting is not None
            self._waiting.add([id for id, _ in fresh])
            if starts:
                name = "celeriac-results"
                threading.Thread(target=self._run, args=(self._waiting,), name=name, daemon=True).start()

    def _leave(self, id: str, sink: _Sink) -> None:
        """Stop waiting for what was cancelled."""
        if not sink.cancelled():
            return
        with self._lock:
            left = [other for other in self._sinks.pop(id, ()) if other is not sink]
            if left:
                self._sinks[id] = left
            elif self._waiting is not None:
                self._waiting.drop([id])
                if not self._sinks:
                    self._waiting.wake()

    def _run(self, waiting: Waiting) -> None:
        news: list[Outcome] | Exception
        told: list[tuple[_Sink, _News]]
        while True:
            try:
                news = waiting.next(math.inf)
            except Exception as exc:  # noqa: BLE001 - handed to whoever awaits
                news = exc
            with self._lock:
                if isinstance(news, Exception):
                    told = [(sink, news) for sinks in self._sinks.values() for sink in sinks]
                    self._sinks.clear()
                else:
                    told = [(sink, outcome) for outcome in news for sink in self._sinks.get(outcome.id, ())]
                    for outcome in news:
                        if outcome.state in READY_STATES or not self._every_state:
                            self._sinks.pop(outcome.id, None)
                ends = not self._sinks
                if ends:
                    self._waiting = None
            _deliver(told)
            if ends:
                waiting.close()
                return


def _deliver(told: Sequence[tuple[_Sink, _News]]) -> None:
    by_loop = defaultdict(list)
    for sink, news in told:
        by_loop[sink.get_loop()].append((sink, news))
    for loop, some in by_loop.items():
        try:
            loop.call_soon_threadsafe(_settle, some)
        except RuntimeError:
            continue  # the loop was closed in the meantime: nobody awaits


def _settle(told: Sequence[tuple[_Sink, _News]]) -> None:
    for sink, news in told:
        if sink.done():
            continue
        if isinstance(news, Exception):
            sink.set_exception(news)
        else:
            sink.set_result(news)


_Watchers = weakref.WeakKeyDictionary[ResultBackend, _Watcher]
_watchers: dict[bool, _Watchers] = {False: weakref.WeakKeyDictionary(), True: weakref.WeakKeyDictionary()}
_watchers_lock = ForkLock()


def _watcher_of(backend: ResultBackend, *, every_state: bool = False) -> _Watcher:
    watchers = _watchers[every_state]
    watcher = watchers.get(backend)
    if watcher is not None and watcher.pid == os.getpid():  # a forked child has not its parent's thread
        return watcher
    with _watchers_lock:
        watcher = watchers.get(backend)
        if watcher is None or watcher.pid != os.getpid():
            watcher = watchers[backend] = _Watcher(backend, every_state)
        return watcher


LOADED: Final = True  # the last line: a module that another thread is still importing can be seen, too
