"""What a consumer of the embedded broker does in the file; all of it on the consumer's own thread."""

from __future__ import annotations

import itertools
import logging
import sqlite3
from collections.abc import Callable
from typing import TypeVar

import msgspec

from celeriac.clock import Clock
from celeriac.errors import TransportError
from celeriac.message import Delivery, Verdict
from celeriac.net.doorbell import Bell, Ringer
from celeriac.ports import ConsumeSpec
from celeriac.queues import Queue
from celeriac.transports import sqlite_graveyard as graveyard
from celeriac.transports import sqlite_leases as leases
from celeriac.transports import sqlite_routes as routes
from celeriac.transports.blob import unpack_or_defect
from celeriac.transports.sqlite_file import FileOptions, Handle, Location, give_back_space
from celeriac.transports.sqlite_producer import MESSAGES

logger: logging.Logger = logging.getLogger(__name__)

T = TypeVar("T")


class Token(msgspec.Struct, frozen=True):
    """Which delivery of which message."""

    message: int
    number: int  # the consumer's own count: a message that comes twice has two


class Turn(msgspec.Struct):
    """What one visit to the file is to do, and what came of it."""

    verdicts: list[tuple[int, Verdict]]
    room: int  # how many messages to claim; 0 = none
    queues: tuple[str, ...]  # in the order of their turns
    likely: bool = False  # the last claim found as many as it wanted
    claimed: list[Delivery] = []
    next_due: float | None = None  # when a parked message is due, if there was too little to claim
    voided: bool = False  # we had been taken for dead: everything outstanding has been taken back


class Visitor:
    """Carries out turns in the file, as one owner of leases.

    Args:
        location: The broker's file.
        handle: A connection of its own.
        options: The file's options.
        spec: Who consumes, and on which terms.
        clock: What tells when leases end and parked messages are due.
    """

    def __init__(
        self, location: Location, handle: Handle, options: FileOptions, spec: ConsumeSpec, clock: Clock
    ) -> None:
        self.bell: Bell | None = None
        self._location = location
        self._handle = handle
        self._wait_seconds = options.busy_timeout
        self._clock = clock
        self._most_letters = options.dead_letter_limit
        self._spec = spec
        self._declared = {queue.name: queue for queue in spec.queues}
        self._ringer = Ringer(location.bells)
        self._owner = 0
        self._numbers = itertools.count(1)

    def enter(self) -> None:
        """Declare the queues, hang up a bell and become an owner.

        Raises:
            BrokerUnreachable: The file cannot be opened.
        """
        try:
            self._handle.read(lambda connection: None)  # makes the folder, when it is ours
            try:
                self.bell = Bell(self._location.bells, MESSAGES)
            except OSError:
                self.bell = None  # no such sockets here, or a directory that is not ours: poll
            self._write(self._register)
            self.renew()  # a worker that was killed and started again takes back its own at once
        except BaseException:
            self._let_go()
            raise

    def visit(self, turn: Turn) -> None:
        """Settle and claim in one transaction; take no lock when there is nothing to write."""
        if not turn.verdicts and not turn.likely:
            there, turn.next_due = self._handle.read(
                lambda connection: leases.look(connection, turn.queues, self._clock.time())
            )
            if not there:
                return
        returned, claimed = self._write(lambda connection: self._transact(connection, turn))
        turn.claimed = [self._delivery(row) for row in claimed]
        if returned:
            self._ringer.ring(MESSAGES)

    def renew(self) -> bool:
        """Renew our leases and take back those of the dead; return whether we were thought dead ourselves."""
        if self._handle.reopen_if_replaced():
            logger.warning(
                "The embedded broker's file %s was removed or replaced: what was in it is out of reach; "
                "node %s goes on with what is there now",
                self._location.path,
                self._spec.node,
            )
        dead = self._handle.read(
            lambda connection: leases.dead_owners(
                connection, self._owner, self._clock.monotonic(), self._ringer.hangs
            )
        )

        def work(connection: sqlite3.Connection) -> tuple[bool, int]:
            voided = not leases.renew(connection, self._owner, self._lease_end())
            if voided:
                self._register(connection)
            give_back_space(connection)
            return voided, sum(leases.give_back(connection, owner, died=True) for owner in dead)

        voided, returned = self._write(work)
        if returned:
            self._ringer.ring(MESSAGES)
        return voided

    def add_queue(self, queue: Queue) -> None:
        """Declare one more queue, and read it."""

        def work(connection: sqlite3.Connection) -> None:
            routes.declare(connection, queue, final=True)
            routes.consume(connection, queue.name, self._owner)

        self._write(work)
        self._declared[queue.name] = queue

    def cancel_queue(self, name: str) -> None:
        """Read a queue no more."""
        self._write(lambda connection: routes.unconsume(connection, self._owner, name))
        self._declared.pop(name, None)

    def leave(self) -> None:
        """Hand back what was not started, and let go of the file."""
        try:
            if self._write(lambda connection: leases.give_back(connection, self._owner, died=False)):
                self._ringer.ring(MESSAGES)
        finally:
            self._let_go()

    def _let_go(self) -> None:
        bell, self.bell = self.bell, None
        if bell is not None:
            bell.close()
        self._ringer.close()
        self._handle.close()

    def _lease_end(self) -> float:
        return self._clock.monotonic() + self._spec.lease_seconds

    def _register(self, connection: sqlite3.Connection) -> None:
        """Become an owner, the first time or after having been taken for dead."""
        for queue in self._declared.values():
            routes.declare(connection, queue, final=True)
        bell = self.bell.name if self.bell is not None else None
        owner = leases.register(connection, self._spec.node, self._lease_end(), bell)
        for name in self._declared:
            routes.consume(connection, name, owner)
        self._owner = owner

    def _transact(self, connection: sqlite3.Connection, turn: Turn) -> tuple[bool, list[leases.Claimed]]:
        turn.voided = not leases.is_alive(connection, self._owner)
        returned = False
        if turn.voided:
            self._register(connection)
        else:
            graveyard.bury(connection, turn.verdicts, self._spec.node, self._most_letters)
            returned = leases.settle(connection, turn.verdicts)
        claimed = []
        if turn.room > 0:
            claimed = leases.claim(connection, self._owner, turn.queues, turn.room, self._clock.time())
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
            token=Token(row.id, next(self._numbers)),
            defect=defect,
            lost=bool(row.flags & leases.LOST),
        )

    def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return self._handle.write(work, self._wait_seconds)
        except TimeoutError as exc:
            raise TransportError(
                f"Others kept the embedded broker's file {self._location.path} locked for "
                f"{self._wait_seconds:g} s."
            ) from exc
