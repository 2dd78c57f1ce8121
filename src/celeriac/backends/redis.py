"""Results on Redis: Celery's keys, documents and channels, so that real clients and workers share them."""

from __future__ import annotations

import contextlib
import functools
import importlib
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from celeriac.backends.documents import Documents, latest
from celeriac.backends.parts import by_chord
from celeriac.backends.redis_listener import RedisListener
from celeriac.backends.redis_scripts import CHORD_PART, CHORD_PARTS, GROW_CHORD, REPLACE, STORE
from celeriac.backends.shape import Shape, in_shape, shape_of
from celeriac.backends.spec import DAY_SECONDS, BackendSpec
from celeriac.backends.waiter import Awaited, Waiter
from celeriac.errors import BackendError, BackendUnreachable, CodecError
from celeriac.message import Outcome, Part, Record
from celeriac.net.alarm import Alarm
from celeriac.net.redis_link import (
    ConnectionLost,
    Links,
    RedisFailure,
    ReplyError,
    checked,
    pack,
)
from celeriac.net.redis_script import Script
from celeriac.net.redis_servers import servers
from celeriac.net.url import mask
from celeriac.states import SUCCESS, stays
from celeriac.tries import tries_from
from celeriac.wire.result import pack_part, unpack_part

_PATIENCE_SECONDS: Final = 5.0  # for connecting and one answer
_AT_ONCE: Final = 500  # keys in one command: it must not hold up the server for long
_TRIES: Final = 20  # at replacing a document that others keep changing
_SEPARATORS: Final = (":", "_", "-", ".")  # a key prefix that ends otherwise gets one


