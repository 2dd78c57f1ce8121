"""The asynchronous side of the app floor: waiting for results and running coroutines.

The only module of floors 0-3 besides the drivers that needs asyncio; it is loaded when somebody awaits.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import weakref
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from celeriac.errors import TimeoutError as ResultTimeout
from celeriac.message import Outcome
from celeriac.ports import ResultBackend

T = TypeVar("T")

_SLICE_SECONDS = 1.0  # how long the waiting thread looks past a result that nobody awaits any more

_Waiting = list[tuple[str, "asyncio.Future[Outcome]"]]
_new: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[int, tuple[ResultBackend, _Waiting]]] = (
    weakref.WeakKeyDictionary()
)


async def outcome_of(backend: ResultBackend, id: str) -> Outcome:
    """Return the outcome of a task once it is ready.

    Whatever is awaited in the same turn of the loop (``asyncio.gather``) shares one thread and one wait.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Outcome] = loop.create_future()
    mine = _new.setdefault(loop, {})
    if id_of := mine.get(key := builtin_id(backend)):
        id_of[1].append((id, future))
    else:
        mine[key] = (backend, [(id, future)])
        loop.call_soon(_start, loop, key)
    return await future


async def outcomes_of(backend: ResultBackend, ids: Sequence[str]) -> dict[str, Outcome]:
    """Return the outcomes of several tasks once all are ready."""
    outcomes = await asyncio.gather(*(outcome_of(backend, id) for id in ids))
    return {outcome.id: outcome for outcome in outcomes}


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


builtin_id = id


def _start(loop: asyncio.AbstractEventLoop, key: int) -> None:
    backend, waiting = _new[loop].pop(key)
    thread = threading.Thread(
        target=_wait, args=(loop, backend, waiting), name="celeriac-results", daemon=True
    )
    thread.start()


def _wait(loop: asyncio.AbstractEventLoop, backend: ResultBackend, waiting: _Waiting) -> None:
    pending: dict[str, list[asyncio.Future[Outcome]]] = {}
    for id, future in waiting:
        pending.setdefault(id, []).append(future)
    while pending and not loop.is_closed():
        try:
            for outcome in backend.wait(list(pending), _SLICE_SECONDS):
                _deliver(loop, pending.pop(outcome.id), outcome)
        except ResultTimeout:
            pending = {id: left for id, futures in pending.items() if (left := _awaited(futures))}
        except Exception as exc:  # noqa: BLE001 - handed to whoever awaits
            for futures in pending.values():
                _deliver(loop, futures, exc)
            return


def _awaited(futures: list[asyncio.Future[Outcome]]) -> list[asyncio.Future[Outcome]]:
    return [future for future in futures if not future.cancelled()]


def _deliver(
    loop: asyncio.AbstractEventLoop, futures: list[asyncio.Future[Outcome]], news: Outcome | Exception
) -> None:
    def settle() -> None:
        for future in futures:
            if future.done():
                continue
            if isinstance(news, Exception):
                future.set_exception(news)
            else:
                future.set_result(news)

    try:
        loop.call_soon_threadsafe(settle)
    except RuntimeError:
        return  # the loop was closed in the meantime: nobody awaits


async def pause(seconds: float) -> None:
    """Wait without blocking the loop."""
    await asyncio.sleep(seconds)
