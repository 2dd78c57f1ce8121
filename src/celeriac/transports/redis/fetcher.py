"""The fetcher: from queues that may hold something to messages that are leased to us."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from celeriac.net.redis_link import RedisFailure, Refused, ReplyError, checked, pack
from celeriac.net.redis_stream import Answers, Stream
from celeriac.queues import Queue
from celeriac.transports.redis.arrivals import Arrivals
from celeriac.transports.redis.broadcasts import Broadcasts
from celeriac.transports.redis.catcher import Catcher
from celeriac.transports.redis.holding import Holding, list_of
from celeriac.transports.redis.membership import Membership
from celeriac.transports.redis.names import Names
from celeriac.transports.redis.scripts import FETCH, PUT_BACK, QUICK
from celeriac.transports.redis.settlement import taken_in

_ROUND_SECONDS: Final = 1.0  # an idle consumer renews and looks this often although nothing rang: to notice
# dead nodes, and a connection that is dead but not closed
_POLL_SECONDS: Final = 0.05  # the same where the server cannot ring
_MOST_AT_ONCE: Final = 1000  # messages of one fetch: it must not hold up the server for long
_FRESH_SECONDS: Final = 0.0025  # so old an answer still shows that we are heard
_HEAD_OF_A_FETCH: Final = 2  # items before the messages in its answer


class _Fetch(msgspec.Struct, eq=False):
    """A fetch under way: what its answer has to be read with."""

    holding: Holding
    first_number: int
    keys: list[bytes]
    room: int = 1  # how much it may bring
    partial: bool = False  # it did not look everywhere


class Fetcher:
    """Brings messages to one who waits for them.

    1. Knows whether there may be something: after a fetch that emptied the lists the server is asked to ring
       when one of them changes, and parked messages say when they are due.
    2. Pops and leases in one script.
    3. While somebody waits and nothing is there, has the next message of the list that brought something last
       handed over (`catcher`).

    Answers are taken in by callbacks of the connection, never behind an ``await``: cancelling a call drops
    nothing that the server has leased to us.

    Args:
        names: The names of keys.
        member: Ours.
        arrivals: Takes in what was brought.
        queues: What is consumed; `know_lists` when that has changed.
        broadcasts: Are outstanding, too.
        prefetch: Deliveries that may be outstanding; 0 = no limit.
        wake: Set when whoever waits has to look.
        touch: Asks the server for an answer, see `celeriac.ports.Unheard`.
        on_failure: Called when the server refuses, or the second connection is lost.
    """

    def __init__(
        self,
        names: Names,
        member: Membership,
        arrivals: Arrivals,
        queues: Mapping[str, Queue],
        broadcasts: Broadcasts,
        *,
        prefetch: int,
        wake: asyncio.Event,
        touch: Callable[[Callable[[bool], None]], None],
        on_failure: Callable[[RedisFailure], None],
    ) -> None:
        self.hungry: bool = True  # there may be something to fetch
        self.idle: bool = False  # long enough to renew before anything else
        self._names = names
        self._member = member
        self._arrivals = arrivals
        self._queues = queues
        self._broadcasts = broadcasts
        self._prefetch = prefetch
        self._wake = wake
        self._touch = touch
        self._on_failure = on_failure
        self._catcher = Catcher(member.address, names, self._caught, self._begin_anew)
        member.client_ids = self._catcher.client_ids
        self._limit = 0  # how many somebody waits for; 0 when nobody does
        self._timer: asyncio.TimerHandle | None = None  # for when nothing rings
        self._hot = b""  # the list that brought something last
        self._muffled: bytes | None = None  # the list whose bell has rung for what the catcher was to bring
        self._moving = 0  # commands under way that move what was caught: back, or into our lease
        self._fetching: _Fetch | None = None
        self._queue_of: dict[bytes, str] = {}  # our lists in the order of FETCH -> their queues
        self._arm = b""  # the commands that arm the bell
        self._turn = 0  # the queue that comes first in the next fetch
        self._due: float | None = None  # when the next parked message is; the loop's time
        self._alive = 1  # nodes, when we renewed last
        self._next_round = 0.0  # when we have been idle for long enough; the loop's time
        self.know_lists()

    # --- for whom ---

    def seek(self, limit: int) -> None:
        """Bring at most so many messages as soon as there are some, until `rest`."""
        self._limit = limit
        if not self._fetch_if_hungry():
            self._timer = asyncio.get_running_loop().call_later(*self._pause())
            self._catch_next()

    def rest(self) -> None:
        """Begin with nothing more: nobody waits. What is under way still comes."""
        self._limit = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def disarm(self) -> None:
        """Have the server hand over nothing more; that may still have happened."""
        stream = self._member.current()
        if self._catcher.armed is not None and stream is not None:
            self._catcher.disarm(stream)

    def hang_up(self) -> None:
        """Let go of the second connection; there will be another one when it is of use."""
        self._catcher.close()

    @property
    def armed(self) -> bool:
        """Whether the server is to hand over the next message."""
        return self._catcher.armed is not None

    @property
    def busy(self) -> bool:
        """Whether messages may come that nobody has asked for since."""
        return self._fetching is not None or self._catcher.armed is not None

    @property
    def latest(self) -> bytes:
        """The list that the server was to hand over messages of; without the prefix."""
        return self._names.bare(self._catcher.latest)

    # --- what is known ---

    def set_prefetch(self, limit: int) -> None:
        """Change how many deliveries may be outstanding; 0 = no limit."""
        self._prefetch = limit

    def expect(self) -> None:
        """Fetch the next time that somebody waits."""
        self.hungry = True

    def renewed(self, at: float, alive: int | None) -> None:
        """Note that our lease was renewed.

        Args:
            at: When; the loop's time.
            alive: How many nodes there are; None when we do not count among them any more.
        """
        self.idle = False
        self._next_round = at + _ROUND_SECONDS
        if alive is not None:
            self._alive = alive

    def know_lists(self) -> None:
        """Mind that other queues are consumed from now on."""
        self._queue_of = {key: name for name in self._queues for key in self._names.lists(name)}
        lists = pack(("EXISTS", *self._queue_of)) if self._queue_of else pack(("ECHO", ""))
        self._arm = lists + pack(("EXISTS", self._names.due))

    def ring(self, keys: list[bytes] | None) -> None:
        """Take the message that the bell rang for; when that is not so simple, look everywhere."""
        stream = self._member.current()
        if keys is None or keys[0] not in self._queue_of or stream is None:
            self.look()
        elif self._fetching is not None:
            pass  # it rang before the lists were looked at, which is what the fetch's answer ends with
        elif self._catcher.brings(keys[0], self._hot):
            self._muffled = keys[0]
            self._wake.set()
        elif self._room() > 0:
            self._quick_fetch(stream, keys[0])
        else:
            self.look()

    def look(self) -> None:
        """Fetch, or let whoever waits do it: something rang, a moment has come, or it was long enough ago."""
        self.hungry = True
        if not (self._limit and self._fetch_if_hungry()):
            self._wake.set()

    def _look_around(self) -> None:
        """Let whoever waits renew before anything is fetched."""
        self.idle = self.hungry = True
        self._wake.set()

    def _pause(self) -> tuple[float, Callable[[], None]]:
        """Return how long to wait for the bell, in seconds, and what to do when it did not ring."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        pauses = [(max(self._next_round - now, 0.0), self._look_around)]
        if not self._member.rings:
            pauses.append((_POLL_SECONDS, self.look))
        if self._due is not None:
            pauses.append((max(self._due - now, 0.0), self.look))
        return min(pauses, key=lambda pause: pause[0])

    def _room(self) -> int:
        limit = self._limit
        if self._prefetch:
            limit = min(limit, self._prefetch - len(self._member.holding.tokens) - len(self._broadcasts))
        return min(limit, _MOST_AT_ONCE)

    # --- fetching ---

    def _fetch_if_hungry(self) -> bool:
        """Fetch when somebody waits for it, and there may be something; whether a fetch is under way."""
        if self._fetching is not None:
            return True
        room = self._room()
        stream = self._member.current()
        if not self.hungry or room <= 0 or stream is None or not self._queues:
            return False
        if self._catcher.armed is None:
            self._fetch(stream, room)
        else:  # what was handed over by then comes first, and is told on the other connection
            self._catcher.disarm(stream)
        return True

    def _quick_fetch(self, stream: Stream, key: bytes) -> None:
        names, holding = self._names, self._member.holding
        number = holding.reserve(1)
        field = b"%d:%s" % (number, names.bare(key))
        keys = [names.nodes, self._member.lease, key]
        command = QUICK.call(keys, [holding.id, field])
        self._ask(stream, command, _Fetch(holding, number, keys, partial=True))

    def _fetch(self, stream: Stream, room: int) -> None:
        names, holding = self._names, self._member.holding
        keys = [names.nodes, self._member.lease, names.due, *self._queue_of]
        self._turn = (self._turn + 1) % len(self._queues)
        number = holding.reserve(room)
        command = FETCH.call(
            keys, [holding.id, number, room, len(names.steps), self._turn, names.prefix, self._alive]
        )
        self.hungry = False
        self._ask(stream, command, _Fetch(holding, number, keys, room=room))

    def _ask(self, stream: Stream, command: bytes, fetch: _Fetch) -> None:
        self._fetching = fetch
        self._muffled = None
        # To read a key is to be rung when it changes. After the fetch, for what we take would unarm it.
        stream.ask(command + self._arm, 3, functools.partial(self._fetched, fetch))

    def _fetched(self, fetch: _Fetch, answer: Answers | RedisFailure) -> None:
        self._fetching = None
        self._wake.set()
        if isinstance(answer, RedisFailure):
            return  # whoever has the connection is told, too
        try:
            got, filled, _ = checked(answer)
        except Refused as exc:
            self._on_failure(exc)
            return
        if fetch.holding is not self._member.holding or not got:
            self.idle = True  # our lease was taken: renewing finds that out and starts over
            return
        self.hungry = self.hungry or bool(filled)
        now = float(got[0] or time.time())  # when nothing is parked the server does not tell its own
        if not fetch.partial:
            due = float(got[1]) if got[1] else None
            self._due = None
            if due is not None and due <= now:
                self.hungry = True  # messages are left that take turns
            else:
                self._note_due(due, now)
        number, at = fetch.first_number, _HEAD_OF_A_FETCH
        while at < len(got):
            self._hot = fetch.keys[got[at] - 1]
            count = got[at + 1]
            messages = got[at + 2 : at + 2 + count]
            self._note_due(self._arrivals.take_in(messages, self._names.bare(self._hot), number, now), now)
            number += count
            at += 2 + count

    def _note_due(self, moment: float | None, now: float | None = None) -> None:
        """Note when a parked message is due; epoch seconds."""
        if moment is not None:
            due = asyncio.get_running_loop().time() + moment - (now or time.time())
            self._due = due if self._due is None else min(self._due, due)

    # --- being handed over ---

    def _catch_next(self) -> None:
        """Have the server hand over the next message; fetch if that leaves a list that nobody listens to."""
        stream, holding = self._member.current(), self._member.holding
        if stream is None or not self._queue_of or self._room() <= 0:
            return
        hot = self._hot if self._hot in self._queue_of else next(iter(self._queue_of))
        waited_for = self._catcher.armed or hot
        if self._catcher.armed is None and not self._moving and self._muffled in (None, waited_for):
            bare = self._names.bare(hot)
            # The server knows of one list only from which we have caught something.
            others = [t for t in holding.tokens.values() if t.caught and list_of(t.field) != bare]
            if others:
                self._moving += 1
                stream.ask(taken_in(others, holding.id, self._names), 1, self._taken_in)
            else:
                self._catcher.arm(holding.id, hot)
        if self._muffled is not None and self._catcher.armed != self._muffled:
            self.hungry = True
            self._fetch_if_hungry()

    def _caught(self, id_: str, key: bytes, message: bytes | None) -> None:
        """Hand out what was caught, or put it back."""
        stream, names, holding = self._member.current(), self._names, self._member.holding
        if message is None or stream is None:
            # What was caught without a connection is found when we join.
            if self._muffled is not None:
                self.look()
            self._wake.set()
            return
        fetching = self._fetching
        room = self._room() - (fetching.room if fetching is not None else 0)
        if room <= 0 or key not in self._queue_of or id_ != holding.id:
            self._moving += 1
            stream.ask(PUT_BACK.call([names.catch(id_), key], [message]), 1, self._put_back)
            return
        if asyncio.get_running_loop().time() - stream.answered_at > _FRESH_SECONDS:
            self._touch(_ignore)  # the node will ask whether we are heard: it has the answer sooner
        self._hot = key
        number = holding.reserve(1)
        due = self._arrivals.take_in([message], names.bare(key), number, time.time(), caught=True)
        self._note_due(due)
        self._wake.set()  # also for a message that has to wait: whoever waits has to know until when

    def _put_back(self, answer: Answers | RedisFailure) -> None:
        self._moving -= 1
        if not isinstance(answer, RedisFailure) and any(isinstance(item, ReplyError) for item in answer):
            self._begin_anew(Refused("a caught message could not be put back"))
        else:
            self.look()

    def _taken_in(self, answer: Answers | RedisFailure) -> None:
        self._moving -= 1
        if not isinstance(answer, RedisFailure) and isinstance(answer[0], ReplyError):
            self._begin_anew(Refused(str(answer[0])))
        self._wake.set()

    def _begin_anew(self, failure: RedisFailure) -> None:
        """Only joining finds out what the catcher may have caught."""
        self._member.drop(failure)
        self._on_failure(failure)


def _ignore(answered: bool) -> None:
    """Whoever wants to know asks again."""
