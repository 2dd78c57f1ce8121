"""The producer: one LPUSH per list and batch, in one round trip."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from celeriac.ids import IdSource
from celeriac.message import Envelope, Once, Outgoing
from celeriac.net.redis_link import Links, RedisFailure, checked, pack
from celeriac.rounds import FAIR_KEY_HEADER
from celeriac.transports.exchanges import bindings_of
from celeriac.transports.redis.bindings import declaration, routed
from celeriac.transports.redis.errors import translated
from celeriac.transports.redis.names import Names
from celeriac.transports.redis.postmarks import NOT_BEFORE, round_key
from celeriac.transports.redis.sender_scripts import SEND_KEYED, SEND_ONCE
from celeriac.transports.terms import unroutable
from celeriac.wire import virtual


class RedisProducer:
    """Sends to Redis, each thread on a connection of its own.

    A delayed message goes into its list like any other, so that real Celery workers, who know it by its
    ``eta``, may share the queue; our consumers park it when they meet it.

    Args:
        links: The connections of this process.
        shown: The broker's URL, its password hidden.
        names: The names of keys.
    """

    def __init__(self, links: Links, shown: str, names: Names) -> None:
        self._links = links
        self._shown = shown
        self._names = names
        self._tags = IdSource()
        self._declared: set[str] = set()
        self._fanouts: set[str] = set()  # exchanges that we know to be fanout
        self._lane: Any = (
            None  # Any: a Lane; importing asyncio costs those nothing who never send from a loop
        )
        self._lane_pid = 0

    def send(self, batch: Sequence[Outgoing], *, deadline: float) -> None:
        """See `celeriac.ports.Producer`."""
        until = time.monotonic() + deadline
        try:
            data, count, declared = self._commands(batch, until)
            if count:
                checked(self._links.call(data, count, until))
        except RedisFailure as exc:
            raise translated(exc, self._shown, _doing(batch), publishing=True) from exc
        if declared:
            self._declared.update(declared)

    async def asend(self, batch: Sequence[Outgoing], *, deadline: float) -> None:
        """See `celeriac.ports.Producer`."""
        lane = self._lane
        if lane is None or self._lane_pid != os.getpid():  # a fork leaves the parent's thread behind
            lane = self._lane = importlib.import_module("celeriac.net.lane").Lane("celeriac-redis-send")
            self._lane_pid = os.getpid()
        await lane.run(self.send, batch, deadline=deadline)

    def close(self) -> None:
        """See `celeriac.ports.Producer`."""
        lane, self._lane = self._lane, None
        if lane is not None and self._lane_pid == os.getpid():
            lane.close()
        self._links.close()
        self._declared.clear()  # who reopens may find an empty server

    def _commands(self, batch: Sequence[Outgoing], until: float) -> tuple[bytes, int, list[str]]:
        """Return the packed commands for a batch, how many answers they get, and the queues they declare."""
        names = self._names
        commands: list[bytes] = []
        count = 0
        declared: list[str] = []
        lists: dict[bytes, list[bytes | str]] = {}  # messages of one list go in one command, in their order
        turns: dict[bytes, list[bytes | str]] = {}  # likewise, each after its key
        words: tuple[bytes | str, ...]
        routes: dict[str, list[bytes]] = {}
        for outgoing in batch:
            envelope = outgoing.envelope
            queue = outgoing.queue
            if queue is not None and queue.name not in self._declared and queue.name not in declared:
                data, answers = declaration(queue, names)
                commands.append(data)
                count += answers
                declared.append(queue.name)
                self._fanouts.update(bound.exchange for kind, bound in bindings_of(queue) if kind == "fanout")
            if outgoing.not_before is not None:
                envelope = _delayed(envelope, outgoing.not_before)
            exchange = outgoing.exchange
            key = outgoing.routing_key
            message = virtual.encode(envelope, exchange, key, self._tags.next())
            if not exchange:
                targets = [key]
            elif exchange in self._fanouts:
                commands.append(pack(("PUBLISH", names.channel(exchange, key), message)))
                count += 1
                continue
            else:
                if exchange not in routes:
                    commands, count = self._say(commands, count, until)  # so that our own bindings count
                    routes[exchange] = self._bindings(exchange, until)
                targets = routed(routes[exchange], key, names)
                if not targets:
                    raise unroutable(exchange, key, known=bool(routes[exchange]))
            priority = envelope.properties.priority
            if outgoing.once is not None:
                found = [names.list_of(target, priority) for target in targets]
                commands += [SEND_ONCE.load(), _send_once(names, found, outgoing.once, message)]
                count += 2
                continue
            fair = round_key(envelope.headers) if FAIR_KEY_HEADER in envelope.headers else None
            pushed, words = (lists, (message,)) if fair is None else (turns, (fair, message))
            for target in targets:
                pushed.setdefault(names.list_of(target, priority), []).extend(words)
        for list_, messages in lists.items():
            commands.append(pack(("LPUSH", list_, *messages)))
        if turns:
            commands += _send_keyed(names, turns)
            count += 1 + len(turns)
        return b"".join(commands), count + len(lists), declared

    def _say(self, commands: list[bytes], count: int, until: float) -> tuple[list[bytes], int]:
        if count:
            checked(self._links.call(b"".join(commands), count, until))
        return [], 0

    def _bindings(self, exchange: str, until: float) -> list[bytes]:
        """Return the members of an exchange's set; read every time, for any worker may add one."""
        [members] = checked(self._links.call(pack(("SMEMBERS", self._names.binding(exchange))), 1, until))
        return list(members)


def _send_once(names: Names, lists: list[bytes], once: Once, message: bytes) -> bytes:
    return SEND_ONCE.call([names.sent_once, *lists], [once.row, repr(once.number), message])


def _send_keyed(names: Names, turns: dict[bytes, list[bytes | str]]) -> list[bytes]:
    """Return the packed commands that put messages into line, each after its key; one more than lists."""
    scripts = [
        SEND_KEYED.call([names.due], [names.prefix, names.bare(list_), *pairs])
        for list_, pairs in turns.items()
    ]
    return [SEND_KEYED.load(), *scripts]


def _delayed(envelope: Envelope, not_before: float) -> Envelope:
    props = envelope.properties
    marked = msgspec.structs.replace(props, extra={**props.extra, NOT_BEFORE: not_before})
    return msgspec.structs.replace(envelope, properties=marked)


def _doing(batch: Sequence[Outgoing]) -> str:
    if len(batch) == 1:
        return f"sending {batch[0].envelope.headers.get('task', 'a message')}"
    return f"sending {len(batch)} messages"
