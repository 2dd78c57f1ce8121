"""What belongs to one publishing connection: confirms on their way, and what was declared through it."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterable, Sequence
from typing import Any, Final

from celeriac.errors import EncodeError
from celeriac.message import Outgoing
from celeriac.queues import Queue
from celeriac.transports.amqp import frames, topology
from celeriac.transports.amqp.address import Address
from celeriac.transports.amqp.connection import (
    ChannelClosed,
    Confirm,
    Event,
    Lost,
    Message,
    Refused,
    Request,
)
from celeriac.transports.amqp.delays import Delays, QueueType
from celeriac.transports.amqp.link import Link
from celeriac.transports.amqp.tables import encode_properties

logger: logging.Logger = logging.getLogger(__name__)

PUBLISH: Final = 1  # the channel that messages go through
ASK: Final = 2  # a refused question closes its channel: it must not take the confirms with it
_HEARD_SECONDS: Final = 0.5  # by then consumers know that their queue is gone
_MAX_HEADS: Final = 1000  # addresses whose basic.publish frame is kept ready
_HEADER_BYTES: Final = 20  # of the frame that holds a message's properties, besides them
_PIECE: Final = 1_048_576  # bytes written at once: between two pieces we look whether the broker refuses


class Ticket:
    """A batch on its way: how many of its messages RabbitMQ has not confirmed yet."""

    __slots__ = ("again", "batch", "error", "missing", "sent", "until")

    def __init__(self, batch: Sequence[Outgoing], until: float) -> None:
        self.batch: Sequence[Outgoing] = batch
        self.until: float = until  # the moment its sender gives up (`time.monotonic`)
        self.missing: int = len(batch)
        self.sent: bool = False
        self.error: Exception | None = None
        self.again: Ticket | None = None  # messages that came back meanwhile, perhaps some of these

    def done(self) -> bool:
        """Return whether its sender may go on."""
        if self.error is not None:
            return True
        return not self.missing and (self.again is None or self.again.done())

    def note_again(self, again: Ticket) -> None:
        """Wait for these as well."""
        if self.again is not None:
            self.error = self.error or self.again.error
        self.again = again

    def expired(self) -> bool:
        """Return whether its sender's budget is used up."""
        return time.monotonic() >= self.until


