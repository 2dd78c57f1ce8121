"""Consuming from the embedded broker: one driver task, one thread, one transaction for all that is to do."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec

from celeriac.errors import TransportError
from celeriac.message import Delivery, Start, Verdict
from celeriac.net.doorbell import Bell, Ringer
from celeriac.net.lane import Lane
from celeriac.ports import ConsumeSpec
from celeriac.queues import Queue
from celeriac.transports import sqlite_leases as leases
from celeriac.transports import sqlite_routes as routes
from celeriac.transports.blob import unpack_or_defect
from celeriac.transports.sqlite_file import FileOptions, Handle, Location
from celeriac.transports.sqlite_producer import MESSAGES

T = TypeVar("T")

NO_BELL_POLL_SECONDS = 0.05


class _Token(msgspec.Struct, frozen=True):
    """Which delivery of which message."""

    message: int
    number: int  # the consumer's own count: a message that comes twice has two


class _Settlement:
    """One call of `settle`, waiting for its transaction."""

    __slots__ = ("done", "verdicts")

    def __init__(self, verdicts: Sequence[tuple[Delivery, Verdict]], done: asyncio.Future[None]) -> None:
        self.verdicts = verdicts
        self.done = done


class _Turn(msgspec.Struct):
    """What one visit of the thread to the file is to do, and what came of it."""

    verdicts: list[tuple[int, Verdict]]
    room: int  # how many messages to claim; 0 = none
    queues: tuple[str, ...]
    look_for_dead: bool = False
    voided: bool = False  # we had been taken for dead: everything outstanding has been taken back
    claimed: list[Delivery] = []
    next_due: float | None = None


class SqliteConsumer:
    """Leases messages to one node. It

    1. keeps one thread for the file, which settles and claims in one transaction,
    2. hangs up a doorbell and sleeps until it rings, a parked message is due, or the slow poll comes round,
    3. keeps what was claimed for a `receive` that was cancelled, for the next one.

    Args:
        location: The broker's file.
        handle: A connection of the consumer's own.
        options: The file's options.
        spec: What to consume.
    """

    def __init__(self, location: Location, handle: Handle, options: FileOptions, spec: ConsumeSpec) -> None:
        self._handle = handle
        self._options = options
        self._spec = spec
        self._location = location
        self._lane = Lane(f"celeriac-sqlite-{spec.node}")
        self._ringer = Ringer(location.bells)
        self._bell: Bell | None = None
        self._owner = 0
        self._prefetch = spec.prefetch
        self._declared = {queue.name: queue for queue in spec.queues}
        self._queues = deque(self._declared)  # in the order of their turns
        self._numbers = itertools.count(1)
        self._outstanding: dict[int, int] = {}  # message -> number of its delivery
        self._claimed: deque[Delivery] = deque()  # claimed and not yet returned by `receive`
        self._settlements: deque[_Settlement] = deque()
        self._calls: deque[tuple[Callable[[], Any], asyncio.Future[Any]]] = deque()  # Any: the call's result
        self._receiver: asyncio.Future[None] | None = None
        self._wanted = 0
        self._look = False
        self._wake = asyncio.Event()
        self._listening = False
        self._next_due: float | None = None
        self._driver: asyncio.Task[None] | None = None
        self._closed = False

    async def open(self) -> None:
        """Declare the queues, register as an owner of leases and begin.

        Raises:
            BrokerUnreachable: The file cannot be opened.
        """
        try:
            await self._lane.run(self._enter)
        except BaseException:
            self._lane.close()
            self._handle.close()
            raise
        self._driver = asyncio.create_task(self._drive(), name=f"sqlite-consumer-{self._spec.node}")

    async def receive(self, limit: int) -> Sequence[Delivery]:
        """Wait for messages; see `celeriac.ports.Consumer`."""
        while not self._claimed:
            if self._closed:
                raise TransportError("This consumer is closed.", retryable=False)
            self._receiver = asyncio.get_running_loop().create_future()
            self._wanted = limit
            self._look = True
            self._wake.set()
            try:
                await self._receiver
            finally:
                self._receiver = None
                self._wanted = 0
        return [self._claimed.popleft() for _ in range(min(limit, len(self._claimed)))]

    async def settle(self, verdicts: Sequence[tuple[Delivery, Verdict]]) -> None:
        """Carry out the verdicts; see `celeriac.ports.Consumer`."""
        if not verdicts or self._closed:
            return
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._settlements.append(_Settlement(verdicts, done))
        self._wake.set()
        await done

    async def renew(self) -> None:
        """Extend the leases and take back what dead nodes left."""
        if not self._closed and await self._call(self._renew):
            self._void()

    async def set_prefetch(self, limit: int) -> None:
        """Change how many deliveries may be outstanding."""
        self._prefetch = limit
        self._look = True
        self._wake.set()

    async def add_queue(self, queue: Queue) -> None:
        """Consume from one more queue."""
        await self._call(lambda: self._write(lambda connection: self._declare(connection, queue)))
        if queue.name not in self._declared:
            self._queues.append(queue.name)
        self._declared[queue.name] = queue
        self._look = True
        self._wake.set()

    async def cancel_queue(self, name: str) -> None:
        """Stop consuming from a queue."""
        if self._declared.pop(name, None) is not None and not self._closed:
            self._queues.remove(name)
            await self._call(
                lambda: self._write(lambda connection: routes.unconsume(connection, self._owner, name))
            )

    async def close(self) -> None:
        """Hand back what was not started, and let go of the file."""
        if self._closed:
            return
        self._closed = True
        self._wake.set()
        if self._driver is not None:
            await self._driver
        if self._receiver is not None and not self._receiver.done():
            self._receiver.set_exception(TransportError("This consumer was closed.", retryable=False))
        self._listen(False)
        try:
            await self._lane.run(self._leave)
        finally:
            self._outstanding.clear()
            self._claimed.clear()
            self._lane.close()

    # --- on the loop ---------------------------------------------------------------------------------

    async def _drive(self) -> None:
        """Visit the file whenever there is something to do there, until closed."""
        while True:
            while self._calls:
                await self._run_call()
            room = self._room() if self._look else 0
            if self._settlements or room > 0:
                await self._visit(room)
            elif self._closed:
                return
            else:
                await self._sleep()

    async def _visit(self, room: int) -> None:
        settlements = list(self._settlements)
        self._settlements.clear()
        turn = _Turn(self._take_verdicts(settlements), room, tuple(self._queues))
        held = {number: self._outstanding[number] for number, _ in turn.verdicts}
        for number, verdict in turn.verdicts:
            if not isinstance(verdict, Start):
                del self._outstanding[number]
        if room > 0:
            self._look = False
            self._queues.rotate(-1)
        try:
            await self._lane.run(self._do, turn)
        except Exception as exc:  # noqa: BLE001 - raised where it was asked for: in `settle` and `receive`
            self._outstanding.update(held)  # nothing was written: they are ours still
            self._fail(settlements, exc)
            return
        if turn.voided:
            self._void()
        for delivery in turn.claimed:
            self._outstanding[delivery.token.message] = delivery.token.number
        self._claimed.extend(turn.claimed)
        self._next_due = turn.next_due
        if len(turn.claimed) == room:
            self._look = True
        for settlement in settlements:
            if not settlement.done.done():
                settlement.done.set_result(None)
        if self._claimed and self._receiver is not None and not self._receiver.done():
            self._receiver.set_result(None)

    def _take_verdicts(self, settlements: Sequence[_Settlement]) -> list[tuple[int, Verdict]]:
        """Return what is to be done to messages that we hold; the rest was settled or taken back before."""
        wanted: list[tuple[int, Verdict]] = []
        ended: set[int] = set()
        for settlement in settlements:
            for delivery, verdict in settlement.verdicts:
                token: _Token = delivery.token
                message = token.message
                if self._outstanding.get(message) == token.number and message not in ended:
                    wanted.append((message, verdict))
                    if not isinstance(verdict, Start):
                        ended.add(message)
        return wanted

    def _fail(self, settlements: Sequence[_Settlement], exc: Exception) -> None:
        waiting = [settlement.done for settlement in settlements]
        if self._receiver is not None:
            waiting.append(self._receiver)
        for future in waiting:
            if not future.done():
                future.set_exception(exc)

    def _room(self) -> int:
        if self._closed or self._wanted == 0 or self._receiver is None or self._receiver.done():
            return 0
        if self._prefetch == 0:
            return self._wanted
        return min(self._wanted, self._prefetch - len(self._outstanding))

    def _void(self) -> None:
        """Forget what was taken back from us while we were thought dead."""
        self._outstanding.clear()
        self._claimed.clear()

    async def _sleep(self) -> None:
        """Wait until there may be something to do; whoever waits for messages listens to the bell."""
        self._wake.clear()
        waiting = self._room() > 0
        self._listen(waiting)
        seconds = None
        if waiting:
            poll = self._options.poll_seconds if self._bell is not None else NO_BELL_POLL_SECONDS
            due = self._next_due
            seconds = poll if due is None else max(0.0, min(poll, due - time.time()))
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            self._look = True

    def _listen(self, on: bool) -> None:
        if on and not self._listening and self._bell is not None:
            asyncio.get_running_loop().add_reader(self._bell.fileno(), self._rung)
            self._listening = True
        elif not on and self._listening and self._bell is not None:
            # A busy node does not want to be told: it looks after every batch.
            asyncio.get_running_loop().remove_reader(self._bell.fileno())
            self._listening = False

    def _rung(self) -> None:
        if self._bell is not None:
            self._bell.drain()
        self._look = True
        self._wake.set()

    async def _call(self, call: Callable[[], T]) -> T:
        """Have the driver make a call on the thread, between two visits."""
        if self._closed:
            raise TransportError("This consumer is closed.", retryable=False)
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._calls.append((call, done))
        self._wake.set()
        return await done

    async def _run_call(self) -> None:
        call, done = self._calls.popleft()
        try:
            result = await self._lane.run(call)
        except Exception as exc:  # noqa: BLE001 - handed to whoever made the call
            if not done.done():
                done.set_exception(exc)
        else:
            if not done.done():
                done.set_result(result)

    # --- on the thread -------------------------------------------------------------------------------

    def _enter(self) -> None:
        try:
            self._bell = Bell(self._location.bells, MESSAGES)
        except OSError:
            self._bell = None  # no such sockets here, or a directory that is not ours: poll
        try:
            self._write(self._register)
        except BaseException:
            self._take_down()
            raise

    def _take_down(self) -> None:
        bell, self._bell = self._bell, None
        if bell is not None:
            bell.close()
        self._ringer.close()

    def _register(self, connection: sqlite3.Connection) -> None:
        """Become an owner, the first time or after having been taken for dead."""
        queues = list(self._declared.values())
        for queue in queues:
            routes.declare(connection, queue, final=True)
        bell = self._bell.name if self._bell is not None else None
        owner = leases.register(connection, self._spec.node, self._spec.lease_seconds, bell)
        for queue in queues:
            routes.consume(connection, queue.name, owner)
        self._owner = owner

    def _declare(self, connection: sqlite3.Connection, queue: Queue) -> None:
        routes.declare(connection, queue, final=True)
        routes.consume(connection, queue.name, self._owner)

    def _do(self, turn: _Turn) -> None:
        """Settle and claim in one transaction; take no lock when there is nothing to write."""
        if not turn.verdicts:
            there, due = self._handle.read(lambda connection: leases.look(connection, turn.queues))
            if not there:
                turn.next_due = due
                return
        returned, claimed = self._write(lambda connection: self._transact(connection, turn))
        turn.claimed = [self._delivery(row) for row in claimed]
        if returned:
            self._ringer.ring(MESSAGES)

    def _transact(self, connection: sqlite3.Connection, turn: _Turn) -> tuple[bool, list[leases.Claimed]]:
        turn.voided = not leases.is_alive(connection, self._owner)
        returned = False
        if turn.voided:
            self._register(connection)
        else:
            returned = leases.settle(connection, turn.verdicts)
        claimed = []
        if turn.room > 0:
            claimed = leases.claim(connection, self._owner, turn.queues, turn.room)
            if len(claimed) < turn.room:
                turn.next_due = leases.next_due(connection, turn.queues)
        return returned, claimed

    def _delivery(self, row: leases.Claimed) -> Delivery:
        envelope, defect = unpack_or_defect(row.blob)
        return Delivery(
            envelope=envelope,
            queue=row.queue,
            exchange=row.exchange or "",
            routing_key=row.queue if row.routing_key is None else row.routing_key,
            redelivered=bool(row.flags & leases.REDELIVERED),
            attempt=row.handed,
            token=_Token(row.id, next(self._numbers)),
            defect=defect,
            lost=bool(row.flags & leases.LOST),
        )

    def _renew(self) -> bool:
        """Renew, reap, and return whether we had been taken for dead ourselves."""
        self._handle.reopen_if_replaced()
        dead = self._handle.read(
            lambda connection: leases.dead_owners(connection, self._owner, self._ringer.hangs)
        )

        def work(connection: sqlite3.Connection) -> tuple[bool, int]:
            voided = not leases.renew(connection, self._owner, self._spec.lease_seconds)
            if voided:
                self._register(connection)
            return voided, sum(leases.give_back(connection, owner, died=True) for owner in dead)

        voided, returned = self._write(work)
        if returned:
            self._ringer.ring(MESSAGES)
        return voided

    def _leave(self) -> None:
        try:
            returned = self._write(lambda connection: leases.give_back(connection, self._owner, died=False))
            if returned:
                self._ringer.ring(MESSAGES)
        finally:
            self._take_down()
            self._handle.close()

    def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return self._handle.write(work, self._options.busy_timeout)
        except TimeoutError as exc:
            raise TransportError(
                f"Others kept the embedded broker's file {self._location.path} locked for "
                f"{self._options.busy_timeout:g} s."
            ) from exc