class RedisBackend(Awaited):
    """Keeps results on a Redis server and wakes whoever waits for them.

    Duties: 1. write and publish in one script per batch, never over a SUCCESS; 2. wait on one connection,
    subscribed only while somebody waits; 3. count the parts of chords in Celery's own keys, so that workers
    of both kinds may share a chord.

    Args:
        spec: Its options may have ``global_keyprefix``, ``result_chord_ordered``, those of the connection and
            the ``redis_…`` settings.
    """

    persistent = True
    joins_chords = True

    def __init__(self, spec: BackendSpec) -> None:
        options = _options(spec.options)
        self._spec = spec
        self._shown = mask(spec.url)
        self._servers = servers(spec.url, options)
        self._links = Links(self._servers)
        self._documents = Documents(msgspec.structs.replace(spec, options=options))
        self._ordered = bool(options.get("result_chord_ordered", True))
        self._keep_seconds = max(math.ceil(spec.expires_seconds), 1) if spec.expires_seconds else 0
        self._keep_chord_seconds = math.ceil(spec.chord_seconds)
        self._streams: Any = None  # Any: Streams; who only waits and fetches does without asyncio
        self._streams_pid = 0
        self._waiter = Waiter(self._listen, tries_from(options))
        self._alarm: Alarm | None = None  # two descriptors; kept, as making it would cost every wait 20 µs
        self._alarm_pid = 0

    # --- results ---

    def encode(
        self, outcome: Outcome, *, reply_to: str | None = None, correlation_id: str | None = None
    ) -> Record:
        """Return the record of an outcome."""
        return self._documents.encode(outcome)

    def reply_address(self) -> str | None:
        """Return None: results are published on channels of their own."""
        return None

    def store(self, batch: Sequence[Record]) -> None:
        """Write the records and tell who waits, in one round trip."""
        records = list(latest(batch).values())
        if records:
            with self._translated("storing results"):
                data, count, others = self._to_store(records)
                answers = checked(self._ask(data, count)) if count else []
                others += _taken(records, answers)
                if others:
                    for position in self._run(STORE, *self._to_script(others)):
                        self._replace(others[position - 1])

    async def astore(self, batch: Sequence[Record]) -> None:
        """Do the same on a connection of the loop."""
        records = list(latest(batch).values())
        if not records:
            return
        with self._translated("storing results"):
            stream = await self._loop_streams().get()
            data, count, others = self._to_store(records)
            answers = checked(await stream.call(data, count)) if count else []
            others += _taken(records, answers)
            if not others:
                return
            command = STORE.call(*self._to_script(others))
            [unsure] = await stream.call(command, 1)
            if _unknown_script(unsure):
                [_, unsure] = await stream.call(STORE.load() + command, 2)
            checked([unsure])
        if unsure:  # documents of others, or not in JSON: as rare as it is slow
            again = [others[position - 1] for position in unsure]
            await importlib.import_module("asyncio").to_thread(self._replace_all, again)

    def fetch(self, ids: Sequence[str]) -> dict[str, Outcome]:
        """Return what is known of the ids now."""
        found = {}
        with self._translated("fetching results"):
            for start in range(0, len(ids), _AT_ONCE):
                some = ids[start : start + _AT_ONCE]
                documents = self._call(pack(("MGET", *map(self._documents.task_key, some))))
                for task_id, document in zip(some, documents, strict=True):
                    if document is not None:
                        found[task_id] = self._documents.read(task_id, document)
        return found

    def forget(self, ids: Sequence[str]) -> None:
        """Remove what is stored of the ids."""
        self._delete([self._documents.task_key(task_id) for task_id in ids])

    # --- groups ---

    def save_group(self, group_id: str, result: Shape) -> None:
        """Keep the shape of a group's results."""
        document = self._documents.encode_group(result)
        self._set(self._documents.group_key(group_id), document, self._keep_seconds)

    def restore_group(self, group_id: str) -> Shape | None:
        """Return the shape kept by `save_group`, or None."""
        with self._translated("fetching a group"):
            document = self._call(pack(("GET", self._documents.group_key(group_id))))
        return None if document is None else self._documents.decode_group(group_id, document)

    def delete_group(self, group_id: str) -> None:
        """Remove it."""
        self._delete([self._documents.group_key(group_id)])

    # --- chords ---

    def start_chord(self, chord_id: str, size: int, members: Shape) -> None:
        """Note how many parts a chord has; of a header with groups inside also its shape."""
        *_, size_key, _, _, shape_key = self._chord_keys(chord_id)
        if (shape := shape_of(chord_id, members)) is not None:
            self._set(shape_key, self._documents.encode_group(shape), self._keep_chord_seconds)
        self._set(size_key, str(size).encode(), self._keep_chord_seconds)

    def chord_part(self, chord_id: str, index: int | None, outcome: Outcome) -> list[Outcome] | None:
        """Note one finished part; return all of them to the one caller that completed the chord.

        Raises:
            EncodeError: The result has no form in the serializer.
        """
        spec = self._spec
        score, payload, seen, claim = _entered(self.encode_part(chord_id, index, outcome))
        keep, kind = self._how_to_count()
        arguments = [score, payload, seen, keep, claim, kind]
        with self._translated("counting a part of a chord"):
            found = self._run(CHORD_PART, self._chord_keys(chord_id), arguments)
        if found is None:
            return None
        shape, *parts = found
        outcomes = [unpack_part(part, spec.codecs, spec.accept, serializer=spec.serializer) for part in parts]
        return in_shape(self, self._documents.decode_group(chord_id, shape), outcomes) if shape else outcomes

    def encode_part(self, chord_id: str, index: int | None, outcome: Outcome) -> Part:
        """Return a finished part in the form that `count_parts` takes."""
        payload = pack_part(outcome, self._spec.codecs, self._spec.serializer)
        return Part(chord_id=chord_id, task_id=outcome.id, index=index, payload=payload)

    async def count_parts(self, batch: Sequence[Part]) -> list[str]:
        """Note finished parts, in one round trip, and return the tasks that have completed their chords."""
        chords = by_chord(batch)
        commands = []
        for chord_id, parts in chords.items():
            arguments = [*self._how_to_count(), *(word for part in parts for word in _entered(part))]
            commands.append(CHORD_PARTS.call(self._chord_keys(chord_id)[:5], arguments))
        data = b"".join(commands)
        with self._translated("counting parts of chords"):
            stream = await self._loop_streams().get()
            answers = await stream.call(data, len(commands))
            if any(map(_unknown_script, answers)):
                answers = (await stream.call(CHORD_PARTS.load() + data, 1 + len(commands)))[1:]
            positions = checked(answers)
        found = zip(chords.values(), positions, strict=True)
        return [parts[position - 1].task_id for parts, position in found if position]

    def grow_chord(self, chord_id: str, task_ids: Sequence[str]) -> None:
        """Have a chord wait for more parts."""
        _, added, _, seen, claim, _ = self._chord_keys(chord_id)
        with self._translated("growing a chord"):
            self._run(GROW_CHORD, [added, seen, claim], [self._keep_chord_seconds, *task_ids])

    def end_chord(self, chord_id: str) -> None:
        """Remove what was kept for a chord, and note that it is done."""
        *parts, claim, _ = self._chord_keys(chord_id)
        keep = self._keep_seconds or int(DAY_SECONDS)
        with self._translated("ending a chord"):
            self._call(pack(("SETEX", claim, keep, "done")) + pack(("DEL", *parts)), 2)

    def claim(self, task_id: str, copy: str) -> bool:
        """Return whether this copy of a task's message is the first that claims to be run."""
        key = f"{self._documents.group_key(task_id)}.copy"
        keep = self._keep_seconds or int(DAY_SECONDS)
        with self._translated("claiming a task"):
            found = self._call(pack(("SET", key, copy, "NX", "EX", keep)) + pack(("GET", key)), 2)
        return bool(found == copy.encode())

    # --- the store itself ---

    def cleanup(self) -> None:
        """Do nothing: Redis removes expired results by itself."""

    def close(self) -> None:
        """Close the connections of this process."""
        self._links.close()
        streams, self._streams = self._streams, None
        if streams is not None and self._streams_pid == os.getpid():
            streams.close()

    # --- inside ---

    def _listen(self) -> RedisListener:
        if self._alarm is None or self._alarm_pid != os.getpid():
            self._alarm, self._alarm_pid = Alarm(), os.getpid()
        translate = functools.partial(self._error, "waiting for results")
        return RedisListener(
            self._links, self._alarm, self._documents.task_key, self._documents.read, translate
        )

    def _loop_streams(self) -> Any:  # Any: Streams, as above
        if self._streams is None or self._streams_pid != os.getpid():
            self._streams = importlib.import_module("celeriac.net.redis_stream").Streams(self._servers)
            self._streams_pid = os.getpid()
        return self._streams

    def _to_store(self, records: list[Record]) -> tuple[bytes, int, list[Record]]:
        """Return packed commands that store the successes, how many answers they get, and the other records.

        Nearly every result is the first thing that is known of its task, and a SUCCESS: then a plain SET
        does, for 10 µs where a script costs 70 when it has not run for a moment (under load). It is published
        even if the SET finds something there and the script has to decide: a SUCCESS stays one, whichever.
        """
        keep = ("EX", self._keep_seconds) if self._keep_seconds else ()
        commands = []
        others = []
        for record in records:
            if record.state == SUCCESS:
                key = self._documents.task_key(record.id)
                commands.append(pack(("SET", key, record.payload, "NX", *keep)))
                commands.append(pack(("PUBLISH", key, record.payload)))
            else:
                others.append(record)
        return b"".join(commands), len(commands), others

    def _to_script(self, records: Sequence[Record]) -> tuple[list[str], list[int | bytes]]:
        keys = [self._documents.task_key(record.id) for record in records]
        return keys, [self._keep_seconds, *(record.payload for record in records)]

    def _replace_all(self, records: Sequence[Record]) -> None:
        with self._translated("storing results"):
            for record in records:
                self._replace(record)

    def _replace(self, record: Record) -> None:
        """Write over a document that Lua cannot read, unless that is the stronger one."""
        key = self._documents.task_key(record.id)
        for _ in range(_TRIES):
            there = self._call(pack(("GET", key)))
            if there is None:  # it has expired meanwhile
                if not self._run(STORE, *self._to_script([record])):
                    return
                continue
            with contextlib.suppress(CodecError):  # what nobody can read may be overwritten
                if stays(self._documents.decode(record.id, there).state, record.state):
                    return
            if self._run(REPLACE, [key], [self._keep_seconds, there, record.payload]):
                return
        raise BackendError(
            f"The result of {record.id} on {self._shown} changes faster than it can be replaced; not stored."
        )

    def _set(self, key: str, document: bytes, keep_seconds: int) -> None:
        how = ("SETEX", key, keep_seconds) if keep_seconds else ("SET", key)
        with self._translated("storing"):
            self._call(pack((*how, document)) + pack(("PUBLISH", key, document)), 2)

    def _delete(self, keys: Sequence[str]) -> None:
        with self._translated("forgetting results"):
            for start in range(0, len(keys), _AT_ONCE):
                self._call(pack(("DEL", *keys[start : start + _AT_ONCE])))

    def _chord_keys(self, chord_id: str) -> list[str]:
        """Return the keys of a chord: parts, extra parts, size, parts seen, claim, shape."""
        group = self._documents.group_key(chord_id)
        return [*(f"{group}.{letter}" for letter in "jtsdc"), group]

    def _how_to_count(self) -> tuple[int, str]:
        """Return for how many seconds parts are kept, and in what."""
        return self._keep_chord_seconds, "zset" if self._ordered else "list"

    def _run(
        self, script: Script, keys: Sequence[str], arguments: Sequence[Any]
    ) -> Any:  # Any: Redis's answer
        command = script.call(keys, arguments)
        answer = self._ask(command, 1)[0]
        if _unknown_script(answer):
            answer = self._ask(script.load() + command, 2)[1]
        return checked([answer])[0]

    def _call(self, data: bytes, count: int = 1) -> Any:  # Any: Redis's answer
        """Send packed commands; return the last one's answer."""
        return checked(self._ask(data, count))[-1]

    def _ask(self, data: bytes, count: int) -> list[Any]:  # Any: Redis's answers
        until = time.monotonic() + _PATIENCE_SECONDS
        try:
            return self._links.call(data, count, until)
        except ConnectionLost:  # everything here may be done twice, so it may be tried twice
            return self._links.call(data, count, until)

    @contextlib.contextmanager
    def _translated(self, doing: str) -> Iterator[None]:
        try:
            yield
        except RedisFailure as exc:
            raise self._error(doing, exc) from exc

    def _error(self, doing: str, exc: RedisFailure) -> BackendError:
        if exc.passing:
            return BackendUnreachable(
                f"The result store {self._shown} cannot be reached while {doing}: {exc}"
            )
        return BackendError(f"The result store {self._shown} refused while {doing}: {exc}")


