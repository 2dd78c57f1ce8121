"""Sending commands and collecting answers, for programs that have no event loop and for those that do."""

from __future__ import annotations

import importlib
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

import msgspec

from celeriac import ids
from celeriac.errors import CodecError, ConfigError
from celeriac.message import Broadcast, Envelope, Props
from celeriac.ports import Fanout, Subscription, Transport
from celeriac.settings.settings import Settings
from celeriac.wire import control as wire

R = TypeVar("R")

Reply = dict[str, Any]  # Any: what a command answers; the only key is the node's name
OnReply = Callable[[Reply], object]

PUBLISH_SECONDS: Final = 5.0


def terms_of(conf: Settings) -> wire.Terms:
    """Return how the exchanges and queues of control are declared.

    Raises:
        ConfigError: Queues cannot be both durable and exclusive.
    """
    if conf.control_queue_durable and conf.control_queue_exclusive:
        raise ConfigError(
            "control_queue_durable and control_queue_exclusive cannot both be set: a queue that belongs to "
            "one connection does not outlive it."
        )
    return wire.Terms(
        name=conf.control_exchange,
        ttl_seconds=conf.control_queue_ttl,
        expires_seconds=conf.control_queue_expires,
        durable=conf.control_queue_durable,
        exclusive=conf.control_queue_exclusive,
    )


class _Wait(msgspec.Struct, frozen=True, kw_only=True):
    """How somebody waits for answers."""

    seconds: float
    limit: int | None = None  # enough answers
    on_reply: OnReply | None = None
    besides: str | None = None  # the node whose answer does not count


class Mailbox:
    """Where an app sends commands from, and where it gets the answers.

    Args:
        app: The app; a Celeriac.
        transport: The broker; the one that the app sends to when not given.
    """

    def __init__(self, app: Any, transport: Transport | None = None) -> None:  # Any: its module imports this
        self._app = app
        self._transport = transport

    def tell(self, command: wire.Command, timeout: float | None = None) -> None:
        """Send a command that nobody shall answer.

        Args:
            command: What to send.
            timeout: Seconds after which it is out of date; some workers look at it.

        Raises:
            TransportError: The broker cannot be reached.
        """
        fanout = self._fanout()
        try:
            fanout.publish([self._broadcast(command, timeout)], deadline=PUBLISH_SECONDS)
        finally:
            fanout.close()

    def ask(
        self, command: wire.Command, timeout: float, limit: int | None = None, on_reply: OnReply | None = None
    ) -> list[Reply]:
        """Send a command and return the answers that come in time.

        It returns before that when all have answered who are going to, as far as that is known.

        Args:
            command: What to send; where to answer to is filled in.
            timeout: Seconds to wait.
            limit: Enough answers; the number of destinations when there are some.
            on_reply: Called with each answer as it comes.

        Raises:
            TransportError: The broker cannot be reached.
        """
        wait = _Wait(seconds=timeout, limit=limit, on_reply=on_reply)
        return _run(lambda: self._ask(command, wait))

    async def aask(
        self, command: wire.Command, seconds: float, on_reply: OnReply, *, besides: str
    ) -> list[Reply]:
        """Do the same on a running loop, for a node that asks the others.

        Args:
            command: What to send; where to answer to is filled in.
            seconds: To wait.
            on_reply: Called with each answer as it comes.
            besides: The name of the node that asks, whose own answer is not waited for.
        """
        return await self._ask(command, _Wait(seconds=seconds, on_reply=on_reply, besides=besides))

    def _fanout(self) -> Fanout:
        transport: Transport = self._transport or self._app.transport
        return transport.fanout()

    async def _ask(self, command: wire.Command, wait: _Wait) -> list[Reply]:
        terms = terms_of(self._app.conf)
        key, ticket = ids.oid(self._app.new_id()), self._app.new_id()
        command.ticket, command.answer_exchange, command.answer_key = ticket, terms.answers.name, key
        fanout = self._fanout()
        try:
            answers = await fanout.subscribe(terms.answer_queue(key))
            broadcast = self._broadcast(command, wait.seconds)
            heard_by = await fanout.apublish([broadcast], deadline=max(PUBLISH_SECONDS, wait.seconds))
            limit = wait.limit
            if limit is None and command.destination:
                limit = len(command.destination)
            elif limit is None and heard_by is not None and not command.pattern:
                limit = heard_by if wait.besides is None else heard_by - 1
            return await self._collect(answers, ticket, wait, limit)
        finally:
            await fanout.aclose()
            fanout.close()

    async def _collect(
        self, answers: Subscription, ticket: str, wait: _Wait, limit: int | None
    ) -> list[Reply]:
        asyncio = importlib.import_module("asyncio")
        replies: list[Reply] = []
        until = time.monotonic() + wait.seconds
        while limit is None or len(replies) < limit:
            try:
                async with asyncio.timeout(until - time.monotonic()):
                    broadcast = await answers.next()
            except TimeoutError:
                break
            reply = self._read(broadcast, ticket)
            if reply is not None and wait.besides not in reply:
                replies.append(reply)
                if wait.on_reply is not None:
                    wait.on_reply(reply)
        return replies

    def _read(self, broadcast: Broadcast, ticket: str) -> Reply | None:
        """Return the answer in a message; None when it is no answer to this question."""
        envelope, app = broadcast.envelope, self._app
        if broadcast.defect is not None or envelope.headers.get("ticket") != ticket:
            return None
        clock = envelope.headers.get("clock")
        if isinstance(clock, int):
            app.clock.adjust(clock)
        accept = app.codecs.accept_set(app.conf.accept_content)
        try:
            body = app.codecs.decode(envelope.body, envelope.content_type, envelope.content_encoding, accept)
        except CodecError:
            return None
        return body if isinstance(body, dict) else None

    def _broadcast(self, command: wire.Command, timeout: float | None) -> Broadcast:
        app = self._app
        content_type, encoding, body = app.codecs.encode(wire.pack(command), app.conf.task_serializer)
        headers = {"clock": app.clock.forward(), "expires": time.time() + timeout if timeout else 0}
        if command.noted:
            headers[wire.NOTED_HEADER] = True
        envelope = Envelope(
            headers=headers,
            body=body,
            content_type=content_type,
            content_encoding=encoding,
            properties=Props(),
        )
        return Broadcast(envelope=envelope, exchange=terms_of(app.conf).commands)


def _run(work: Callable[[], Coroutine[Any, Any, R]]) -> R:
    """Return what a coroutine returns, run on a loop of its own, beside the one that this thread may have."""
    asyncio = importlib.import_module("asyncio")  # half of what a client would have to load; most ask nobody
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        result: R = asyncio.run(work())
        return result
    results: list[R] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(asyncio.run(work()))
        except BaseException as exc:  # noqa: BLE001 - raised again where it was asked for
            errors.append(exc)

    thread = threading.Thread(target=run, name="celeriac-remote-control")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
