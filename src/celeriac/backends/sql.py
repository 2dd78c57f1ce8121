"""Results in a relational database, in Celery's tables: ``db+sqlite:///results.db``, ``db+postgresql://…``."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import os
import pickle
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from celeriac.backends.documents import latest
from celeriac.backends.parts import by_chord
from celeriac.backends.polling import PollingListener
from celeriac.backends.shape import shape_of, shaped
from celeriac.backends.spec import BackendSpec
from celeriac.backends.upkeep import Upkeep
from celeriac.backends.waiter import Awaited, Waiter
from celeriac.errors import BackendError, BackendUnreachable, ConfigError, DecodeError
from celeriac.message import Outcome, Part, Record
from celeriac.net.lane import Lane
from celeriac.net.url import mask
from celeriac.states import FAILURE, READY_STATES, RETRY, SUCCESS
from celeriac.timetable import Timetable
from celeriac.tries import tries_from
from celeriac.wire.result import prepare_value, restore_value

try:
    import sqlalchemy as sa
except ImportError as _missing:
    raise ConfigError(
        "Results in a database need SQLAlchemy: pip install 'celeriac[sqlalchemy]' "
        "(or 'celeriac[postgres]' for PostgreSQL)."
    ) from _missing

from celeriac.backends.sql_chords import PartRow, SqlChords
from celeriac.backends.sql_groups import pack_group, unpack_group
from celeriac.backends.sql_tables import (
    EXTENDED_COLUMNS,
    ID_LENGTH,
    Tables,
    insert_new,
    naive_utc,
    plain_text,
    upsert,
)
from celeriac.backends.sql_timetable import SqlTimetable

CONNECT_SECONDS = 5
LOCKED_SECONDS = 8  # how long SQLite waits for another writer, and a thread for a free connection
IDS_PER_QUERY = 500  # SQLite once allowed 999 parameters a statement

# What users write for PostgreSQL means psycopg 3 here; `postgresql+psycopg2://` still means what it says.
_POSTGRES = {"postgres": "postgresql+psycopg", "postgresql": "postgresql+psycopg"}


class _Row(msgspec.Struct, array_like=True):
    """What a record's payload holds: the columns, made where the task ran; user values pickled already."""

    result: bytes | None
    date_done: datetime.datetime
    traceback: str | None
    extended: dict[str, Any] | None = None  # Any: values of columns


_PACK = msgspec.msgpack.Encoder()
_UNPACK = msgspec.msgpack.Decoder(_Row)


