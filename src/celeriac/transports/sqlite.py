"""The embedded broker: queues in a SQLite file, for as many processes as one machine has.

No server: whoever sends commits to the file, rings the doorbells beside it, and whoever waits claims.
"""

from __future__ import annotations

import importlib
import sqlite3
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from celeriac.bursts import Bursts
from celeriac.clock import Clock, SystemClock
from celeriac.errors import BrokerUnreachable, CeleriacError, TransportError
from celeriac.locks import Locks
from celeriac.message import Delivery
from celeriac.net.doorbell import Ringer
from celeriac.net.url import parse
from celeriac.pauses import Pauses
from celeriac.permits import Permits
from celeriac.ports import Caps, ConsumeSpec, Fanout
from celeriac.revocations import Revocations
from celeriac.timetable import Timetable
from celeriac.transports import sqlite_leases as leases
from celeriac.transports import sqlite_routes as routes
from celeriac.transports.sqlite_file import Handle, Location, file_options, locate
from celeriac.transports.sqlite_finder import oldest, parked, whereabouts
from celeriac.transports.sqlite_graveyard import SqliteGraveyard
from celeriac.transports.sqlite_producer import MESSAGES, SqliteProducer

if TYPE_CHECKING:
    from celeriac.transports.sqlite_consumer import SqliteConsumer

CAPS = Caps(
    native_delay=True,
    leases=True,
    searchable=True,
    permits=True,
    revocations=True,
    timetable=True,
    once=True,
    ages=True,
    rounds=True,
)
T = TypeVar("T")
_NOBODY = 0  # no owner has this number


class _Part:
    """What has tables of its own in the broker's file, `celeriac.transports.sqlite_timetable.Database`."""

    def __init__(self, handle: Handle, busy_seconds: float) -> None:
        self._handle = handle
        self._busy_seconds = busy_seconds

    def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return self._handle.write(work, self._busy_seconds)
        except TimeoutError as exc:
            raise TransportError(f"The timetable of periodic tasks is out of reach: {exc}") from exc

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return self._handle.read(work)

    def close(self) -> None:
        self._handle.close()


def _failed(text: str) -> CeleriacError:
    return TransportError(text)