def _options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options under the names that the connection knows, the key prefix with its separator.

    ``redis_socket_timeout`` (120 s) is left out: it was made for a client that blocks where ours listens.
    """
    options = {
        name.removeprefix("redis_"): value
        for name, value in given.items()
        if name.startswith("redis_") and name != "redis_socket_timeout"
    }
    options["ssl"] = given.get("redis_backend_use_ssl")
    options.update((name, value) for name, value in given.items() if not name.startswith("redis_"))
    prefix = str(options.get("global_keyprefix") or "")
    if prefix and not prefix.endswith(_SEPARATORS):
        options["global_keyprefix"] = f"{prefix}_"
    return options


def _taken(records: Sequence[Record], answers: Sequence[Any]) -> list[Record]:  # Any: Redis's answers
    """Return the successes whose key was taken: of SET and PUBLISH by turns the SET answered with nothing."""
    successes = (record for record in records if record.state == SUCCESS)
    return [record for record, written in zip(successes, answers[::2], strict=True) if written is None]


def _entered(part: Part) -> tuple[str, bytes, str, str]:
    """Return what the scripts take of a part: its score, itself, its mark among those seen, its claim."""
    score = "+inf" if part.index is None else str(part.index)
    return score, part.payload, f"{part.task_id}:{score}", f"celeriac {part.task_id}"


def _unknown_script(answer: Any) -> bool:  # Any: Redis's answer
    return isinstance(answer, ReplyError) and str(answer).startswith("NOSCRIPT")
