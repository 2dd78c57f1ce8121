"""Results in memcached: ``cache+memcached://host:11211/``, several hosts separated by semicolons."""

from __future__ import annotations

import hashlib
import os
import time
import urllib.parse
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

import msgspec

from celeriac.backends.documents import Documents, latest
from celeriac.backends.polling import PollingListener
from celeriac.backends.shape import shape_of, shaped
from celeriac.backends.spec import DAY_SECONDS, BackendSpec
from celeriac.backends.waiter import Awaited, Waiter
from celeriac.errors import BackendError, BackendUnreachable, CodecError, ConfigError, EncodeError
from celeriac.message import Outcome, Record
from celeriac.net.lane import Lane
from celeriac.net.url import mask
from celeriac.states import SUCCESS, stays
from celeriac.tries import tries_from

try:
    from pymemcache.client.base import PooledClient
    from pymemcache.exceptions import MemcacheError, MemcacheUnexpectedCloseError
except ImportError as _missing:
    raise ConfigError("Results in memcached need pymemcache: pip install 'celeriac[memcache]'.") from _missing

P = ParamSpec("P")
R = TypeVar("R")

DEFAULT_PORT = 11211
CONNECT_SECONDS = 3.0
ANSWER_SECONDS = 5.0
KEYS_PER_REQUEST = 200
LONGEST_KEY = 250  # bytes, memcached's own limit
MOST_BYTES = 1_000_000  # of one item; memcached's default limit of 1 MiB, less what it needs itself
LISTS = 64  # that the ids of a chord's parts are spread over: each is an item, and may not become too large
MONTH_SECONDS = 30 * 86400  # from here on memcached takes an expiry for a moment since 1970

_CLIENT_OPTIONS = frozenset({"connect_timeout", "max_pool_size", "no_delay", "socket_keepalive", "timeout"})
_PYLIBMC_OPTIONS = frozenset({"behaviors", "binary"})  # of the library that Celery prefers; nothing to us


class _Part(msgspec.Struct, array_like=True):
    """One finished part of a chord."""

    index: int | None
    task_id: str
    document: bytes