class SqliteTransport:
    """The embedded broker at one file.

    Args:
        url: ``sqlite://``, ``sqlite:///relative.db`` or ``sqlite:////absolute.db``.
        options: ``synchronous`` (full, normal, off: what publishing waits for), ``busy_timeout``,
            ``dead_letter_limit`` (per queue), ``reserve_bytes`` (of the disk, left for workers) and
            ``poll_seconds``, here or in the URL's query; ``app_name`` names the default file; ``clock``
            (`celeriac.clock.Clock`) is for tests.

    Raises:
        ConfigError: The URL or an option is wrong.
    """

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:  # Any: transport options
        parts = parse(url)
        self.caps = CAPS
        self.location: Location = locate(parts, options.get("app_name"))
        self.address: str = str(self.location.path)
        self._options = file_options(parts, options)
        self._clock: Clock = options.get("clock") or SystemClock()
        self._admin = self._handle("normal")

    def producer(self) -> SqliteProducer:
        """Return a producer; it opens the file when it first sends."""
        return SqliteProducer(
            self.location, self._handle(self._options.synchronous), self._options.reserve_bytes, self._clock
        )

    async def consumer(self, spec: ConsumeSpec) -> SqliteConsumer:
        """Declare the queues and return their consumer.

        Raises:
            BrokerUnreachable: The file cannot be opened.
        """
        # Only nodes consume, and asyncio is half of what a client would have to load.
        module = importlib.import_module("celeriac.transports.sqlite_consumer")
        # A consumer that forgets its last moments in a power failure only delivers again.
        consumer: SqliteConsumer = module.SqliteConsumer(
            self.location, self._handle("normal"), self._options, spec, self._clock
        )
        await consumer.open()
        return consumer

    def fanout(self) -> Fanout:
        """Return the way to send and hear broadcasts; it opens the file when it is first used."""
        module = importlib.import_module("celeriac.transports.sqlite_fanout")  # as for the consumer
        fanout: Fanout = module.SqliteFanout(self.location, self._handle("off"), self._options)
        return fanout

    def purge(self, queue: str) -> int:
        """Throw away what waits in a queue, parked messages included."""
        try:
            return self._admin.write(lambda c: routes.purge(c, queue), self._options.busy_timeout)
        except TimeoutError as exc:
            raise TransportError(f"Queue {queue!r} was not purged: {exc}") from exc

    def size(self, queue: str) -> int:
        """Return how many messages wait in a queue, parked ones included."""
        return self._count(queue, "ready", "keyed", "parked")

    def ready(self, queue: str) -> int:
        """See `celeriac.ports.Transport`."""
        return self._count(queue, "ready", "keyed")

    def oldest(self, queue: str) -> float | None:
        """See `celeriac.ports.Transport`."""
        return self._admin.read(lambda connection: oldest(connection, queue, self._clock.time()))

    def parked(self, queue: str, limit: int) -> list[tuple[Delivery, float]]:
        """See `celeriac.ports.Transport`."""
        return self._admin.read(lambda connection: parked(connection, queue, limit))

    def reap(self) -> int:
        """See `celeriac.ports.Transport`; what had begun goes back too: a worker tells that it is lost."""
        ringer = Ringer(self.location.bells)
        try:
            dead = self._admin.read(
                lambda c: leases.dead_owners(c, _NOBODY, self._clock.monotonic(), ringer.hangs)
            )
            count = self._admin.write(
                lambda c: sum(leases.give_back(c, owner, died=True) for owner in dead),
                self._options.busy_timeout,
            )
            if count:
                ringer.ring(MESSAGES)
        except TimeoutError as exc:
            raise TransportError(f"Nothing was taken over from dead workers: {exc}") from exc
        finally:
            ringer.close()
        return count

    def graveyard(self) -> SqliteGraveyard:
        """Return the dead letters."""
        return SqliteGraveyard(self.location, self._admin, self._options.busy_timeout)

    def permits(self) -> Permits:
        """Return the permits of all nodes of the machine."""
        module = importlib.import_module("celeriac.transports.sqlite_permits")
        handle = self._handle("normal")
        permits: Permits = module.SqlitePermits(handle, self._options.busy_timeout, self._clock)
        return permits

    def locks(self) -> Locks:
        """Return the locks of all clients and nodes of the machine."""
        module = importlib.import_module("celeriac.transports.sqlite_locks")
        locks: Locks = module.SqliteLocks(self._handle("normal"), self._options.busy_timeout, self._clock)
        return locks

    def bursts(self) -> Bursts:
        """Return the bursts of all clients and nodes of the machine."""
        module = importlib.import_module("celeriac.transports.sqlite_bursts")
        bursts: Bursts = module.SqliteBursts(self._handle("normal"), self._options.busy_timeout, self._clock)
        return bursts

    def revocations(self) -> Revocations:
        """Return what the nodes of the machine shall not run."""
        module = importlib.import_module("celeriac.transports.sqlite_revocations")
        kept: Revocations = module.SqliteRevocations(self._admin, self._options.busy_timeout, self._clock)
        return kept

    def timetable(self, owner: str) -> Timetable:
        """Return the timetable of all schedulers of the machine."""
        module = importlib.import_module("celeriac.transports.sqlite_timetable")
        database = _Part(self._handle("normal"), self._options.busy_timeout)
        timetable: Timetable = module.SqliteTimetable(database, self.address, owner)
        return timetable

    def pauses(self) -> Pauses:
        """Return what remembers paused queues."""
        module = importlib.import_module("celeriac.transports.sqlite_pauses")
        pauses: Pauses = module.SqlitePauses(self._handle("full"), self._options.busy_timeout)
        return pauses

    def whereabouts(self, task_id: str) -> str | None:
        """Look for a task's message in the file; reads all that wait, 1 ms for some thousand."""
        return self._admin.read(lambda connection: whereabouts(connection, task_id))

    def close(self) -> None:
        """Close the connection for administration."""
        self._admin.close()

    def _count(self, queue: str, *tables: str) -> int:
        counts = " + ".join(f"(SELECT count(*) FROM {table} WHERE queue = :queue)" for table in tables)  # noqa: S608
        row = self._admin.read(lambda c: c.execute(f"SELECT {counts}", {"queue": queue}).fetchone())
        count: int = row[0]
        return count

    def _handle(self, synchronous: str) -> Handle:
        return Handle(self.location, synchronous=synchronous, unreachable=BrokerUnreachable, failed=_failed)
