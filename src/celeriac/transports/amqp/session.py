"""What belongs to one publishing connection: confirms on their way, and what was declared through it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from typing import Final

from celeriac.message import Outgoing
from celeriac.queues import Queue
from celeriac.transports.amqp import frames, topology
from celeriac.transports.amqp.address import Address
from celeriac.transports.amqp.connection import ChannelClosed, Confirm, Event, Lost, Message, Refused
from celeriac.transports.amqp.link import Link
from celeriac.transports.amqp.tables import encode_properties

PUBLISH: Final = 1  # the channel that messages go through
DECLARE: Final = 2  # a refused declaration closes its channel: it must not take the confirms with it
_MAX_HEADS: Final = 1000  # addresses whose basic.publish frame is kept ready
_PIECE: Final = 1_048_576  # bytes written at once: between two pieces we look whether the broker refuses


class Ticket:
    """A batch on its way: how many of its messages RabbitMQ has not confirmed yet."""

    __slots__ = ("batch", "error", "missing", "sent", "until")

    def __init__(self, batch: Sequence[Outgoing], until: float) -> None:
        self.batch: Sequence[Outgoing] = batch
        self.until: float = until  # the moment its sender gives up (`time.monotonic`)
        self.missing: int = len(batch)
        self.sent: bool = False
        self.error: Exception | None = None

    def done(self) -> bool:
        """Return whether its sender may go on."""
        return self.missing == 0 or self.error is not None

    def expired(self) -> bool:
        """Return whether its sender's budget is used up."""
        return time.monotonic() >= self.until


class Session:
    """One publishing connection. Every method wants the link's turn held.

    Args:
        address: The broker.
        turn: The condition of the producer; see `Link`.
        confirm: Whether to ask for confirms.
    """

    def __init__(self, address: Address, turn: threading.Condition, *, confirm: bool) -> None:
        self.link: Link = Link(address, turn, self._on_event)
        self.returned: list[Message] = []  # the queue they were for has been deleted
        self.doubtful: bool = False  # somebody has waited in vain
        self._confirm = confirm
        self._selected = False  # whether the publishing channel counts and confirms
        self._declared: dict[str, Queue] = {}
        self._exchanges: set[str] = set()
        self._heads: dict[tuple[str, str, bool], bytes] = {}
        self._tickets: dict[int, Ticket] = {}  # by the publishing channel's count of messages
        self._count = 0
        self._low = 1  # the lowest count that may be unconfirmed

    def missing(self, batch: Sequence[Outgoing]) -> list[topology.Method]:
        """Return what has to be declared, or looked at, before the batch can be sent."""
        methods: dict[str, list[topology.Method]] = {}
        for outgoing in batch:
            queue = outgoing.queue
            if queue is not None and queue.name not in self._declared:
                methods.setdefault(f"queue {queue.name}", list(topology.declarations(queue)))
            elif queue is None and outgoing.exchange and outgoing.exchange not in self._exchanges:
                looked = methods.setdefault(f"exchange {outgoing.exchange}", [])
                looked[:] = [topology.look_at_exchange(outgoing.exchange)]
        return [method for group in methods.values() for method in group] if methods else []

    def declare(self, batch: Sequence[Outgoing], methods: Iterable[topology.Method], until: float) -> None:
        """Declare it in one round trip and remember that.

        Raises:
            Refused, Lost, TimeoutError: See `Link.call`.
        """
        requests = [self.link.core.request(DECLARE, *method) for method in methods]
        self.link.await_all(requests, until)
        for outgoing in batch:
            if outgoing.queue is not None:
                self._declared[outgoing.queue.name] = outgoing.queue
            elif outgoing.exchange:
                self._exchanges.add(outgoing.exchange)

    def probe(self, until: float) -> None:
        """Ask for a sign of life; drops the link when there is none."""
        try:
            self.link.call(min(until, time.monotonic() + 1.0), DECLARE, "basic.qos", 0, 0, False)
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

    def publish_again(self, ticket: Ticket) -> None:
        """Declare the queues of what came back anew and send it once more, on account of the ticket.

        Raises:
            Refused, Lost, TimeoutError: See `Link.call`.
        """
        messages, self.returned = self.returned, []
        for name in {message.routing_key for message in messages}:
            queue = self._declared[name]
            methods = topology.declarations(queue)
            self.link.await_all(
                [self.link.core.request(DECLARE, *method) for method in methods], ticket.until
            )
        ticket.missing += len(messages)
        self._write(
            ticket,
            [
                self._head("", message.routing_key, True)
                + frames.content(PUBLISH, message.properties, message.body, self.link.core.frame_max)
                for message in messages
            ],
        )

    def wait(self, ticket: Ticket) -> None:
        """Wait until the ticket is done or messages have come back.

        Raises:
            Lost, Refused, TimeoutError: See `Link.wait`.
        """
        self.link.wait(lambda: ticket.done() or bool(self.returned), ticket.until)

    def fail(self, error: Exception) -> None:
        """Tell every ticket on its way."""
        tickets, self._tickets = self._tickets, {}
        for ticket in set(tickets.values()):
            ticket.error = error

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
        queue, key = outgoing.queue, outgoing.routing_key
        mandatory = queue is not None and not outgoing.exchange and queue.name == key
        head = self._head(outgoing.exchange, key, mandatory)
        envelope = outgoing.envelope
        properties = encode_properties(envelope)
        return head + frames.content(PUBLISH, properties, envelope.body, self.link.core.frame_max)

    def _write(self, ticket: Ticket, messages: list[bytes]) -> None:
        core = self.link.core
        core.open_channel(PUBLISH)
        if self._confirm and not self._selected:
            core.request(PUBLISH, "confirm.select", False)  # its answer need not be waited for
            self._selected = True
        ticket.sent = True
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
                self.returned.append(event)
            case ChannelClosed(channel=channel, error=error) if channel == PUBLISH:
                self.fail(error)
                self._selected = False
                self._count, self._low = 0, 1
                self._declared.clear()  # most likely somebody has deleted an exchange
                self._exchanges.clear()
            case _:
                pass  # a refused declaration is told to whoever asked for it

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
