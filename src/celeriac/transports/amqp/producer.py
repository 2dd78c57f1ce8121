"""Publishing: threads share one connection, a batch costs one write and one wait for RabbitMQ's confirms."""

from __future__ import annotations

import functools
import importlib
import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from celeriac.errors import BrokerUnreachable, CodecError, PublishTimeout, TransportError
from celeriac.message import Outgoing
from celeriac.queues import Queue
from celeriac.transports.amqp.address import Address
from celeriac.transports.amqp.connection import Lost, Refused
from celeriac.transports.amqp.delays import QueueType
from celeriac.transports.amqp.session import Session, Ticket

if TYPE_CHECKING:
    from celeriac.net.lane import Lane


logger: logging.Logger = logging.getLogger(__name__)

_GOODBYE_SECONDS: Final = 1.0
_LAST_WORDS_SECONDS: Final = 30.0  # to have what was sent without confirms taken in: 10,000 messages at most


class _Own:
    """The connection of one process; a forked child has another.

    Args:
        confirm: Whether RabbitMQ confirms what is sent through it.
    """

    __slots__ = ("__weakref__", "confirm", "pid", "session", "turn")

    def __init__(self, confirm: bool) -> None:
        self.confirm = confirm
        self.pid = os.getpid()
        self.turn = threading.Condition(threading.Lock())
        self.session: Session | None = None

    def close(self) -> None:
        """Close the connection, if there is one.

        RabbitMQ forgets what it has read and not worked off when a connection breaks off, but not when that
        is closed in good order. So where nothing is confirmed, its answer is proof that all has arrived.
        """
        if self.pid != os.getpid():
            return
        seconds = _GOODBYE_SECONDS if self.confirm else _LAST_WORDS_SECONDS
        if not self.turn.acquire(timeout=seconds):
            return
        try:
            session, self.session = self.session, None
            if session is not None:
                if not session.link.close(seconds) and not self.confirm:
                    logger.warning(
                        "RabbitMQ at %s did not say good-bye: what was sent last, unconfirmed, may be lost.",
                        session.link.address.shown,
                    )
                session.fail(Lost("closed"))
        finally:
            self.turn.release()


