"""The consumer: have messages fetched, settle, renew."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from celeriac.errors import TransportError
from celeriac.message import DeadLetter, Delivery, Verdict
from celeriac.net.redis_link import RedisFailure, Refused, checked, pack
from celeriac.net.redis_servers import Servers
from celeriac.net.redis_stream import Answers, Stream
from celeriac.ports import ConsumeSpec
from celeriac.queues import Queue
from celeriac.transports.redis.arrivals import Arrivals
from celeriac.transports.redis.bindings import declaration
from celeriac.transports.redis.broadcasts import Broadcasts, Heard
from celeriac.transports.redis.errors import translated
from celeriac.transports.redis.fetcher import Fetcher
from celeriac.transports.redis.holding import Token
from celeriac.transports.redis.membership import Commands, Membership
from celeriac.transports.redis.names import Names
from celeriac.transports.redis.reaper import Reaper
from celeriac.transports.redis.scripts import LEAVE, RENEW
from celeriac.transports.redis.settlement import DeadLetterNote, bury, settlement, taken_in

logger: logging.Logger = logging.getLogger(__name__)

_SWEEP_SECONDS: Final = 30.0  # between searches for what dead nodes have caught late
_ASK_AGAIN_SECONDS: Final = 0.05  # to be handed over nothing more, before we leave
_PING: Final = pack(("PING",))


class RedisConsumer:
    """Leases messages from Redis lists to one node.

    Duties: 1. have messages fetched while somebody waits (`fetcher`), and hand them out; 2. settle: one HDEL
    for what is done, one script for the rest, one round trip for all; 3. renew, and take over from the dead;
    4. hand back at the end.
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
            last_list=lambda: self._fetcher.latest,
        )
        self._arrivals = Arrivals(names, self._member, self._deliver, self._lost)
        self._reaper = Reaper(names, self._member, self._queues.__contains__, self._take_lost)
        self._touching: list[Callable[[bool], None]] = []  # who waits for the answer that is under way
        self._wake = asyncio.Event()
        self._next_sweep = 0.0
        self._failure: RedisFailure | None = None
        self._closed = False
        for queue in spec.queues:
            self._queues[queue.name] = queue
            self._broadcasts.add(queue)
        self._fetcher = Fetcher(
            names,
            self._member,
            self._arrivals,
            self._queues,
            self._broadcasts,
            prefetch=spec.prefetch,
            wake=self._wake,
            touch=self.touch,
            on_failure=self._on_failure,
        )

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
            self._fetcher.disarm()  # nobody waits: let others have it

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
            if self._fetcher.idle:
                await self.renew()  # a while has passed and nothing rang
                continue
            self._fetcher.seek(limit)
            try:
                await self._wake.wait()
            finally:
                self._fetcher.rest()

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
        if todo.refills:
            self._fetcher.expect()
        if self._fetcher.hungry or not self._fetcher.armed:  # else whoever waits has no use for more room
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
            self._fetcher.renewed(now, None if found is None else found[0])
            if sweep:
                self._next_sweep = now + _SWEEP_SECONDS
            if found is None:
                await self._member.start_over()
            else:
                await self._reaper.reap(found[1:])
        except RedisFailure as exc:
            raise self._failed(exc, "renewing leases") from exc
        self._fetcher.look()

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
        self._fetcher.set_prefetch(limit)
        self._wake.set()

    async def add_queue(self, queue: Queue) -> None:
        """See `celeriac.ports.Consumer`."""
        stream = await self._stream("adding a queue")
        self._queues[queue.name] = queue
        self._fetcher.know_lists()
        patterns = self._broadcasts.add(queue)
        data, count = declaration(queue, self._names)
        if patterns:
            data += pack(("PSUBSCRIBE", *patterns))
        try:
            checked(await stream.call(data + pack(("PING",)), count + 1))
        except RedisFailure as exc:
            raise self._failed(exc, f"adding queue {queue.name!r}") from exc
        self._fetcher.expect()
        self._wake.set()

    async def cancel_queue(self, name: str) -> None:
        """See `celeriac.ports.Consumer`."""
        if self._queues.pop(name, None) is None:
            return
        self._fetcher.know_lists()
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
            self._fetcher.hang_up()
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
        self._fetcher.expect()
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
            self._fetcher.ring(push[1])
        else:
            self._broadcasts.heard(push)

    def _lost(self, failure: RedisFailure) -> None:
        self._fetcher.hang_up()
        self._failure = failure
        self._fetcher.look()

    def _on_failure(self, failure: RedisFailure) -> None:
        self._mind(failure)
        self._lost(failure)

    def _mind(self, failure: RedisFailure) -> None:
        if isinstance(failure, Refused) and failure.code == "NOSCRIPT":
            self._member.drop()  # the next connection brings the scripts along

    def _failed(self, failure: RedisFailure, doing: str) -> TransportError:
        self._mind(failure)
        return translated(failure, self._shown, doing)

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

    def _take_lost(self, field: bytes, message: bytes) -> None:
        self._arrivals.take_lost(field, message)

    # --- the end ---

    async def _leave(self, stream: Stream) -> None:
        while stream.alive and self._fetcher.busy:
            self._wake.clear()
            self._fetcher.disarm()  # again, should it have come before the catcher's own command
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), _ASK_AGAIN_SECONDS)
        self._fetcher.hang_up()
        holding = self._member.holding
        unbegun = sorted((t for t in holding.tokens.values() if not t.begun), key=lambda t: -t.number)
        keys = [self._names.nodes, self._member.lease, self._names.catching]
        fields = [token.field for token in unbegun]
        take_in = taken_in([token for token in unbegun if token.caught], holding.id, self._names)
        checked(await stream.call(take_in + LEAVE.call(keys, [holding.id, self._names.prefix, *fields]), 2))
        holding.tokens.clear()
