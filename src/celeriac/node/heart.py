"""The heart: tells that a node is there, what it does, and that it leaves."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
from contextlib import suppress
from typing import Any, Final, Protocol

from celeriac.app import Celeriac
from celeriac.errors import TransportError
from celeriac.events.stream import EventStream
from celeriac.version import VERSION

logger: logging.Logger = logging.getLogger("celery.worker.heartbeat")

DEFAULT_SECONDS: Final = 2.0  # between heartbeats
_REQUESTED_FREQ: Final = 5
_LAST_WORDS_SECONDS: Final = 1.0

Facts = dict[str, Any]  # Any: the values of an event's fields


class Doing(Protocol):
    """What a heart is asked about."""

    def doing(self) -> tuple[int, int]:
        """Return how many tasks run now, and how many have ended since the node was started."""
        ...


class Heart:
    """Has the events of a node sent, and adds its own: that it is online, is alive, and leaves.

    Args:
        app: The app.
        hostname: The node's name.
        stream: Where events go.
        doing: Knows what the node does.
        seconds: Between heartbeats; None: it tells nothing of itself unless it is asked.
    """

    def __init__(
        self, app: Celeriac, hostname: str, stream: EventStream, doing: Doing, seconds: float | None
    ) -> None:
        self._app = app
        self._hostname = hostname
        self._stream = stream
        self._doing = doing
        self._seconds = seconds

    async def open(self) -> None:
        """Say that the node is online."""
        if self._seconds is None:
            return
        self._beat("worker-online")
        with suppress(TransportError):  # it waits, and is told when the broker is back
            await self._stream.flush()

    async def run(self) -> None:
        """Beat until cancelled; then say good-bye, if the broker hears it at once."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._stream.run(), name="events of tasks")
                if self._seconds is not None:
                    group.create_task(self._go_on(self._seconds), name="heartbeats")
        finally:
            await self._leave()

    def answer(self) -> None:
        """Beat because somebody has asked for it."""
        self._stream.emit("worker-heartbeat", {"freq": _REQUESTED_FREQ, **_software()})

    async def _go_on(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due += seconds
            await asyncio.sleep(max(0.0, due - loop.time()))
            due = max(due, loop.time() - seconds)  # after a standstill, one is enough
            self._beat("worker-heartbeat")
            self._app.hooks.heartbeat_sent.send(sender=self)

    async def _leave(self) -> None:
        if self._seconds is not None:
            self._beat("worker-offline")
        try:
            async with asyncio.timeout(_LAST_WORDS_SECONDS):
                await self._stream.flush()
        except (TransportError, TimeoutError) as exc:
            logger.debug("Nobody hears that %s leaves: %r", self._hostname, exc)
        await self._stream.close()

    def _beat(self, kind: str) -> None:
        running, ended = self._doing.doing()
        load = [round(value, 2) for value in os.getloadavg()]
        facts: Facts = {"freq": self._seconds, "active": running, "processed": ended, "loadavg": load}
        self._stream.emit(kind, {**facts, **_software()})


def _software() -> Facts:
    return {"sw_ident": "py-celeriac", "sw_ver": VERSION, "sw_sys": platform.system()}
