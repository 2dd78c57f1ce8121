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
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any, TypeVar

from celeriac.forklock import ForkLock
from celeriac.message import Outcome
from celeriac.ports import ResultBackend, Waiting

T = TypeVar("T")

_Future = asyncio.Future[Outcome]


def outcome_of(backend: ResultBackend, id: str) -> _Future:
    """Return a future of the outcome of a task; cancelling it leaves nothing behind."""
    return _watcher_of(backend).future_of(id)


def outcomes_of(backend: ResultBackend, ids: Sequence[str]) -> asyncio.Future[list[Outcome]]:
    """Return a future of the outcomes of several tasks, in order."""
    watcher = _watcher_of(backend)
    return asyncio.gather(*(watcher.future_of(id) for id in ids))


async def outcomes_as_they_come(backend: ResultBackend, ids: Sequence[str]) -> AsyncIterator[Outcome]:
    """Yield the outcome of each task once, as it becomes ready."""
    watcher = _watcher_of(backend)
    ready: asyncio.Queue[_Future] = asyncio.Queue()
    futures = [watcher.future_of(id) for id in ids]
    try:
        for future in futures:
            future.add_done_callback(ready.put_nowait)
        for _ in futures:
            yield (await ready.get()).result()
    finally:
        for future in futures:
            future.cancel()


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


class _Watcher:
    """Waits for results on behalf of all event loops of this process: in one thread, while there are any.

    The loops never touch the store. What is awaited in the same turn of a loop is told to the thread at once.

    Args:
        backend: Where the results are kept.
    """

    def __init__(self, backend: ResultBackend) -> None:
        self.pid = os.getpid()
        self._backend = weakref.ref(backend)  # which is the key that this is kept under
        self._lock = threading.Lock()
        self._futures: dict[str, list[_Future]] = {}  # that the thread waits for
        self._fresh: dict[asyncio.AbstractEventLoop, list[tuple[str, _Future]]] = {}
        self._waiting: Waiting | None = None  # of the thread that runs

    def future_of(self, id: str) -> _Future:
        """Return a future of the outcome of a task, of the running loop."""
        loop = asyncio.get_running_loop()
        future: _Future = loop.create_future()
        with self._lock:
            if fresh := self._fresh.get(loop):
                fresh.append((id, future))
            else:
                self._fresh[loop] = [(id, future)]
                loop.call_soon(self._tell, loop)
        return future

    def _tell(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have the thread wait for what was awaited in this turn of the loop."""
        with self._lock:
            fresh = [(id, future) for id, future in self._fresh.pop(loop) if not future.done()]
            for id, future in fresh:
                self._futures.setdefault(id, []).append(future)
                future.add_done_callback(functools.partial(self._leave, id))
            if not fresh:
                return
            starts = self._waiting is None
            if starts:
                backend = self._backend()
                assert backend is not None, "its results hold it"
                self._waiting = backend.waiting()
            assert self._waiting is not None
            self._waiting.add([id for id, _ in fresh])
            if starts:
                name = "celeriac-results"
                threading.Thread(target=self._run, args=(self._waiting,), name=name, daemon=True).start()

    def _leave(self, id: str, future: _Future) -> None:
        """Stop waiting for what was cancelled."""
        if not future.cancelled():
            return
        with self._lock:
            left = [other for other in self._futures.pop(id, ()) if other is not future]
            if left:
                self._futures[id] = left
            elif self._waiting is not None:
                self._waiting.drop([id])
                if not self._futures:
                    self._waiting.wake()

    def _run(self, waiting: Waiting) -> None:
        news: list[Outcome] | Exception
        told: list[tuple[_Future, Outcome | Exception]]
        while True:
            try:
                news = waiting.next(math.inf)
            except Exception as exc:  # noqa: BLE001 - handed to whoever awaits
                news = exc
            with self._lock:
                if isinstance(news, Exception):
                    told = [(future, news) for futures in self._futures.values() for future in futures]
                    self._futures.clear()
                else:
                    told = [
                        (future, outcome) for outcome in news for future in self._futures.pop(outcome.id, ())
                    ]
                ends = not self._futures
                if ends:
                    self._waiting = None
            _deliver(told)
            if ends:
                waiting.close()
                return


def _deliver(told: Sequence[tuple[_Future, Outcome | Exception]]) -> None:
    by_loop = defaultdict(list)
    for future, news in told:
        by_loop[future.get_loop()].append((future, news))
    for loop, some in by_loop.items():
        try:
            loop.call_soon_threadsafe(_settle, some)
        except RuntimeError:
            continue  # the loop was closed in the meantime: nobody awaits


def _settle(told: Sequence[tuple[_Future, Outcome | Exception]]) -> None:
    for future, news in told:
        if future.done():
            continue
        if isinstance(news, Exception):
            future.set_exception(news)
        else:
            future.set_result(news)


_watchers: weakref.WeakKeyDictionary[ResultBackend, _Watcher] = weakref.WeakKeyDictionary()
_watchers_lock = ForkLock()


def _watcher_of(backend: ResultBackend) -> _Watcher:
    watcher = _watchers.get(backend)
    if watcher is not None and watcher.pid == os.getpid():  # a forked child has not its parent's thread
        return watcher
    with _watchers_lock:
        watcher = _watchers.get(backend)
        if watcher is None or watcher.pid != os.getpid():
            watcher = _watchers[backend] = _Watcher(backend)
        return watcher
