"""The consumer: wait, pop and lease, settle, renew."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from celeriac.errors import TransportError
from celeriac.message import DeadLetter, Delivery, Verdict
from celeriac.net.redis_link import RedisFailure, Refused, ReplyError, checked, pack
from celeriac.net.redis_servers import Servers
from celeriac.net.redis_stream import Answers, Stream
from celeriac.ports import ConsumeSpec
from celeriac.queues import Queue
from celeriac.transports.redis.arrivals import Arrivals
from celeriac.transports.redis.bindings import declaration
from celeriac.transports.redis.broadcasts import Broadcasts, Heard
from celeriac.transports.redis.catcher import Catcher
from celeriac.transports.redis.errors import translated
from celeriac.transports.redis.holding import Holding, Token, list_of
from celeriac.transports.redis.membership import Commands, Membership
from celeriac.transports.redis.names import Names
from celeriac.transports.redis.reaper import Reaper
from celeriac.transports.redis.scripts import FETCH, LEAVE, PUT_BACK, QUICK, RENEW
from celeriac.transports.redis.settlement import DeadLetterNote, bury, settlement, taken_in

logger: logging.Logger = logging.getLogger(__name__)

_ROUND_SECONDS: Final = 1.0  # an idle consumer renews and looks this often although nothing rang: to notice
# dead nodes, and a connection that is dead but not closed
_SWEEP_SECONDS: Final = 30.0  # between searches for what dead nodes have caught late
_POLL_SECONDS: Final = 0.05  # the same where the server cannot ring
_MOST_AT_ONCE: Final = 1000  # messages of one fetch: it must not hold up the server for long
_FRESH_SECONDS: Final = 0.0025  # so old an answer still shows that we are heard
_PING: Final = pack(("PING",))
_HEAD_OF_A_FETCH: Final = 2  # items before the messages in its answer


class _Fetch(msgspec.Struct, eq=False):
    """A fetch under way: what its answer has to be read with."""

    holding: Holding
    first_number: int
    keys: list[bytes]
    room: int = 1  # how much it may bring
    partial: bool = False  # it did not look everywhere


class RedisConsumer:
    """Leases messages from Redis lists to one node.

    Duties: 1. know when there is something to fetch: after a fetch that emptied the lists the server is asked
    to ring when one of them changes; 2. pop and lease in one script, hand out, count what is outstanding;
    3. settle: one HDEL for what is done, one script for the rest, one round trip for all; 4. renew, and take
    over from the dead; 5. hand back at the end.

    Answers are taken in by callbacks of the connection, never behind an ``await``: cancelling a call drops
    nothing that the server has leased to us.
    """

    def __init__(
        self,
        servers: Servers,
        shown: str,
        names: Names,
        spec: ConsumeSpec,
        *,
        dead_letter_limit: int,
    ) -> None:
        self._shown = shown
        self._names = names
        self._prefetch = spec.prefetch
        self._node = spec.node
        self._dead_letter_limit = dead_letter_limit
        self._queues: dict[str, Queue] = {}
        self._ready: deque[Delivery] = deque()
        self._broadcasts = Broadcasts(names, self._deliver)
        self._member = Membership(
            servers,
            names,
            node=spec.node,
            lease_seconds=spec.lease_seconds,
            greeting=self._greeting,
            on_push=self._pushed,
            on_lost=self._lost,
            on_begun=self._take_lost,
            last_list=lambda: names.bare(self._catcher.latest),
        )
        self._arrivals = Arrivals(names, self._member, self._deliver, self._lost)
        self._reaper = Reaper(names, self._member, self._queues.__contains__, self._take_lost)
        self._catcher = Catcher(self._member.address, names, self._caught, self._catcher_lost)
        self._member.client_ids = self._catcher.client_ids
        self._hot = b""  # the list that brought something last
        self._muffled: bytes | None = None  # the list whose bell has rung for what the catcher was to bring
        self._touching: list[Callable[[bool], None]] = []  # who waits for the answer that is under way
        self._moving = 0  # commands under way that move what was caught: back, or into our lease
        self._wake = asyncio.Event()
        self._hungry = True  # there may be something to fetch
        self._limit = 0  # how many `receive` waits for; 0 when nobody does
        self._fetching: _Fetch | None = None
        self._queue_of: dict[bytes, str] = {}  # our lists in the order of FETCH -> their queues
        self._arm = b""  # the commands that arm the bell
        self._turn = 0  # the queue that comes first in the next fetch
        self._due: float | None = None  # when the next parked message is; the loop's time
        self._alive = 1  # nodes, when we renewed last
        self._idle = False  # long enough to renew before anything else
        self._next_round = 0.0  # when that will be; the loop's time
        self._next_sweep = 0.0
        self._failure: RedisFailure | None = None
        self._closed = False
        for queue in spec.queues:
            self._queues[queue.name] = queue
            self._broadcasts.add(queue)
        self._know_lists()

    # --- the port ---

    async def open(self) -> None:
        """Connect and declare; `RedisTransport.consumer` calls it before anybody else has the consumer."""
        await self._stream("connecting")
        await self.renew()

    async def receive(self, limit: int) -> Sequence[Delivery]:
        """See `celeriac.ports.Consumer`."""
        try:
            return await self._receive(limit)
        finally:
            stream = self._member.current()
            if self._catcher.armed is not None and stream is not None:
                self._catcher.disarm(stream)  # nobody waits: let others have it

    async def _receive(self, limit: int) -> Sequence[Delivery]:
        while True:
            if ready := self._take(limit):
                return ready
            if self._failure is not None:
                failure, self._failure = self._failure, None
                raise translated(failure, self._shown, "waiting for messages")
            self._wake.clear()
            if self._member.current() is None:
                await self._stream("connecting")
            if self._idle:
                await self.renew()  # a while has passed and nothing rang
                continue
            self._limit = limit
            timer = None
            if not self._fetch_if_hungry():
                timer = asyncio.get_running_loop().call_later(*self._pause())
                self._catch_next()
            try:
                await self._wake.wait()
            finally:
                self._limit = 0
                if timer is not None:
                    timer.cancel()

    async def settle(self, verdicts: Sequence[tuple[Delivery, Verdict]]) -> None:
        """See `celeriac.ports.Consumer`."""
        if not verdicts:
            return
        stream = self._member.current() or await self._stream("settling")
        holding = self._member.holding
        note = DeadLetterNote(self._node, self._dead_letter_limit, time.time())
        ours = [
            (d.token, d.attempt, v) for d, v in verdicts if type(d.token) is Token and holding.holds(d.token)
        ]
        todo = settlement(ours, holding.id, self._names, note)
        heard = [(d, v) for d, v in verdicts if type(d.token) is Heard and self._broadcasts.outstanding(d)]
        for delivery, verdict in heard:
            if isinstance(verdict, DeadLetter):
                todo.data += bury(self._names.dead(delivery.queue), note, verdict, delivery.token.message)
                todo.count += 2
        if todo.count:
            try:
                checked(await stream.call(todo.data, todo.count))
            except RedisFailure as exc:
                raise self._failed(exc, "settling") from exc
        for delivery, verdict in heard:
            self._broadcasts.settle(delivery, verdict)
        for token in todo.started:
            token.begun = True
        for token in todo.ended:
            holding.tokens.pop(token.field, None)
        self._hungry = self._hungry or todo.refills
        if self._hungry or self._catcher.armed is None:  # else whoever waits has no use for more room
            self._wake.set()

    async def renew(self) -> None:
        """See `celeriac.ports.Consumer`."""
        stream = self._member.current() or await self._stream("renewing leases")
        try:
            now = asyncio.get_running_loop().time()
            keys = [self._names.nodes, self._names.outage, self._names.catching]
            sweep = now >= self._next_sweep
            command = RENEW.call(keys, [self._member.holding.id, self._member.lease_seconds, int(sweep)])
            [found] = checked(await stream.call(command, 1))
            self._idle = False
            self._next_round = now + _ROUND_SECONDS
            if sweep:
                self._next_sweep = now + _SWEEP_SECONDS
            if found is None:
                await self._member.start_over()
            else:
                self._alive, *dead = found
                await self._reaper.reap(dead)
        except RedisFailure as exc:
            raise self._failed(exc, "renewing leases") from exc
        self._look()

    def holds(self, delivery: Delivery) -> bool:
        """See `celeriac.ports.Consumer`."""
        if type(delivery.token) is Heard:
            return self._broadcasts.outstanding(delivery)
        return self._member.holding.holds(delivery.token)

    @property
    def heard_at(self) -> float:
        """See `celeriac.ports.Unheard`."""
        stream = self._member.current()
        return 0.0 if stream is None else stream.answered_at

    def touch(self, done: Callable[[bool], None]) -> None:
        """See `celeriac.ports.Unheard`."""
        stream = self._member.current()
        if stream is None:
            done(False)
            return
        self._touching.append(done)
        if len(self._touching) == 1:
            stream.ask(_PING, 1, self._touched)

    def _touched(self, answer: Answers | RedisFailure) -> None:
        touching, self._touching = self._touching, []
        for done in touching:
            done(not isinstance(answer, RedisFailure))

    @property
    def taken_back(self) -> int:
        """How many messages of dead nodes have gone back to their queues by our hand."""
        return self._reaper.taken_back

    async def pause_before_reaping(self) -> float:
        """Return for how many seconds `renew` declares nobody dead: the server was away, or all nodes are."""
        stream = await self._stream("looking at the nodes")
        data = pack(("TIME",)) + pack(("HGET", self._names.outage, "until"))
        try:
            moment, until = checked(await stream.call(data, 2))
        except RedisFailure as exc:
            raise self._failed(exc, "looking at the nodes") from exc
        now = int(moment[0]) + int(moment[1]) / 1e6
        return max(0.0, float(until) - now) if until else 0.0

    async def set_prefetch(self, limit: int) -> None:
        """See `celeriac.ports.Consumer`."""
        self._prefetch = limit
        self._wake.set()

    async def add_queue(self, queue: Queue) -> None:
        """See `celeriac.ports.Consumer`."""
        stream = await self._stream("adding a queue")
        self._queues[queue.name] = queue
        self._know_lists()
        patterns = self._broadcasts.add(queue)
        data, count = declaration(queue, self._names)
        if patterns:
            data += pack(("PSUBSCRIBE", *patterns))
        try:
            checked(await stream.call(data + pack(("PING",)), count + 1))
        except RedisFailure as exc:
            raise self._failed(exc, f"adding queue {queue.name!r}") from exc
        self._hungry = True
        self._wake.set()

    async def cancel_queue(self, name: str) -> None:
        """See `celeriac.ports.Consumer`."""
        if self._queues.pop(name, None) is None:
            return
        self._know_lists()
        patterns = self._broadcasts.cancel(name)
        stream = self._member.current()
        if patterns and stream is not None:
            stream.tell(pack(("PUNSUBSCRIBE", *patterns)))

    async def close(self) -> None:
        """See `celeriac.ports.Consumer`."""
        if self._closed:
            return
        self._closed = True
        self._broadcasts.close()
        try:
            await self._leave(await self._member.stream())
        except RedisFailure as exc:
            logger.warning(
                "Node %s could not hand back its messages (%s); others get them when its lease ends",
                self._node,
                exc,
            )
        finally:
            self._catcher.close()
            await self._member.close()
            self._wake.set()

    # --- connection ---

    async def _stream(self, doing: str) -> Stream:
        if self._closed:
            raise TransportError(f"The consumer of {self._shown} was closed.", retryable=False)
        try:
            stream = await self._member.stream()
        except RedisFailure as exc:
            raise self._failed(exc, doing) from exc
        self._failure = None
        self._hungry = True
        return stream

    def _greeting(self) -> Commands:
        """Return what every new connection has to say: what we listen to, and what our queues are."""
        data, count = self._broadcasts.greeting(), 0
        for queue in self._queues.values():
            more, answers = declaration(queue, self._names)
            data += more
            count += answers
        return data, count

    def _pushed(self, push: list[Any]) -> None:  # Any: whatever Redis sends
        if push[0] == b"invalidate":
            self._ring(push[1])
        else:
            self._broadcasts.heard(push)

    def _lost(self, failure: RedisFailure) -> None:
        self._catcher.close()
        self._failure = failure
        self._look()

    def _catcher_lost(self, failure: RedisFailure) -> None:
        """Begin anew: only joining finds out what it may have caught."""
        self._member.drop(failure)
        self._lost(failure)

    def _failed(self, failure: RedisFailure, doing: str) -> TransportError:
        if isinstance(failure, Refused) and failure.code == "NOSCRIPT":
            self._member.drop()  # the next connection brings the scripts along
        return translated(failure, self._shown, doing)

    # --- fetching ---

    def _ring(self, keys: list[bytes] | None) -> None:
        """Take the message that the bell rang for; when that is not so simple, look everywhere."""
        stream = self._member.current()
        if keys is None or keys[0] not in self._queue_of or stream is None:
            self._look()
        elif self._fetching is not None:
            pass  # it rang before the lists were looked at, which is what the fetch's answer ends with
        elif self._catcher.brings(keys[0], self._hot):
            self._muffled = keys[0]
            self._wake.set()
        elif self._room(self._limit) > 0:
            self._quick_fetch(stream, keys[0])
        else:
            self._look()

    def _catch_next(self) -> None:
        """Have the server hand over the next message; fetch if that leaves a list that nobody listens to."""
        stream, holding = self._member.current(), self._member.holding
        if stream is None or not self._queue_of or self._room(self._limit) <= 0:
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
            self._hungry = True
            self._fetch_if_hungry()

    def _caught(self, id_: str, key: bytes, message: bytes | None) -> None:
        """Hand out what was caught, or put it back."""
        stream, names, holding = self._member.current(), self._names, self._member.holding
        if message is None or stream is None:
            # What was caught without a connection is found when we join.
            if self._muffled is not None:
                self._look()
            self._wake.set()
            return
        fetching = self._fetching
        room = self._room(self._limit) - (fetching.room if fetching is not None else 0)
        if room <= 0 or key not in self._queue_of or id_ != holding.id:
            self._moving += 1
            stream.ask(PUT_BACK.call([names.catch(id_), key], [message]), 1, self._put_back)
            return
        if asyncio.get_running_loop().time() - self.heard_at > _FRESH_SECONDS:
            self.touch(_ignore)  # the node will ask whether we are heard: it has the answer sooner
        self._hot = key
        number = holding.reserve(1)
        due = self._arrivals.take_in([message], names.bare(key), number, time.time(), caught=True)
        self._note_due(due)
        self._wake.set()  # also for a message that has to wait: whoever waits has to know until when

    def _put_back(self, answer: Answers | RedisFailure) -> None:
        self._moving -= 1
        if not isinstance(answer, RedisFailure) and any(isinstance(item, ReplyError) for item in answer):
            self._catcher_lost(Refused("a caught message could not be put back"))
        else:
            self._look()

    def _taken_in(self, answer: Answers | RedisFailure) -> None:
        self._moving -= 1
        if not isinstance(answer, RedisFailure) and isinstance(answer[0], ReplyError):
            self._catcher_lost(Refused(str(answer[0])))
        self._wake.set()

    def _look(self) -> None:
        """Fetch, or let `receive` do it: something rang, a moment has come, or it was long enough ago."""
        self._hungry = True
        if not (self._limit and self._fetch_if_hungry()):
            self._wake.set()

    def _look_around(self) -> None:
        """Let `receive` renew before it fetches."""
        self._idle = self._hungry = True
        self._wake.set()

    def _know_lists(self) -> None:
        self._queue_of = {key: name for name in self._queues for key in self._names.lists(name)}
        lists = pack(("EXISTS", *self._queue_of)) if self._queue_of else pack(("ECHO", ""))
        self._arm = lists + pack(("EXISTS", self._names.due))

    def _pause(self) -> tuple[float, Callable[[], None]]:
        """Return how long to wait for the bell, in seconds, and what to do when it did not ring."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        pauses = [(max(self._next_round - now, 0.0), self._look_around)]
        if not self._member.rings:
            pauses.append((_POLL_SECONDS, self._look))
        if self._due is not None:
            pauses.append((max(self._due - now, 0.0), self._look))
        return min(pauses, key=lambda pause: pause[0])

    def _room(self, limit: int) -> int:
        if self._prefetch:
            limit = min(limit, self._prefetch - len(self._member.holding.tokens) - len(self._broadcasts))
        return min(limit, _MOST_AT_ONCE)

    def _take(self, limit: int) -> list[Delivery]:
        """Return what was fetched and not handed out yet, without what others have by now."""
        taken: list[Delivery] = []
        holds = self._member.holding.holds
        while self._ready and len(taken) < limit:
            delivery = self._ready.popleft()
            if type(delivery.token) is Heard or holds(delivery.token):
                taken.append(delivery)
        return taken

    def _deliver(self, delivery: Delivery) -> None:
        self._ready.append(delivery)
        self._wake.set()

    def _fetch_if_hungry(self) -> bool:
        """Fetch when somebody waits for it, and there may be something; whether a fetch is under way."""
        if self._fetching is not None:
            return True
        room = self._room(self._limit)
        stream = self._member.current()
        if not self._hungry or room <= 0 or stream is None or not self._queues:
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
        self._hungry = False
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
            return  # `_lost` is told, too
        try:
            got, filled, _ = checked(answer)
        except Refused as exc:
            self._failed(exc, "fetching")
            self._lost(exc)
            return
        if fetch.holding is not self._member.holding or not got:
            self._idle = True  # our lease was taken: renewing finds that out and starts over
            return
        self._hungry = self._hungry or bool(filled)
        now = float(got[0] or time.time())  # when nothing is parked the server does not tell its own
        if not fetch.partial:
            due = float(got[1]) if got[1] else None
            self._due = None
            if due is not None and due <= now:
                self._hungry = True  # messages are left that take turns
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

    def _take_lost(self, field: bytes, message: bytes) -> None:
        self._arrivals.take_lost(field, message)

    # --- the end ---

    async def _leave(self, stream: Stream) -> None:
        while stream.alive and (self._fetching is not None or self._catcher.armed is not None):
            self._wake.clear()
            self._catcher.disarm(stream)  # again, should it have come before the catcher's own command
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), _POLL_SECONDS)
        self._catcher.close()
        holding = self._member.holding
        unbegun = sorted((t for t in holding.tokens.values() if not t.begun), key=lambda t: -t.number)
        keys = [self._names.nodes, self._member.lease, self._names.catching]
        fields = [token.field for token in unbegun]
        take_in = taken_in([token for token in unbegun if token.caught], holding.id, self._names)
        checked(await stream.call(take_in + LEAVE.call(keys, [holding.id, self._names.prefix, *fields]), 2))
        holding.tokens.clear()


def _ignore(answered: bool) -> None:
    """Whoever wants to know asks again."""