class Session:
    """One publishing connection. Every method wants the link's turn held.

    Args:
        address: The broker.
        turn: The condition of the producer; see `Link`.
        confirm: Whether to ask for confirms.
        delay_queues: See `Delays`.
    """

    def __init__(
        self,
        address: Address,
        turn: threading.Condition,
        *,
        confirm: bool,
        delay_queues: QueueType | None = None,
    ) -> None:
        self.link: Link = Link(address, turn, self._on_event)
        self.delays: Delays = Delays(delay_queues)
        self.doubtful: bool = False  # somebody has waited in vain
        self._confirm = confirm
        self._asked: list[Request] = []  # the latest
        self._returned: list[Message] = []  # the queue they were for has been deleted
        self._again: Ticket | None = None  # theirs
        self._selected = False  # whether the publishing channel counts and confirms
        self._declared: dict[str, Queue] = {}
        self._exchanges: set[str] = set()
        self._heads: dict[tuple[str, str, bool], bytes] = {}
        self._tickets: dict[int, Ticket] = {}  # by the publishing channel's count of messages
        self._count = 0
        self._low = 1  # the lowest count that may be unconfirmed

    def missing(self, batch: Sequence[Outgoing], kept: Iterable[Queue] = ()) -> list[topology.Method]:
        """Return what has to be declared, or looked at, before the batch can be sent."""
        methods: dict[str, list[topology.Method]] = {
            f"queue {queue.name}": list(topology.declarations(queue))
            for queue in kept
            if queue.name not in self._declared
        }
        for outgoing in batch:
            queue = outgoing.queue
            if queue is not None and queue.name not in self._declared:
                methods.setdefault(f"queue {queue.name}", list(topology.declarations(queue)))
            elif queue is None and outgoing.exchange and outgoing.exchange not in self._exchanges:
                looked = methods.setdefault(f"exchange {outgoing.exchange}", [])
                looked[:] = [topology.look_at_exchange(outgoing.exchange)]
        return [method for group in methods.values() for method in group] if methods else []

    def declare(
        self,
        batch: Sequence[Outgoing],
        methods: Iterable[topology.Method],
        until: float,
        kept: Iterable[Queue] = (),
    ) -> None:
        """Declare it in one round trip and remember that; raises as `ask` does."""
        kept = list(kept)
        self.ask(methods, until)
        self._declared.update({queue.name: queue for queue in kept})
        for outgoing in batch:
            if outgoing.queue is not None:
                self._declared[outgoing.queue.name] = outgoing.queue
            elif outgoing.exchange:
                self._exchanges.add(outgoing.exchange)

    def ask(self, methods: Iterable[topology.Method], until: float) -> list[Any]:
        """Ask one thing after the other in one round trip and return the answers.

        One caller at a time: what is refused closes the channel, and all that was asked there has failed.

        Raises:
            Refused, Lost, TimeoutError: See `Link.call`.
        """
        self.link.wait(lambda: all(request.done for request in self._asked), until)
        self._asked = asked = [self.link.core.request(ASK, *method) for method in methods]
        self.link.await_all(asked, until)
        return [request.answer for request in asked]

    def probe(self, until: float) -> None:
        """Ask for a sign of life; drops the link when there is none."""
        try:
            self.ask([("basic.qos", 0, 0, False)], min(until, time.monotonic() + 1.0))
            self.doubtful = False
        except (Lost, Refused, TimeoutError) as exc:
            self.link.drop(exc)

    def publish(self, ticket: Ticket) -> None:
        """Write the ticket's batch.

        Raises:
            EncodeError: A header has no form in AMQP; nothing was written.
            Lost, TimeoutError: It may be written in part.
        """
        self._write(ticket, [self._encode(outgoing) for outgoing in ticket.batch])

    def wait(self, ticket: Ticket) -> None:
        """Wait until the ticket is done, and send once more what comes back meanwhile, whosever it is.

        Raises:
            Lost, Refused, TimeoutError: See `Link.wait`.
        """
        while True:
            if self._returned:
                self._publish_again(ticket.until)
            if ticket.done():
                break
            self.link.wait(lambda: ticket.done() or bool(self._returned), ticket.until)
        if ticket.again is not None:
            ticket.error = ticket.error or ticket.again.error

    def _publish_again(self, until: float) -> None:
        """Declare the queues of what came back anew and send it once more."""
        messages, self._returned = self._returned, []
        again = self._again
        assert again is not None
        again.until = until
        homes = {queue.name: queue for message in messages for queue in self._homes(message)}
        try:
            if any(queue.arguments.get("x-queue-type") == "quorum" for queue in homes.values()):
                self._let_consumers_hear(until)
            self.ask(
                [
                    method
                    for queue in homes.values()
                    for method in (*topology.declarations(queue), *self.delays.again(queue))
                ],
                until,
            )
            self._write(
                again,
                [
                    # With the queues there once more: what none of an exchange's takes, none shall.
                    self._head(message.exchange, message.routing_key, not message.exchange)
                    + frames.content(PUBLISH, message.properties, message.body, self.link.core.frame_max)
                    for message in messages
                ],
            )
        except (Lost, Refused, TimeoutError) as exc:
            again.error = exc
            if not isinstance(exc, Refused):
                raise

    def _let_consumers_hear(self, until: float) -> None:
        """Wait a moment: RabbitMQ does not tell consumers of a quorum queue's end if it is made anew at once.

        It sends them nothing more then, and takes them for the new queue's consumers all the same.
        """
        with contextlib.suppress(TimeoutError):
            self.link.wait(lambda: False, min(until, time.monotonic() + _HEARD_SECONDS))

    def _homes(self, message: Message) -> list[Queue]:
        """Return the queues we have declared that a message may have been for."""
        if not message.exchange:
            queue = self._declared.get(message.routing_key)
            return [queue] if queue is not None else []
        return [
            queue
            for queue in self._declared.values()
            if self.delays.may_come_by(message.exchange, queue)
            or message.exchange in (queue.exchange.name, *(each.exchange.name for each in queue.bindings))
        ]

    def fail(self, error: Exception) -> None:
        """Tell every ticket on its way."""
        tickets, self._tickets = set(self._tickets.values()), {}
        if self._again is not None and not self._again.done():
            tickets.add(self._again)
        for ticket in tickets:
            ticket.error = ticket.error or error
        self._returned.clear()

    def _head(self, exchange: str, routing_key: str, mandatory: bool) -> bytes:
        key = (exchange, routing_key, mandatory)
        head = self._heads.get(key)
        if head is None:
            if len(self._heads) >= _MAX_HEADS:
                self._heads.clear()
            head = frames.method(PUBLISH, "basic.publish", 0, exchange, routing_key, mandatory, False)
            self._heads[key] = head
        return head

    def _encode(self, outgoing: Outgoing) -> bytes:
        # Mandatory where we declared the queue: if somebody has deleted it since, the message comes back.
        if outgoing.not_before is not None and (way := self.delays.way(outgoing, time.time())) is not None:
            head = frames.method(PUBLISH, "basic.publish", 0, *way, True, False)
        else:
            head = self._head(outgoing.exchange, outgoing.routing_key, outgoing.queue is not None)
        envelope = outgoing.envelope
        properties = encode_properties(envelope)
        most = self.link.core.frame_max - _HEADER_BYTES
        if len(properties) > most:  # they have only one frame, and RabbitMQ would hang up on everybody
            raise EncodeError(
                f"The headers and properties of a message have {len(properties)} bytes, and RabbitMQ takes "
                f"{most} at most: put large values into the arguments."
            )
        return head + frames.content(PUBLISH, properties, envelope.body, self.link.core.frame_max)

    def _write(self, ticket: Ticket, messages: list[bytes]) -> None:
        core = self.link.core
        core.open_channel(PUBLISH)
        if self._confirm and not self._selected:
            core.request(PUBLISH, "confirm.select", False)  # its answer need not be waited for
            self._selected = True
        ticket.sent = True
        if self._again is not None and self._again is not ticket and not self._again.done():
            ticket.note_again(self._again)
        if self._confirm:
            start = self._count + 1
            self._count += len(messages)
            self._tickets.update(dict.fromkeys(range(start, self._count + 1), ticket))
        size = 0
        for message in messages:
            core.write(message)
            size += len(message)
            if size >= _PIECE:
                size = 0
                self.link.send(b"", ticket.until)
                if ticket.error is not None:  # the channel is closed; what follows would close the connection
                    return
        self.link.send(b"", ticket.until)
        if not self._confirm:
            ticket.missing = 0

    def _on_event(self, event: Event) -> None:
        match event:
            case Confirm(tag=tag, multiple=multiple, ok=ok):
                self._settle(range(self._low, tag + 1) if multiple else (tag,), ok)
                if multiple:
                    self._low = tag + 1
            case Message():
                self._take_back(event)
            case ChannelClosed(channel=channel, error=error) if channel == PUBLISH:
                self.fail(error)
                self._selected = False
                self._count, self._low = 0, 1
                self._declared.clear()  # most likely somebody has deleted an exchange
                self._exchanges.clear()
                self.delays.forget()
            case _:
                pass  # a refused declaration is told to whoever asked for it

    def _take_back(self, message: Message) -> None:
        """Note a message that no queue takes.

        It is confirmed as well, right after this, and says nothing of who has sent it. So every ticket that
        is on its way now waits until all that came back has found its queue.
        """
        again = self._again
        if again is None or again.done():
            again = self._again = Ticket((), 0.0)
            for ticket in set(self._tickets.values()):
                ticket.note_again(again)
        found = bool(self._homes(message))
        if found:
            self._returned.append(message)
            again.missing += 1
        if message.exchange or not found:
            logger.warning(
                "No queue of RabbitMQ at %s takes routing key %r from exchange %r: %s.",
                self.link.address.shown,
                message.routing_key,
                message.exchange,
                "its queues are declared anew and the message sent once more" if found else "it is dropped",
            )

    def _settle(self, counts: Iterable[int], ok: bool) -> None:
        for count in counts:
            ticket = self._tickets.pop(count, None)
            if ticket is None:
                continue
            ticket.missing -= 1
            if not ok:
                ticket.error = Refused(
                    506,
                    "it could not take a message (nack): a full queue that rejects, or an error in its log",
                )
