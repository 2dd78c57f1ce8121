"""A queue with one page in it. Who reads the page has taken it out meanwhile; nobody else has it then.

RabbitMQ puts a page back when the channel of who has it is gone, and not before all that this channel has
sent to the same queue is in there. So who takes a page out to change it, and puts another one in its place
in one transaction, needs no lock: whoever comes next gets either page, whenever the one before has died.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

import msgspec

from celeriac.errors import DecodeError
from celeriac.message import Outgoing
from celeriac.queues import Queue
from celeriac.transports.amqp import frames, topology
from celeriac.transports.amqp.connection import Message, Refused, Request
from celeriac.transports.amqp.link import Link
from celeriac.transports.amqp.page import Page, newest, read_page, united
from celeriac.transports.amqp.tables import encode_properties

_NOT_FOUND: Final = 404
_PAUSE_SECONDS: Final = 0.02  # between two tries to get a page that somebody else has


class Taken(msgspec.Struct, frozen=True):
    """What was taken out on a channel; an empty page and no tags, when there was none all the time."""

    page: Page = Page()
    tags: tuple[int, ...] = ()


class Drawer:
    """Keeps one page.

    Args:
        name: Of the queue.
        newest_only: Whether pages are put in while another one is in there or out, and RabbitMQ throws away
            the older one; without, nothing is thrown away that nobody has taken out, and several are one.
    """

    def __init__(self, name: str, *, newest_only: bool) -> None:
        # A classic one, whatever the default: a quorum queue throws away what was looked at often.
        arguments = {"x-queue-type": "classic", **({"x-max-length": 1} if newest_only else {})}
        self.queue: Queue = Queue(name=name, arguments=arguments)
        self._one_of = newest if newest_only else united

    def take_out(self, link: Link, channel: int, seconds: float) -> Taken | None:
        """Take out the page; None when there is no such queue, which closes the channel.

        Args:
            link: To RabbitMQ.
            channel: It goes with this one, until it is put back or acknowledged.
            seconds: How long to wait while somebody else has it.

        Raises:
            DecodeError: It is no page; it was put back.
            Refused, Lost, TimeoutError: See `Link.call`.
        """
        until = time.monotonic() + seconds
        while True:
            try:
                messages = self._get(link, channel, max(until, time.monotonic() + 1.0))
            except Refused as exc:
                if exc.code == _NOT_FOUND:
                    return None
                raise
            if messages or time.monotonic() >= until:
                break
            time.sleep(_PAUSE_SECONDS)
        tags = tuple(message.tag for message in messages)
        try:
            pages = [read_page(message.body) for message in messages]
        except msgspec.MsgspecError as exc:
            put_back(link, channel, tags)
            raise DecodeError(
                f"queue {self.queue.name} of {link.address.shown} holds no timetable: {exc}"
            ) from exc
        return Taken(self._one_of(pages), tags)

    def _get(self, link: Link, channel: int, until: float) -> list[Message]:
        found: list[Message] = []
        while isinstance(
            answer := link.call(until, channel, "basic.get", 0, self.queue.name, False), Message
        ):
            found.append(answer)
        return found


def put_back(link: Link, channel: int, tags: Sequence[int]) -> None:
    """Put back what was taken out on a channel, in the order of the tags."""
    for tag in tags:
        link.core.write(frames.nack(channel, tag, requeue=True))
    link.send(b"", time.monotonic() + 1.0)


def commit(link: Link, channel: int, messages: Sequence[Outgoing], instead_of: Taken, until: float) -> None:
    """Send messages in one transaction, their queues being declared before.

    Args:
        link: To RabbitMQ.
        channel: Has only transactions.
        messages: What to send.
        instead_of: What was taken out on the channel, and is thrown away.
        until: The moment to give up (`time.monotonic`).

    Raises:
        Refused, Lost, TimeoutError: See `Link.call`.
    """
    core = link.core
    requests: list[Request] = [core.request(channel, "tx.select")]
    # Declared each time: nobody tells us when somebody deletes a queue.
    for one in messages:
        if one.queue is not None:
            requests += [core.request(channel, *method) for method in topology.declarations(one.queue)]
    for one in messages:
        core.write(_frames_of(one, channel, core.frame_max))
    for tag in instead_of.tags:
        core.write(frames.ack(channel, tag))
    requests.append(core.request(channel, "tx.commit"))
    link.await_all(requests, until)


def _frames_of(outgoing: Outgoing, channel: int, frame_max: int) -> bytes:
    """Return the frames that publish a message."""
    envelope = outgoing.envelope
    address = (outgoing.exchange, outgoing.routing_key)
    head = frames.method(channel, "basic.publish", 0, *address, False, False)
    return head + frames.content(channel, encode_properties(envelope), envelope.body, frame_max)