class SqlBackend(Awaited):
    """Keeps results in Celery's tables ``celery_taskmeta`` and ``celery_tasksetmeta``.

    Duties: 1. encode where the task ran, store a batch in one transaction; 2. a SUCCESS stays; 3. poll for
    those who wait; 4. count the parts of chords in tables of our own; 5. make the tables, whoever comes
    first. As in Celery, values are pickled whatever the result serializer is: give the database only to those
    who may run code in your processes. Children, groups and stamps of a result are not stored.

    Args:
        spec: Its options know every ``database_…`` setting.

    Raises:
        ConfigError: The URL is no database's, or its driver is not installed.
    """

    persistent = True
    joins_chords = True

    def __init__(self, spec: BackendSpec) -> None:
        self._spec = spec
        self._url = _engine_url(spec)
        self._shown = mask(spec.url if "://" in spec.url else str(spec.options.get("database_url")))
        self._tables = Tables(
            spec.options.get("database_table_names"),
            spec.options.get("database_table_schemas"),
            extended=spec.extended,
        )
        self._chords = SqlChords(self._tables)
        self._upkeep = Upkeep(spec.expires_seconds, self.cleanup)
        self._waiter = Waiter(lambda: PollingListener(self.fetch), tries_from(spec.options))
        self._reset()

    def _reset(self) -> None:
        """Start without connections; in a forked child those of the parent are none of our business."""
        self._pid = os.getpid()
        self._opening = threading.Lock()
        self._engine: sa.Engine | None = None
        self._lane = Lane("celeriac-database")

    # --- results ---

    def encode(
        self, outcome: Outcome, *, reply_to: str | None = None, correlation_id: str | None = None
    ) -> Record:
        """Return the record of an outcome."""
        codecs = self._spec.codecs
        row = _Row(
            result=self._pickled(prepare_value(outcome.state, outcome.result, codecs, self._spec.serializer)),
            date_done=naive_utc(outcome.date_done),
            traceback=None if outcome.traceback is None else plain_text(outcome.traceback),
            extended=self._encode_extended(outcome.extended) if self._spec.extended else None,
        )
        return Record(id=outcome.id, state=outcome.state, payload=_PACK.encode(row))

    def reply_address(self) -> str | None:
        """Return None: results are fetched, not sent."""
        return None

    def store(self, batch: Sequence[Record]) -> None:
        """Write the records in one transaction."""
        if not batch:
            return
        table = self._tables.tasks
        rows = [self._columns(record) for record in latest(batch).values()]
        ends = [row for row in rows if row["status"] != RETRY]
        retries = [row for row in rows if row["status"] == RETRY]
        with self._begin() as connection:  # what stays, stays: see `celeriac.states.stays`
            if ends:
                upsert(connection, table, "task_id", ends, when=table.c.status.is_distinct_from(SUCCESS))
            if retries:
                unready = sa.func.coalesce(table.c.status, RETRY).not_in(sorted(READY_STATES))
                upsert(connection, table, "task_id", retries, when=unready)
        self._upkeep.after_store()

    async def astore(self, batch: Sequence[Record]) -> None:
        """Do the same on a thread of its own."""
        self._here()
        await self._lane.run(self.store, batch)

    def fetch(self, ids: Sequence[str]) -> dict[str, Outcome]:
        """Return what is known of the ids now."""
        return self._select(ids)

    def forget(self, ids: Sequence[str]) -> None:
        """Remove what is stored of the ids."""
        table = self._tables.tasks
        with self._begin() as connection:
            for chunk in _chunks(ids):
                connection.execute(table.delete().where(table.c.task_id.in_(map(self._key, chunk))))

    # --- groups ---

    def save_group(self, group_id: str, result: Any) -> None:  # Any: nested result tuples
        """Keep the shape of a group's results."""
        row = {"taskset_id": group_id, "result": pack_group(result), "date_done": naive_utc(None)}
        with self._begin() as connection:
            upsert(connection, self._tables.groups, "taskset_id", [row])

    def restore_group(self, group_id: str) -> Any | None:  # Any: nested result tuples
        """Return the shape kept by `save_group`, or None."""
        table = self._tables.groups
        with self._read() as connection:
            pickled = connection.scalar(sa.select(table.c.result).where(table.c.taskset_id == group_id))
        return None if pickled is None else unpack_group(pickled, group_id)

    def delete_group(self, group_id: str) -> None:
        """Remove it."""
        table = self._tables.groups
        with self._begin() as connection:
            connection.execute(table.delete().where(table.c.taskset_id == group_id))

    # --- chords ---

    def start_chord(self, chord_id: str, size: int, members: Any) -> None:  # Any: nested result tuples
        """Note how many parts a chord has."""
        if (shape := shape_of(chord_id, members)) is not None:
            self.save_group(chord_id, shape)
        with self._begin() as connection:
            self._chords.start(connection, chord_id, size)

    def chord_part(self, chord_id: str, index: int | None, outcome: Outcome) -> list[Outcome] | None:
        """Note one finished part; return all of them to the one caller that completed the chord.

        The task that completed it gets them again when it is delivered again before `end_chord`: it may have
        died before it could start the body.
        """
        record = self.encode(outcome)
        row = self._part_row(chord_id, index, record.id, record.state, record.payload)
        with self._begin() as connection:
            if self._chords.add_parts(connection, chord_id, [row]) is None:
                return None
            rows = self._chords.parts_of(connection, chord_id)
        found = [self._outcome(row.task_id, row.state, _UNPACK.decode(row.payload)) for row in rows]
        return shaped(self, chord_id, found)

    def encode_part(self, chord_id: str, index: int | None, outcome: Outcome) -> Part:
        """Return a finished part, a success, in the form that `count_parts` takes."""
        payload = self.encode(outcome).payload
        return Part(chord_id=chord_id, task_id=outcome.id, index=index, payload=payload)

    async def count_parts(self, batch: Sequence[Part]) -> list[str]:
        """Note finished parts in one transaction, and return the tasks that have completed their chords."""
        self._here()
        return await self._lane.run(self._count, batch)

    def grow_chord(self, chord_id: str, task_ids: Sequence[str]) -> None:
        """Have a chord wait for more parts."""
        with self._begin() as connection:
            self._chords.add_awaited(connection, chord_id, list(map(self._key, task_ids)))

    def end_chord(self, chord_id: str) -> None:
        """Remove what was kept for a chord."""
        with self._begin() as connection:
            self._chords.end(connection, chord_id)

    def claim(self, task_id: str, copy: str) -> bool:
        """Return whether this copy of a task's message is the first that claims to be run."""
        claims, key = self._tables.claims, self._key(task_id)
        with self._begin() as connection:
            insert_new(connection, claims, {"task_id": key, "copy": copy, "created": naive_utc(None)})
            found = connection.scalar(sa.select(claims.c.copy).where(claims.c.task_id == key))
        self._upkeep.after_store()
        return bool(found == copy)

    # --- the store itself ---

    def timetable(self, owner: str) -> Timetable:
        """See `celeriac.ports.KeepsTimetable`."""
        return SqlTimetable(self._begin, self.close, self._shown, owner)

    def cleanup(self) -> None:
        """Remove what is older than the expiry of results."""
        if not self._spec.expires_seconds:
            return
        now, tables = naive_utc(None), self._tables
        limit = now - datetime.timedelta(seconds=self._spec.expires_seconds)
        chord_limit = now - datetime.timedelta(seconds=self._spec.chord_seconds)
        tasks, groups, claims = tables.tasks, tables.groups, tables.claims
        shapes = sa.select(tables.chords.c.chord_id)  # of headers, some of which are kept among the groups
        with self._begin() as connection:
            self._chords.remove_untouched_since(connection, chord_limit)
            connection.execute(tasks.delete().where(tasks.c.date_done < limit))
            old = (groups.c.date_done < limit) & groups.c.taskset_id.not_in(shapes)
            connection.execute(groups.delete().where(old))
            connection.execute(claims.delete().where(claims.c.created < limit))

    def close(self) -> None:
        """Close the connections of this process."""
        self._here()
        self._lane.close()
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.dispose()

    # --- inside ---

    def _count(self, batch: Sequence[Part]) -> list[str]:
        completing = []
        with self._begin() as connection:
            for chord_id, parts in by_chord(batch).items():
                rows = [
                    self._part_row(chord_id, part.index, part.task_id, SUCCESS, part.payload)
                    for part in parts
                ]
                finisher = self._chords.add_parts(connection, chord_id, rows)
                completing += [part.task_id for part in parts if self._key(part.task_id) == finisher]
        return completing

    def _part_row(
        self, chord_id: str, index: int | None, task_id: str, state: str, payload: bytes
    ) -> PartRow:
        return {
            "chord_id": chord_id,
            "task_id": self._key(task_id),
            "position": index,
            "state": state,
            "payload": payload,
        }

    def _here(self) -> None:
        """Notice that this is a forked child."""
        if self._pid != os.getpid():
            if self._engine is not None:
                self._engine.dispose(close=False)
            self._reset()

    @contextlib.contextmanager
    def _begin(self) -> Iterator[sa.Connection]:
        """Open a transaction."""
        with self._translated(), self._opened().begin() as connection:
            yield connection

    @contextlib.contextmanager
    def _read(self) -> Iterator[sa.Connection]:
        """Open a connection for a single query: no transaction saves two round trips."""
        with self._translated(), self._opened().connect() as connection:
            yield connection.execution_options(isolation_level="AUTOCOMMIT")

    def _opened(self) -> sa.Engine:
        """Return the engine, the tables being there."""
        self._here()
        with self._opening:
            if self._engine is None:
                self._engine = self._open()
            return self._engine

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Speak of failures in our own words."""
        try:
            yield
        except (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.TimeoutError) as exc:
            raise BackendUnreachable(
                f"The result store {self._shown} cannot be used: {_reason(exc)}."
            ) from exc
        except sa.exc.SQLAlchemyError as exc:
            raise BackendError(f"The result store {self._shown} refused: {_reason(exc)}.") from exc

    def _open(self) -> sa.Engine:
        options: dict[str, Any] = {  # Any: SQLAlchemy's options
            "pool_pre_ping": True,
            "pool_recycle": 3600,
            "pool_timeout": LOCKED_SECONDS,
            **(self._spec.options.get("database_engine_options") or {}),
        }
        if self._spec.options.get("database_short_lived_sessions"):
            options["poolclass"] = sa.NullPool
        if options.get("poolclass", sa.QueuePool) is not sa.QueuePool:
            options.pop("pool_timeout")  # which only that one takes
        arguments = {**_connect_arguments(self._url), **options.pop("connect_args", {})}
        try:
            engine = sa.create_engine(self._url, connect_args=arguments, **options)
        except ImportError as exc:
            extra = (
                " (pip install 'celeriac[postgres]')" if self._url.drivername.startswith("postgres") else ""
            )
            raise ConfigError(
                f"result_backend {self._shown!r}: its database driver is not installed: {exc}{extra}."
            ) from exc
        if self._url.get_backend_name() == "sqlite":
            sa.event.listen(engine, "connect", _write_ahead)
        try:
            self._tables.create(engine)
        except BaseException:
            engine.dispose()
            raise
        return engine

    def _columns(self, record: Record) -> dict[str, Any]:  # Any: values of columns
        row = _UNPACK.decode(record.payload)
        columns = {
            "task_id": self._key(record.id),
            "status": record.state,
            "result": row.result,
            "date_done": row.date_done,
            "traceback": row.traceback,
        }
        if self._spec.extended:
            columns |= row.extended or dict.fromkeys(EXTENDED_COLUMNS)
        return columns

    def _select(self, ids: Sequence[str]) -> dict[str, Outcome]:
        table = self._tables.tasks
        found: dict[str, Outcome] = {}
        with self._read() as connection:
            for chunk in _chunks(ids):
                keys = {self._key(task_id): task_id for task_id in chunk}
                query = sa.select(table).where(table.c.task_id.in_(keys))
                for row in connection.execute(query).mappings():
                    columns = {name: row[name] for name in EXTENDED_COLUMNS} if self._spec.extended else None
                    stored = _Row(row["result"], row["date_done"], row["traceback"], columns)
                    task_id = keys[row["task_id"]]
                    found[task_id] = self._outcome(task_id, row["status"], stored)
        return found

    def _key(self, task_id: str) -> str:
        """Return an id as its column takes it: itself, or a digest where it is too long or no plain text."""
        if plain_text(task_id) == task_id and (
            len(task_id) <= ID_LENGTH or self._url.get_backend_name() == "sqlite"
        ):
            return task_id
        return f"celeriac-{hashlib.sha256(task_id.encode('utf-8', 'surrogatepass')).hexdigest()}"

    def _outcome(self, task_id: str, state: str, row: _Row) -> Outcome:
        """Return what a row says; one that cannot be read is a failure that says so."""
        try:
            return self._read_row(task_id, state, row)
        except DecodeError as exc:
            said = type(exc)(
                f"The result of task {task_id} in table {self._tables.tasks.name} of {self._shown} cannot be "
                f"read: {exc}. Was it written by a program whose classes are not here?"
            )
            return Outcome(id=task_id, state=FAILURE, result=said)

    def _read_row(self, task_id: str, state: str, row: _Row) -> Outcome:
        done = row.date_done.replace(tzinfo=datetime.UTC).isoformat() if state in READY_STATES else None
        return Outcome(
            id=task_id,
            state=state,
            result=restore_value(state, self._unpickled(row.result)),
            traceback=row.traceback,
            date_done=done,
            extended=self._decode_extended(row.extended) if row.extended else None,
        )

    def _pickled(self, value: Any) -> bytes:  # Any: the user's value
        pickled: bytes = self._spec.codecs.encode(value, "pickle")[2]
        return pickled

    def _unpickled(self, stored: bytes | None) -> Any:  # Any: the user's value
        if stored is None:
            return None
        codecs = self._spec.codecs
        if stored.startswith(pickle.PROTO):
            kind = codecs.content_type("pickle")
            return codecs.decode(stored, kind, "binary", frozenset({kind}))
        kind = codecs.content_type(self._spec.serializer)  # Celery 5.7 writes it in that
        return codecs.decode(stored, kind, None, self._spec.accept or frozenset({kind}))

    def _encode_extended(self, extended: Mapping[str, Any] | None) -> dict[str, Any]:
        columns = {name: (extended or {}).get(name) for name in EXTENDED_COLUMNS}
        for name in ("name", "worker", "queue"):
            if columns[name] is not None:
                columns[name] = plain_text(str(columns[name]))[:ID_LENGTH]
        for name in ("args", "kwargs"):
            if columns[name] is not None:
                columns[name] = self._spec.codecs.encode(columns[name], self._spec.serializer)[2]
        return columns

    def _decode_extended(self, columns: Mapping[str, Any]) -> dict[str, Any]:
        codecs = self._spec.codecs
        kind = codecs.content_type(self._spec.serializer)
        values = dict(columns)
        for name in ("args", "kwargs"):
            if values[name] is not None:
                values[name] = codecs.decode(values[name], kind, None, self._spec.accept or frozenset({kind}))
        return values


def _engine_url(spec: BackendSpec) -> sa.URL:
    """Return the URL for SQLAlchemy: without ``db+``, with the driver that we install."""
    text = spec.url
    if "://" not in text:  # the bare name "database"
        text = spec.options.get("database_url") or ""
        if not text:
            raise ConfigError(f"result_backend {spec.url!r} needs the setting database_url, or use db+<url>.")
    scheme, _, rest = text.partition("://")
    scheme = scheme.removeprefix("db+").removeprefix("database+")
    try:
        url = sa.make_url(f"{_POSTGRES.get(scheme, scheme)}://{rest}")
        sqlite = url.get_backend_name() == "sqlite"
    except sa.exc.ArgumentError as exc:
        raise ConfigError(f"result_backend {mask(text)!r} is no URL of a database: {exc}.") from exc
    if sqlite and url.database in {None, "", ":memory:"}:
        raise ConfigError(
            f"result_backend {mask(text)!r} would keep results in the memory of a single thread: name a "
            "file, such as db+sqlite:///results.db, or use cache+memory://."
        )
    return url


def _connect_arguments(url: sa.URL) -> dict[str, Any]:  # Any: the drivers' own
    if url.drivername == "postgresql+psycopg":
        # The second bound is for servers that vanish from the network: without it writes wait a quarter hour.
        return {"connect_timeout": CONNECT_SECONDS, "tcp_user_timeout": CONNECT_SECONDS * 1000}
    if url.get_backend_name() == "sqlite":
        return {"timeout": LOCKED_SECONDS}
    return {}


def _write_ahead(connection: Any, record: object) -> None:  # Any: a connection of the driver
    """Let readers and a writer work at the same time; SQLite remembers it in the file.

    The change itself waits for nobody: while others are in the file it is refused, and a later connection
    makes it.
    """
    cursor = connection.cursor()
    with contextlib.suppress(sqlite3.OperationalError):
        cursor.execute("PRAGMA journal_mode=WAL")
    cursor.close()


def _reason(error: sa.exc.SQLAlchemyError) -> str:
    """Return the driver's own words, without SQLAlchemy's page-long frame (and without parameters)."""
    text = str(error.orig) if isinstance(error, sa.exc.DBAPIError) else str(error)
    return mask(text.strip().splitlines()[0] if text.strip() else type(error).__name__)


def _chunks(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    unique = list(dict.fromkeys(ids))
    for start in range(0, len(unique), IDS_PER_QUERY):
        yield unique[start : start + IDS_PER_QUERY]
