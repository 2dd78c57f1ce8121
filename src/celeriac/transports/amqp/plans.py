"""The plans of a timetable on RabbitMQ: a page that anybody changes who has taken it out of its drawer."""

from __future__ import annotations

import time
from typing import Final

from celeriac.message import Envelope, Outgoing, Props
from celeriac.transports.amqp import topology
from celeriac.transports.amqp.connection import Refused
from celeriac.transports.amqp.drawer import Drawer, Taken, commit, put_back
from celeriac.transports.amqp.link import Link
from celeriac.transports.amqp.page import Page

__all__ = ["Plans"]

_LOCKED: Final = 405
_NOT_COMMITTED: Final = 406
_NOT_FOUND: Final = 404
_PATIENCE_SECONDS: Final = 5.0
_PAUSE_SECONDS: Final = 0.02
_MOST_REMOVED: Final = 100  # plans of which it is known that they were removed


class Plans:
    """Makes, reads and changes plans; its methods raise what `Link.call` and `Drawer.take_out` raise.

    Args:
        owner: Whose timetable it is.
        bell: The queue of who leads, who is told of changes by a message in it.
        lost_seconds: Who has had the page for longer is dead, and RabbitMQ has put it back: there is none. If
            it comes back later all the same, the two are one.
    """

    def __init__(self, owner: str, bell: str, lost_seconds: float) -> None:
        self.drawer: Drawer = Drawer(f"celeriac.plans.{owner}", newest_only=False)
        self._bell = bell
        self._lost_seconds = lost_seconds
        self._making = f"{self.drawer.queue.name}.made"  # an exclusive queue, while somebody makes the page

    def make(self, link: Link, channel: int) -> None:
        """Make an empty page, unless there is one meanwhile.

        Args:
            link: To RabbitMQ.
            channel: It has only transactions.
        """
        until = time.monotonic() + _PATIENCE_SECONDS
        try:
            link.call(until, channel, *topology.exclusive_queue(self._making))
        except Refused as exc:
            if exc.code != _LOCKED:
                raise
            time.sleep(_PAUSE_SECONDS)  # somebody else makes it
            return
        try:
            taken = self.drawer.take_out(link, channel, 0.0)
            if taken is None or not taken.tags:
                # In ms, faster than edits can be: newer than one before it, should that come back after all.
                first = Page(revision=int(time.time() * 1000))
                commit(link, channel, [first.outgoing(self.drawer.queue)], Taken(), until)
            else:
                self._put_back(link, channel, taken)
        finally:
            if link.alive:
                link.call(until, channel, "queue.delete", 0, self._making, False, False, False)

    def is_made(self, link: Link, channel: int) -> bool:
        """Return whether there has been a page."""
        try:
            link.call(
                time.monotonic() + _PATIENCE_SECONDS,
                channel,
                *topology.look_at_queue(self.drawer.queue.name),
            )
        except Refused as exc:
            if exc.code != _NOT_FOUND:
                raise
            return False
        return True

    def edit(self, link: Link, channel: int, changed: tuple[str, bytes | None], revision: int) -> bool | None:
        """Write a line that is still as it was at a revision, and tell who leads, in one transaction.

        Who begins to lead when the message that tells has been sent, which goes nowhere then, reads the page
        when it is back: with the change.

        Args:
            link: To RabbitMQ.
            channel: It has only transactions.
            changed: The line's key and value.
            revision: Of the line.

        Returns:
            Whether it was; None when others have got in between.
        """
        key, value = changed
        taken = self._take_out(link, channel)
        if taken.page.line(key)[1] != revision:
            self._put_back(link, channel, taken)
            return False
        page = taken.page.revised({key: value}, most_removed=_MOST_REMOVED)
        messages = [page.outgoing(self.drawer.queue), self._ringing()]
        try:
            commit(link, channel, messages, taken, time.monotonic() + _PATIENCE_SECONDS)
        except Refused as exc:
            if exc.code != _NOT_COMMITTED:
                raise
            # One of the two was not taken: the page may be there, when the leader's queue has gone meanwhile.
            taken = self._take_out(link, channel)
            self._put_back(link, channel, taken)
            return True if taken.page.line(key) == page.line(key) else None
        return True

    def _take_out(self, link: Link, channel: int) -> Taken:
        """Take the page out; when there is none, it is made."""
        while True:
            taken = self.drawer.take_out(link, channel, self._lost_seconds)
            if taken is not None and taken.tags:
                return taken
            self.make(link, channel)

    def _put_back(self, link: Link, channel: int, taken: Taken) -> None:
        """Put the page back, and wait until RabbitMQ has it."""
        put_back(link, channel, taken.tags)
        commit(link, channel, (), Taken(), time.monotonic() + _PATIENCE_SECONDS)

    def _ringing(self) -> Outgoing:
        """Return the message that tells who leads; it goes nowhere when nobody does."""
        envelope = Envelope(headers={}, body=b"", properties=Props(delivery_mode=1))
        return Outgoing(envelope=envelope, routing_key=self._bell)
