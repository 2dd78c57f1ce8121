"""A worker without node and pool: runs what waits at the memory broker, in this thread, one by one."""

from __future__ import annotations

import asyncio
import inspect
import itertools
from collections.abc import Callable
from typing import Any

from celeriac.app import Celeriac
from celeriac.context import Context, request_of_message
from celeriac.errors import NotRegistered
from celeriac.followup import conclude
from celeriac.hooks import Hooks
from celeriac.message import Ack, Delivery
from celeriac.ports import ConsumeSpec
from celeriac.run import Ending, run
from celeriac.wire.task import unpack_call

_names = itertools.count()


def new_app(*, results: bool = False, **settings: Any) -> Celeriac:
    """Return an app with a memory broker of its own, and with ``results`` a memory store of its own."""
    name = f"desk-{next(_names)}"
    settings.setdefault("broker", f"memory://{name}")
    settings.setdefault("backend", f"memory://{name}" if results else "disabled")
    return Celeriac("proj", **settings)


class Desk:
    """Runs the tasks that an app has sent; as a `Stage` it does what a worker's child does."""

    def __init__(self, app: Celeriac) -> None:
        self.app = app
        self.hooks: Hooks = app.hooks
        self.endings: list[tuple[str, Ending]] = []
        self.requests: list[Context] = []
        self.errors: list[Exception] = []

    def run_all(self) -> list[tuple[str, Ending]]:
        """Run what waits, and what is sent meanwhile, until nothing waits."""
        asyncio.run(self._drain())
        return self.endings

    def started(self, task: Any, request: Context) -> None: ...

    def call(self, body: Callable[[], Any]) -> Any:
        value = body()
        if not inspect.iscoroutine(value):
            return value
        loop = asyncio.new_event_loop()
        try:
            return loop.run_until_complete(value)
        finally:
            loop.close()

    def conclude(self, task: Any, request: Context, ending: Ending) -> None:
        record, part = conclude(self.app, task, request, ending)
        assert part is None  # the memory store counts at once
        if record is not None and self.app.backend is not None:
            self.app.backend.store([record])

    def internal_error(self, task: Any, request: Context, exc: Exception) -> None:
        self.errors.append(exc)

    async def _drain(self) -> None:
        queues = self.app.router.consume_from()
        spec = ConsumeSpec(queues=queues, node="desk@here")
        consumer = await self.app.transport.consumer(spec)
        try:
            while any(self.app.transport.size(queue.name) for queue in queues):
                try:
                    deliveries = await asyncio.wait_for(consumer.receive(1), 0.2)
                except TimeoutError:
                    return  # what is left is not due yet
                for delivery in deliveries:
                    await asyncio.to_thread(self._run, delivery)
                    await consumer.settle([(delivery, Ack())])
        finally:
            await consumer.close()

    def _run(self, delivery: Delivery) -> None:
        envelope = delivery.envelope
        headers = envelope.headers
        types = self.app.codecs.accept_set(["json", "pickle"])
        call = unpack_call(
            envelope.body,
            envelope.content_type,
            envelope.content_encoding,
            headers.get("compression"),
            self.app.codecs,
            types,
            1 << 20,
        )
        request = request_of_message(
            headers,
            call,
            hostname="desk@here",
            reply_to=envelope.properties.reply_to,
            correlation_id=envelope.properties.correlation_id,
            delivery_info={
                "exchange": delivery.exchange,
                "routing_key": delivery.routing_key,
                "priority": envelope.properties.priority,
                "redelivered": delivery.redelivered,
            },
        )
        try:
            task = self.app.tasks[headers["task"]]
        except NotRegistered as exc:
            self.errors.append(exc)
            return
        self.requests.append(request)
        self.endings.append((task.name, run(task, request, self)))