class AmqpProducer:
    """Sends messages to RabbitMQ.

    1. Connects at the first send, again when the connection was lost, and anew in a forked child.
    2. Declares queues before the first message to them.
    3. Waits for RabbitMQ's confirms (unless told not to): then the messages are on its disk.
    4. Declares a queue again that was deleted meanwhile, and sends once more what came back.

    Args:
        addresses: One broker, or several of which the first that answers is used.
        confirm: Whether to wait for confirms.
        delay_queues: Type of the queues in which RabbitMQ keeps what is sent for later; None: it does not.
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        *,
        confirm: bool = True,
        delay_queues: QueueType | None = None,
    ) -> None:
        self._addresses = deque(addresses)
        self._confirm = confirm
        self._delay_queues = delay_queues
        self._begin()

    def _begin(self) -> None:
        self._own = own = _Own(self._confirm)
        if not self._confirm:
            weakref.finalize(self, own.close)  # a program that ends closes nothing by itself
        self._lane: Lane | None = None
        self._outbox: deque[Ticket] = deque()
        self._kept: dict[str, Queue] = {}

    def keep(self, queue: Queue) -> None:
        """Declare a queue on every connection before anything is sent there: it does not outlive a broker.

        Args:
            queue: One that answers are to come to, or they would be sent before anybody noticed its loss.
        """
        self._mind_forks()
        self._kept[queue.name] = queue

    def let_go(self, queue: Queue) -> None:
        """End what `keep` has begun."""
        self._kept.pop(queue.name, None)

    def send(self, batch: Sequence[Outgoing], *, deadline: float) -> None:
        """Return when RabbitMQ has confirmed the whole batch. See `celeriac.ports.Producer`."""
        if batch:
            ticket = Ticket(batch, time.monotonic() + deadline)
            self._see_through(ticket, [ticket])

    async def asend(self, batch: Sequence[Outgoing], *, deadline: float) -> None:
        """Do the same without blocking the caller's loop; what is sent at once travels together."""
        if not batch:
            return
        self._mind_forks()
        ticket = Ticket(batch, time.monotonic() + deadline)
        self._outbox.append(ticket)
        if self._lane is None:  # asyncio is half of what a client would have to load, and few use it
            self._lane = importlib.import_module("celeriac.net.lane").Lane("celeriac-amqp-producer")
        try:
            await self._lane.run(self._run_outbox, ticket)
        finally:
            if not ticket.done():
                ticket.error = Lost("the sender was cancelled")

    def ask(self, name: str, *arguments: Any, deadline: float = 10.0) -> Any:
        """Ask the broker something and return its answer, such as the size of a queue.

        Raises:
            Refused: The broker says no; 404 when there is no such thing.
            TransportError: There is no connection.
        """
        self._mind_forks()
        until = time.monotonic() + deadline
        with self._own.turn:
            try:
                session = self._prepared((), until)
                return session.ask([(name, *arguments)], until)[0]
            except (Lost, TimeoutError) as exc:
                raise self._addresses[0].failure(exc) from exc

    def close(self) -> None:
        """Close the connection of this process; sending afterwards opens a new one."""
        self._mind_forks()
        lane, self._lane = self._lane, None
        if lane is not None:
            lane.close()
        self._own.close()

    def _mind_forks(self) -> None:
        """In a forked child: leave the parent's connection alone and begin anew."""
        if self._own.pid != os.getpid():
            if self._own.session is not None:
                self._own.session.link.abandon()
            self._begin()

    def _run_outbox(self, ticket: Ticket) -> None:
        """See a ticket through on the lane, and send whatever has gathered since together with it."""
        together: list[Ticket] = []
        while self._outbox:
            together.append(self._outbox.popleft())
        self._see_through(ticket, together)

    def _see_through(self, ticket: Ticket, unsent: Sequence[Ticket]) -> None:
        """Send what is unsent and return when RabbitMQ has the ticket's batch."""
        self._mind_forks()
        if not self._own.turn.acquire(timeout=max(0.0, ticket.until - time.monotonic())):
            raise PublishTimeout(f"RabbitMQ at {self._shown} did not answer another thread in time.")
        try:
            for one in unsent:
                self._transmit(one)
            self._await(ticket)
        finally:
            self._own.turn.release()
        if ticket.error is not None:
            raise self._told(ticket) from ticket.error

    def _transmit(self, ticket: Ticket) -> None:
        """Write a ticket's batch; what goes wrong is noted on the ticket."""
        if ticket.done():
            return
        try:
            if ticket.expired():
                raise TimeoutError
            self._prepared(ticket.batch, ticket.until).publish(ticket)
        except (OSError, TransportError, CodecError, Refused, Lost) as exc:
            ticket.error = exc

    def _prepared(self, batch: Sequence[Outgoing], until: float) -> Session:
        """Return a session that can take the batch now.

        Every step that has to wait lets other threads in, so after each of them everything is looked at anew.
        """
        while True:
            session = self._own.session
            if session is None or not session.link.glance():
                self._connect(until)
                continue
            link = session.link
            if not link.core.ready.done:
                link.wait_until_ready(until)
            elif session.doubtful and not link.core.blocked:
                session.probe(until)
            elif methods := session.missing(batch, self._kept.values()):
                session.declare(batch, methods, until, self._kept.values())
            elif waiting := session.delays.lacking(batch):
                session.delays.make(waiting, functools.partial(session.ask, until=until))
            elif link.core.blocked and batch:
                link.wait_until_unblocked(until)
            else:
                return session

    def _connect(self, until: float) -> None:
        """Connect to the first broker that answers; one that does not goes to the end of the line.

        Each gets its share of the time, so that one that hangs leaves some for the next.
        """
        own = self._own
        if own.session is not None:
            own.session.fail(own.session.link.core.error or Lost("closed"))
        for left in range(len(self._addresses), 0, -1):
            now = time.monotonic()
            own.session = Session(
                self._addresses[0], own.turn, confirm=self._confirm, delay_queues=self._delay_queues
            )
            try:
                own.session.link.connect(now + (until - now) / left)
            except BrokerUnreachable:
                self._addresses.rotate(-1)
                if left == 1:
                    raise
            else:
                return

    def _await(self, ticket: Ticket) -> None:
        """Wait for the confirms of a ticket; what goes wrong is noted on it."""
        session = self._own.session
        if session is None:
            return
        try:
            session.wait(ticket)
        except TimeoutError as exc:
            session.doubtful = True
            ticket.error = ticket.error or exc
        except (Lost, Refused) as exc:
            session.fail(exc)
            ticket.error = ticket.error or exc

    @property
    def _shown(self) -> str:
        return self._addresses[0].shown

    def _told(self, ticket: Ticket) -> Exception:
        """Return a ticket's error in the words of `celeriac.ports.Producer.send`."""
        error = ticket.error
        one = len(ticket.batch) == 1
        what = "a message" if one else f"{len(ticket.batch)} messages"
        fate = f"{'it' if one else 'they'} may or may not have arrived" if ticket.sent else "nothing was sent"
        if isinstance(error, TimeoutError):
            session = self._own.session
            blocked = session.link.core.blocked if session is not None else None
            why = f" It takes no messages at the moment: {blocked}." if blocked else ""
            return PublishTimeout(
                f"RabbitMQ at {self._shown} did not confirm {what} within the publish budget; {fate}.{why}"
            )
        assert error is not None
        if isinstance(error, TransportError | CodecError):
            return error
        if isinstance(error, Refused):
            return self._addresses[0].failure(error)
        if not ticket.sent:
            return self._addresses[0].unreachable(error)
        return TransportError(
            f"The connection to RabbitMQ at {self._shown} was lost before it had confirmed {what} ({error}); "
            f"{fate}."
        )
