"""The service that hears commands, has them done one after the other, and answers."""

from __future__ import annotations

import asyncio
import inspect
import logging
from typing import Any, Final

from celeriac.backoff import intervals
from celeriac.control.state import NO_ANSWER, State
from celeriac.errors import CodecError, DecodeError, TransportError
from celeriac.message import Broadcast, Envelope, Props
from celeriac.net.lane import Lane
from celeriac.ports import Fanout, Subscription
from celeriac.queues import Exchange
from celeriac.remote.mailbox import terms_of
from celeriac.wire import control as wire

logger: logging.Logger = logging.getLogger("celery.worker.control")
pidbox_logger: logging.Logger = logging.getLogger("celery.worker.pidbox")

_START_SECONDS, _STEP_SECONDS, _MOST_SECONDS = 0.2, 0.4, 3.0
_ANSWER_SECONDS: Final = 5.0


class Mailbox:
    """Hears the commands for one node as long as it runs; an outage of the broker ends nothing here.

    Commands are done in the order in which they come. Ours run on the loop, those of users in a thread of
    their own: whatever they do, leases are renewed and messages fetched.

    Args:
        state: What commands get.
        fanout: The way to hear and answer.
    """

    def __init__(self, state: State, fanout: Fanout) -> None:
        self._state = state
        self._fanout = fanout
        self._queue = terms_of(state.app.conf).node_queue(state.hostname)
        self._subscription: Subscription | None = None
        self._accept = state.app.codecs.accept_set(state.app.conf.accept_content)
        self._lane: Lane | None = None
        self.malformed: int = 0  # messages that were no commands

    async def open(self) -> None:
        """Begin to hear, if that is possible now."""
        try:
            await self._listen()
        except TransportError as exc:
            pidbox_logger.debug("Commands are not heard yet: %s", exc)

    async def run(self) -> None:
        """Hear and obey until cancelled."""
        pauses = intervals(_START_SECONDS, _STEP_SECONDS, _MOST_SECONDS)
        try:
            while True:
                try:
                    subscription = self._subscription or await self._listen()
                    pauses = intervals(_START_SECONDS, _STEP_SECONDS, _MOST_SECONDS)
                    await self._obey(subscription)
                except TransportError as exc:
                    pause = next(pauses)
                    pidbox_logger.warning("Commands are not heard: %s Trying again in %.1f s.", exc, pause)
                    await self._part()
                    await asyncio.sleep(pause)
        finally:
            await self._part()
            await self._fanout.aclose()
            self._fanout.close()
            if self._lane is not None:
                self._lane.close(timeout_seconds=0)

    async def _listen(self) -> Subscription:
        self._subscription = subscription = await self._fanout.subscribe(self._queue)
        self._remind()  # what was broadcast before was not heard
        self._state.node.paused.wake()
        return subscription

    def _remind(self) -> None:
        reminder = self._state.node.reminder
        if reminder is not None:
            reminder.ask()

    async def _part(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            await subscription.close()

    async def _obey(self, subscription: Subscription) -> None:
        missed = 0
        while True:
            broadcast = await subscription.next()
            if subscription.missed > missed:
                missed = subscription.missed
                self._remind()
            try:
                command = self._read(broadcast)
                if not wire.concerns(command, self._state.hostname):
                    continue
            except CodecError as exc:
                self._ignore(exc)
                continue
            self._state.command = command
            answer = await self._do(command)
            if command.answer_key is not None and answer is not NO_ANSWER:
                await self._answer(command, answer)

    def _read(self, broadcast: Broadcast) -> wire.Command:
        """Return the command in a message.

        Raises:
            CodecError: There is none.
        """
        if broadcast.defect is not None:
            raise DecodeError(broadcast.defect)
        envelope = broadcast.envelope
        clock = envelope.headers.get("clock")
        if isinstance(clock, int):
            self._state.app.clock.adjust(clock)
        body = self._state.app.codecs.decode(
            envelope.body, envelope.content_type, envelope.content_encoding, self._accept
        )
        command = wire.unpack(body)
        command.noted = envelope.headers.get(wire.NOTED_HEADER) is True
        return command

    def _ignore(self, exc: CodecError) -> None:
        self.malformed += 1
        level = logging.WARNING if self.malformed == 1 else logging.DEBUG
        pidbox_logger.log(
            level, "A message of remote control is ignored, as will be others like it: %s.", exc
        )

    async def _do(self, command: wire.Command) -> Any:
        found = self._state.panel.find(command.method)
        if found is None:
            near = self._state.panel.near(command.method)
            hint = f" Did its sender mean {near!r}?" if near else ""
            logger.error("There is no command %r of remote control.%s", command.method, hint)
            return {"error": repr(KeyError(command.method))}
        try:
            if found.blocks:
                if self._lane is None:
                    self._lane = Lane("celeriac-control")
                answer = await self._lane.run(found.run, self._state, **command.arguments)
            else:
                answer = found.run(self._state, **command.arguments)
            return await answer if inspect.isawaitable(answer) else answer
        except Exception as exc:  # wall: whatever a command raises is its answer
            logger.error("The command %r of remote control failed: %r", command.method, exc, exc_info=True)
            return {"error": repr(exc)}

    async def _answer(self, command: wire.Command, answer: Any) -> None:
        app = self._state.app
        exchange = Exchange(name=command.answer_exchange or "", type="direct", durable=False)
        headers = {"ticket": command.ticket, "clock": app.clock.forward()}
        try:
            content_type, encoding, body = app.codecs.encode(
                {self._state.hostname: answer}, app.conf.task_serializer
            )
        except CodecError as exc:
            logger.error("The answer to %r cannot be encoded: %s", command.method, exc)
            content_type, encoding, body = app.codecs.encode(
                {self._state.hostname: {"error": repr(exc)}}, app.conf.task_serializer
            )
        envelope = Envelope(
            headers=headers,
            body=body,
            content_type=content_type,
            content_encoding=encoding,
            properties=Props(delivery_mode=1),
        )
        broadcast = Broadcast(envelope=envelope, exchange=exchange, routing_key=command.answer_key or "")
        try:
            await self._fanout.apublish([broadcast], deadline=_ANSWER_SECONDS)
        except TransportError as exc:
            logger.warning("The answer to %r is lost: %s", command.method, exc)