class MemcachedBackend(Awaited):
    """Keeps Celery's documents in one or several memcached servers, until they expire or room is short.

    Duties: 1. give every key its host, the same in all processes; 2. keep a SUCCESS, by compare-and-set
    where another state comes later; 3. poll for those who wait; 4. count the parts of chords by appending
    to a list, which memcached does atomically. memcached forgets when it restarts or is full.

    Args:
        spec: What stands behind ``://`` in its URL are ``host:port`` separated by semicolons; its
            ``options["cache_backend_options"]`` are pymemcache's.

    Raises:
        ConfigError: An option or a port makes no sense.
    """

    persistent = True
    joins_chords = True

    def __init__(self, spec: BackendSpec) -> None:
        self._spec = spec
        self._documents = Documents(spec)
        self._addresses = _addresses(spec)
        self._options = _client_options(spec)
        self._waiter = Waiter(lambda: PollingListener(self.fetch), tries_from(spec.options))
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lane = Lane("celeriac-memcached")
        self._clients = [
            PooledClient(address, default_noreply=False, **self._options) for address in self._addresses
        ]

    # --- results ---

    def encode(
        self, outcome: Outcome, *, reply_to: str | None = None, correlation_id: str | None = None
    ) -> Record:
        """Return the record of an outcome; one that memcached would not take is refused here already."""
        record = self._documents.encode(outcome)
        if len(record.payload) > MOST_BYTES:
            raise EncodeError(
                f"The result of task {outcome.id} is too large for memcached: {len(record.payload)} bytes."
            )
        return record

    def reply_address(self) -> str | None:
        """Return None: results are fetched, not sent."""
        return None

    def store(self, batch: Sequence[Record]) -> None:
        """Write the records: two round trips per host for those that succeeded, more for others."""
        by_key = {self._key(self._documents.task_key(r.id)): r for r in latest(batch).values()}
        for client, keys in self._by_client(by_key):
            there = self._get_many(client, keys)
            left = {key: by_key[key] for key in keys if not self._stays(by_key[key], there.get(key))}
            succeeded = {key: record.payload for key, record in left.items() if record.state == SUCCESS}
            if succeeded:
                self._call(client.set_many, succeeded, expire=self._expiry())
            for key, record in left.items():
                if record.state != SUCCESS:
                    self._store_unless_succeeded(client, key, record)

    async def astore(self, batch: Sequence[Record]) -> None:
        """Do the same on a thread of its own."""
        self._here()
        await self._lane.run(self.store, batch)

    def fetch(self, ids: Sequence[str]) -> dict[str, Outcome]:
        """Return what is known of the ids now."""
        by_key = {self._key(self._documents.task_key(task_id)): task_id for task_id in ids}
        found = {}
        for client, keys in self._by_client(by_key):
            for key, document in self._get_many(client, keys).items():
                found[by_key[key]] = self._documents.read(by_key[key], document)
        return found

    def forget(self, ids: Sequence[str]) -> None:
        """Remove what is stored of the ids."""
        for client, keys in self._by_client([self._key(self._documents.task_key(one)) for one in ids]):
            self._call(client.delete_many, keys)

    # --- groups ---

    def save_group(self, group_id: str, result: Any) -> None:  # Any: nested result tuples
        """Keep the shape of a group's results."""
        self._save_group(group_id, result, self._expiry())

    def restore_group(self, group_id: str) -> Any | None:  # Any: nested result tuples
        """Return the shape kept by `save_group`, or None."""
        key = self._key(self._documents.group_key(group_id))
        document = self._call(self._client(key).get, key)
        return None if document is None else self._documents.decode_group(group_id, document)

    def delete_group(self, group_id: str) -> None:
        """Remove it."""
        key = self._key(self._documents.group_key(group_id))
        self._call(self._client(key).delete, key)

    # --- chords: all keys of one live on one host, chosen by the chord's id ---

    def start_chord(self, chord_id: str, size: int, members: Any) -> None:  # Any: nested result tuples
        """Note how many parts a chord has."""
        if (shape := shape_of(chord_id, members)) is not None:
            self._save_group(chord_id, shape, self._chord_expiry())
        self._call(
            self._client(chord_id).set,
            self._chord_key(chord_id, "size"),
            str(size).encode(),
            expire=self._chord_expiry(),
        )

    def chord_part(self, chord_id: str, index: int | None, outcome: Outcome) -> list[Outcome] | None:
        """Note one finished part; return all of them to the one caller that completed the chord.

        A part is written, then listed, then counted, each of which may happen twice: the lists are looked at
        only when the counter says that all can be there, and only distinct ids count. Whoever counts last
        sees all of them. The task that completed the chord gets the parts again when it is delivered again
        before `end_chord`: it may have died before it could start the body.
        """
        client = self._client(chord_id)
        part = msgspec.msgpack.encode(_Part(index, outcome.id, self.encode(outcome).payload))
        self._call(client.add, self._part_key(chord_id, outcome.id), part, expire=self._chord_expiry())
        entry = _entry(outcome.id)
        number = int.from_bytes(hashlib.blake2b(entry, digest_size=1).digest()) % LISTS
        self._append(client, self._chord_key(chord_id, f"list{number}"), entry)
        counted = self._count(client, self._chord_key(chord_id, "count"))
        size = self._size(client, chord_id)
        if size is None or counted < size:
            return None
        ids = self._listed(client, chord_id)
        if len(ids) < size or not self._finishes(client, chord_id, outcome.id):
            return None
        return shaped(self, chord_id, self._parts(client, chord_id, ids))

    def grow_chord(self, chord_id: str, task_ids: Sequence[str]) -> None:
        """Have a chord wait for more parts: some 20,000 at most, as their ids are one item."""
        client = self._client(chord_id)
        if self._call(client.get, self._chord_key(chord_id, "finisher")) is None:
            entries = b"".join(map(_entry, task_ids))
            self._append(client, self._chord_key(chord_id, "added"), entries)

    def end_chord(self, chord_id: str) -> None:
        """Remove what was kept for a chord."""
        client = self._client(chord_id)
        keys = [self._chord_key(chord_id, name) for name in ("size", "added", "count", "finisher")]
        keys += self._list_keys(chord_id)
        keys += [self._part_key(chord_id, task_id) for task_id in self._listed(client, chord_id)]
        for start in range(0, len(keys), KEYS_PER_REQUEST):
            self._call(client.delete_many, keys[start : start + KEYS_PER_REQUEST])

    def claim(self, task_id: str, copy: str) -> bool:
        """Return whether this copy of a task's message is the first that claims to be run."""
        client, key = self._client(task_id), self._key(f"celeriac-claim-{task_id}")
        keep = _memcached_expiry(self._spec.expires_seconds or DAY_SECONDS)
        if self._call(client.add, key, copy.encode(), expire=keep):
            return True
        return bool(self._call(client.get, key) == copy.encode())

    # --- the store itself ---

    def cleanup(self) -> None:
        """Do nothing: memcached forgets what has expired by itself."""

    def close(self) -> None:
        """Close the connections of this process."""
        self._here()
        self._lane.close()
        for client in self._clients:
            client.close()

    # --- inside ---

    def _here(self) -> None:
        """Notice that this is a forked child, which must not use its parent's connections."""
        if self._pid != os.getpid():
            self._reset()

    def _client(self, key: str) -> PooledClient:
        """Return the client of the host that a key belongs to (rendezvous hashing)."""
        self._here()
        if len(self._clients) == 1:
            return self._clients[0]
        weights = [
            hashlib.blake2b(f"{host}:{port} {key}".encode(), digest_size=8).digest()
            for host, port in self._addresses
        ]
        return self._clients[weights.index(max(weights))]

    def _by_client(self, keys: Iterable[str]) -> Iterator[tuple[PooledClient, list[str]]]:
        """Yield each client with its keys, in portions that a request may have."""
        portions: defaultdict[int, list[str]] = defaultdict(list)
        clients = {}
        for key in keys:
            client = self._client(key)
            clients[id(client)] = client
            portions[id(client)].append(key)
        for number, mine in portions.items():
            for start in range(0, len(mine), KEYS_PER_REQUEST):
                yield clients[number], mine[start : start + KEYS_PER_REQUEST]

    def _call(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the driver, once more when its connection was stale; all that we do may be done twice."""
        try:
            try:
                return call(*args, **kwargs)
            except (MemcacheUnexpectedCloseError, ConnectionError):
                return call(*args, **kwargs)
        except (MemcacheUnexpectedCloseError, OSError) as exc:
            raise BackendUnreachable(
                f"The result store {mask(self._spec.url)} cannot be used: {exc or type(exc).__name__}."
            ) from exc
        except MemcacheError as exc:
            said = (
                exc.args[0].decode(errors="replace") if exc.args and isinstance(exc.args[0], bytes) else exc
            )
            raise BackendError(f"The result store {mask(self._spec.url)} refused: {said}.") from exc

    def _get_many(self, client: PooledClient, keys: Sequence[str]) -> Mapping[str, bytes]:
        found: dict[str, bytes] = {}
        for start in range(0, len(keys), KEYS_PER_REQUEST):
            found |= self._call(client.get_many, keys[start : start + KEYS_PER_REQUEST])
        return found

    def _store_unless_succeeded(self, client: PooledClient, key: str, record: Record) -> None:
        """Write a state other than SUCCESS: never over a stronger one that came after we had looked."""
        while True:
            there, mark = self._call(client.gets, key)
            if there is None:
                written = self._call(client.add, key, record.payload, expire=self._expiry())
            elif self._stays(record, there):
                return
            else:
                written = self._call(client.cas, key, record.payload, mark, expire=self._expiry())
            if written:
                return

    def _stays(self, record: Record, document: bytes | None) -> bool:
        """Return whether a document that is there is stronger than a record."""
        if document is None:
            return False
        try:
            return stays(self._documents.decode(record.id, document).state, record.state)
        except CodecError:
            return False  # what nobody can read may be overwritten

    def _save_group(self, group_id: str, result: Any, expire: int) -> None:  # Any: nested result tuples
        key = self._key(self._documents.group_key(group_id))
        self._call(self._client(key).set, key, self._documents.encode_group(result), expire=expire)

    def _append(self, client: PooledClient, key: str, data: bytes) -> None:
        if not self._call(client.append, key, data):
            self._call(client.add, key, b"", expire=self._chord_expiry())
            self._call(client.append, key, data)

    def _count(self, client: PooledClient, key: str) -> int:
        """Add one to a counter and return what it is then."""
        found = self._call(client.incr, key, 1)
        if found is None:
            self._call(client.add, key, b"0", expire=self._chord_expiry())
            found = self._call(client.incr, key, 1)
        return int(found or 0)

    def _size(self, client: PooledClient, chord_id: str) -> int | None:
        """Return how many parts a chord waits for, those that it has grown by included."""
        size, added = (self._chord_key(chord_id, name) for name in ("size", "added"))
        found = self._get_many(client, [size, added])
        return None if size not in found else int(found[size]) + len(set(found.get(added, b"").split()))

    def _list_keys(self, chord_id: str) -> list[str]:
        return [self._chord_key(chord_id, f"list{number}") for number in range(LISTS)]

    def _listed(self, client: PooledClient, chord_id: str) -> list[str]:
        """Return the ids of the parts that have come."""
        lists = self._get_many(client, self._list_keys(chord_id)).values()
        entries = dict.fromkeys(entry for entries in lists for entry in entries.split())
        return [urllib.parse.unquote(entry.decode()) for entry in entries]

    def _finishes(self, client: PooledClient, chord_id: str, task_id: str) -> bool:
        """Whether that task is the one to go on with a complete chord: the first that says so."""
        key = self._chord_key(chord_id, "finisher")
        if self._call(client.add, key, task_id.encode(), expire=self._chord_expiry()):
            return True
        return bool(self._call(client.get, key) == task_id.encode())

    def _parts(self, client: PooledClient, chord_id: str, ids: Sequence[str]) -> list[Outcome]:
        found = self._get_many(client, [self._part_key(chord_id, one) for one in ids])
        if len(found) < len(ids):
            raise BackendError(
                f"Chord {chord_id}: memcached has dropped {len(ids) - len(found)} of {len(ids)} parts to "
                "make room; give it more memory (-m)."
            )
        parts = [msgspec.msgpack.decode(data, type=_Part) for data in found.values()]
        parts.sort(key=lambda part: (part.index is None, part.index or 0))
        return [self._documents.read(part.task_id, part.document) for part in parts]

    def _chord_key(self, chord_id: str, name: str) -> str:
        return self._key(f"celeriac-chord-{name}-{chord_id}")

    def _part_key(self, chord_id: str, task_id: str) -> str:
        return self._key(f"celeriac-chord-part-{chord_id}-{task_id}")

    @staticmethod
    def _key(key: str) -> str:
        """Return the key itself, or its digest where memcached allows no such key (ids are the users')."""
        if len(key) <= LONGEST_KEY and key.isascii() and key.isprintable() and " " not in key:
            return key
        return f"celeriac-{hashlib.sha256(key.encode()).hexdigest()}"

    def _expiry(self) -> int:
        return _memcached_expiry(self._spec.expires_seconds or 0)

    def _chord_expiry(self) -> int:
        return _memcached_expiry(self._spec.chord_seconds)


def _entry(task_id: str) -> bytes:
    """Return an id as it is appended to lists of them."""
    return urllib.parse.quote(task_id, safe="").encode() + b"\n"


def _memcached_expiry(seconds: float) -> int:
    """Return seconds as memcached takes them; 0 keeps for ever, past a month it is a moment."""
    whole = max(1, round(seconds)) if seconds else 0
    return whole if whole <= MONTH_SECONDS else int(time.time()) + whole


def _addresses(spec: BackendSpec) -> list[tuple[str, int]]:
    found = []
    for one in spec.url.partition("://")[2].strip("/").split(";"):
        host, colon, port = one.rpartition(":")
        if not colon:
            host, port = one, str(DEFAULT_PORT)
        if not port.isdigit():
            raise ConfigError(f"result_backend {mask(spec.url)!r}: {one!r} has no number as its port.")
        found.append((host.strip("[]") or "localhost", int(port)))
    return found


def _client_options(spec: BackendSpec) -> dict[str, Any]:  # Any: pymemcache's options
    given = spec.options.get("cache_backend_options") or {}
    unknown = set(given) - _CLIENT_OPTIONS - _PYLIBMC_OPTIONS
    if unknown:
        raise ConfigError(
            f"cache_backend_options does not know {', '.join(sorted(unknown))}; "
            f"it takes {', '.join(sorted(_CLIENT_OPTIONS))}."
        )
    ours = {"connect_timeout": CONNECT_SECONDS, "timeout": ANSWER_SECONDS, "no_delay": True}
    return {**ours, **{name: value for name, value in given.items() if name in _CLIENT_OPTIONS}}
