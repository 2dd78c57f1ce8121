"""A thread that answers over HTTP how a scheduler is."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

from celeriac.beat.condition import BeatCondition
from celeriac.beat.pulse import Pulse
from celeriac.node.health.address import HttpAddress
from celeriac.node.health.server import HealthServer

__all__ = ["asked_over_http"]


@contextlib.contextmanager
def asked_over_http(scheduler: Any, pulse: Pulse, address: HttpAddress | None) -> Iterator[None]:
    """Answer meanwhile.

    Args:
        scheduler: A Scheduler, or one of another package.
        pulse: Its pulse.
        address: Where; None: nowhere.

    Raises:
        ConfigError: Nothing can listen there.
    """
    if address is None:
        yield
        return
    stop = asyncio.Event()
    begun: Future[asyncio.AbstractEventLoop] = Future()

    async def serve() -> None:
        async with HealthServer(BeatCondition(scheduler, pulse), address):
            begun.set_result(asyncio.get_running_loop())
            await stop.wait()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as exc:
            if begun.done():
                raise
            begun.set_exception(exc)

    thread = threading.Thread(target=run, name="celeriac-beat-health", daemon=True)
    thread.start()
    loop = begun.result()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
