"""A timetable on RabbitMQ, where there is no other store: an exclusive queue says who leads.

Such a queue belongs to one connection and goes with it, so a leader that is killed is followed at once, and
one that is frozen or cut off as soon as RabbitMQ misses its heartbeats. The lines are two pages, each the one
message of a queue. *Runs* the leader writes on the connection of the exclusive queue, and with them, in one
transaction, the message of the slot that they note: a death sends and notes both or none, and who wakes up
when another leads has no connection any more. *Plans* anybody changes who has taken their page out of its
drawer; a message in the exclusive queue, in the same transaction, tells the leader.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from celeriac.errors import BrokerUnreachable, DecodeError, TransportError
from celeriac.message import Outgoing
from celeriac.timetable import NOBODY, Changes, Lead, Line
from celeriac.transports.amqp import topology
from celeriac.transports.amqp.address import Address
from celeriac.transports.amqp.connection import Lost, Refused
from celeriac.transports.amqp.drawer import Drawer, Taken, commit, put_back
from celeriac.transports.amqp.link import Link
from celeriac.transports.amqp.page import Page
from celeriac.transports.amqp.plans import Plans

_CHANNEL: Final = 1
_TRANSACTIONS: Final = 2  # the channel of these
_LOCKED: Final = 405
_NOT_FOUND: Final = 404
# RabbitMQ lets go of who has been silent for two or three; the leader asks it something every second.
_HEARTBEAT_SECONDS: Final = 2
_PATIENCE_SECONDS: Final = 5.0
# Who has a page out for longer is dead, and RabbitMQ has put it back: there is none.
_LOST_SECONDS: Final = 4.0 * _HEARTBEAT_SECONDS
_GLANCE_SECONDS: Final = 0.3  # the leader's, for plans that somebody else has out
_TRIES: Final = 3  # to write a page of plans
_SHIFT: Final = 48  # revisions of plans are the upper bits of a timetable's, those of runs the lower
_ANOTHER: Final = "another scheduler"


class AmqpTimetable:
    """A timetable for all schedulers of a virtual host, `celeriac.timetable.Timetable`.

    All runs are written at every change, and all plans: a few hundred entries are what it is good for.

    Args:
        addresses: One broker, or several of which the first that answers is used.
        owner: Whose timetable it is.
    """

    def __init__(self, addresses: Sequence[Address], owner: str) -> None:
        self.address: str = "; ".join(address.shown for address in addresses)
        self._addresses = [
            msgspec.structs.replace(
                address, login=msgspec.structs.replace(address.login, heartbeat_seconds=_HEARTBEAT_SECONDS)
            )
            for address in addresses
        ]
        self._lock_name = f"celeriac.timetable.{owner}"
        self._run_drawer = Drawer(f"celeriac.lines.{owner}", newest_only=True)
        self._plans = Plans(owner, self._lock_name, _LOST_SECONDS)
        self._turn = threading.Condition(threading.Lock())
        self._link: Link | None = None  # while it is there, the exclusive queue may be ours
        self._holder = NOBODY
        self._term = 0
        self._looks = 0
        self._runs = Page()
        self._planned = Page()  # plans; both as the leader knows them
        self._plans_are_old = False

    def lead(self) -> Lead:
        """See `celeriac.timetable.Timetable`; another leader's term changes whenever it is looked at."""
        with self._turn:
            if self._holder and self._is_ours():
                return Lead(self._holder, self._term, time.time())
            code = self._ask(topology.look_at_queue(self._lock_name), allowed=(_LOCKED, _NOT_FOUND))
            if code != _LOCKED:
                return Lead(NOBODY, self._term, 0.0)
            self._looks += 1
            return Lead(_ANOTHER, -self._looks, time.time())

    def take(self, holder: str, term: int, at: float) -> bool:
        """See `celeriac.timetable.Timetable`."""
        with self._turn:
            if term != self._term:
                return False
            if holder == NOBODY:
                self._let_go()
                return True
            if self._holder:
                if not self._is_ours():
                    return False
            else:
                if self._ask(topology.exclusive_queue(self._lock_name), allowed=(_LOCKED,)) is not None:
                    return False
                self._runs, self._planned = self._read_to_lead()
                self._plans_are_old = False
            self._holder = holder
            self._term += 1
            return True

    def changes(self, after: int) -> Changes:
        """See `celeriac.timetable.Timetable`."""
        with self._turn:
            before = self._planned
            runs, plans = (self._runs, self._look_at_plans()) if self._holder else self._read()
            led = bool(self._holder)
        planned = plans.since(after >> _SHIFT)
        if led:  # also when somebody has lost the page, and begun another one
            planned |= plans.unlike(before)
        lines = runs.since(after & (1 << _SHIFT) - 1)
        lines |= {key: Line(line.value, line.revision << _SHIFT) for key, line in planned.items()}
        return Changes(plans.revision << _SHIFT | runs.revision, lines)

    def write(self, lines: Mapping[str, bytes | None], term: int) -> bool:
        """See `celeriac.timetable.Timetable`."""
        with self._turn:
            if term != self._term or not self._holder or not self._is_ours():
                return False
            self._commit((), lines, _PATIENCE_SECONDS)
            return True

    def send(
        self, batch: Sequence[Outgoing], lines: Mapping[str, bytes | None], term: int, *, deadline: float
    ) -> None:
        """See `celeriac.timetable.SendsAlong`."""
        with self._turn:
            if term != self._term or not self._holder or not self._is_ours():
                raise TransportError(
                    f"Nothing was sent: another scheduler leads at {self.address}.", retryable=False
                )
            self._commit(batch, lines, deadline)

    def edit(self, key: str, value: bytes | None, revision: int) -> bool:
        """See `celeriac.timetable.Timetable`."""
        with self._turn:
            for _ in range(_TRIES):
                link = self._connected()
                with self._telling(link):
                    done = self._plans.edit(link, _TRANSACTIONS, (key, value), revision >> _SHIFT)
                if done is not None:
                    return done
        raise TransportError(
            f"The schedule at {self.address} was not changed: others write it all the time. Try again."
        )

    def close(self) -> None:
        """See `celeriac.timetable.Timetable`; the lead ends with the connection."""
        with self._turn:
            self._let_go()

    def _commit(self, batch: Sequence[Outgoing], lines: Mapping[str, bytes | None], deadline: float) -> None:
        """Send messages and the page with these lines in one transaction, on the connection that leads."""
        link = self._link
        assert link is not None, "the lead is on it"
        page = self._runs.revised(lines, most_removed=0)
        messages = [*batch, page.outgoing(self._run_drawer.queue)]
        with self._telling(link):
            commit(link, _TRANSACTIONS, messages, Taken(), time.monotonic() + deadline)
        self._runs = page

    @contextlib.contextmanager
    def _telling(self, link: Link) -> Iterator[None]:
        """Tell what fails on a connection as `celeriac.errors` knows it; the lead goes when it is lost."""
        try:
            yield
        except Refused as exc:
            raise link.address.failure(exc) from exc
        except (Lost, TimeoutError) as exc:
            link.drop(Lost(str(exc)))
            self._let_go()
            failure = link.address.failure(exc)
            failure.retryable = False  # not by the next call: who looks then sees what was done
            raise failure from exc
        except DecodeError:
            self._let_go()  # and of what was taken out
            raise

    def _let_go(self) -> None:
        if self._holder:
            self._term += 1  # nothing that we have not seen may be taken for ours, should we lead again
        link, self._link, self._holder = self._link, None, NOBODY
        if link is not None:
            link.close()

    def _is_ours(self) -> bool:
        """Ask whether the exclusive queue is there still, on the connection that has it."""
        link = self._link
        if (
            link is not None
            and link.alive
            and self._refusal(link, topology.look_at_queue(self._lock_name)) is None
        ):
            return True
        self._let_go()
        return False

    def _ask(self, method: topology.Method, allowed: Sequence[int]) -> int | None:
        """Ask something and return the code of a refusal that is allowed; None when it was not refused."""
        link = self._connected()
        refusal = self._refusal(link, method)
        if refusal is None:
            return None
        if refusal.code not in allowed:
            raise link.address.failure(refusal) from refusal
        return refusal.code

    def _refusal(self, link: Link, method: topology.Method) -> Refused | None:
        try:
            link.call(time.monotonic() + _PATIENCE_SECONDS, _CHANNEL, *method)
        except Refused as exc:
            return exc
        except (Lost, TimeoutError) as exc:
            link.drop(exc if isinstance(exc, Lost) else Lost(str(exc)))
            self._let_go()
            raise link.address.failure(exc) from exc
        return None

    def _look_at_plans(self) -> Page:
        """Return the plans; when somebody has them out, as they were."""
        link = self._link
        assert link is not None, "the lead is on it"
        with self._telling(link):
            until = time.monotonic() + _PATIENCE_SECONDS
            (rung,) = link.call(until, _CHANNEL, "queue.purge", 0, self._lock_name, False)
            if rung or self._plans_are_old:
                taken = self._plans.drawer.take_out(link, _CHANNEL, _GLANCE_SECONDS)
                self._plans_are_old = taken is not None and not taken.tags
                if taken is not None and taken.tags:
                    put_back(link, _CHANNEL, taken.tags)
                    self._planned = taken.page
        return self._planned

    def _read_to_lead(self) -> tuple[Page, Page]:
        """Return runs and plans; from now on there is a page of these, if an empty one."""
        link = self._connected()
        with self._telling(link):
            if not self._plans.is_made(link, _CHANNEL):
                self._plans.make(link, _TRANSACTIONS)
        return self._read()

    def _read(self) -> tuple[Page, Page]:
        """Return runs and plans, and leave them where they are.

        The plans are out meanwhile: who else looked at the runs at the same time would see none.
        """
        link = self._connected()
        with self._telling(link):
            plans = self._plans.drawer.take_out(link, _CHANNEL, _LOST_SECONDS)
            runs = self._run_drawer.take_out(link, _CHANNEL, _LOST_SECONDS)
            if runs is not None:  # else the channel is gone, and has let go of the plans
                put_back(link, _CHANNEL, (*runs.tags, *(plans or Taken()).tags))
        return (runs or Taken()).page, (plans or Taken()).page

    def _connected(self) -> Link:
        link = self._link
        if link is not None and link.glance():
            return link
        self._let_go()
        until = time.monotonic() + _PATIENCE_SECONDS
        *others, last = self._addresses
        for address in others:
            link = Link(address, self._turn, lambda event: None)
            with contextlib.suppress(BrokerUnreachable):  # the last one tells
                link.connect(until)
                self._link = link
                return link
        link = Link(last, self._turn, lambda event: None)
        link.connect(until)
        self._link = link
        return link
