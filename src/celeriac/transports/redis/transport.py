"""The Redis broker at one address."""

from __future__ import annotations

import importlib
import socket
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from celeriac import ages
from celeriac.bursts import Bursts
from celeriac.letters import MOST_LETTERS
from celeriac.locks import Locks
from celeriac.message import Delivery
from celeriac.net.redis_link import Links, pack
from celeriac.net.redis_servers import servers
from celeriac.net.url import mask
from celeriac.pauses import Pauses
from celeriac.permits import Permits
from celeriac.ports import Caps, Consumer, ConsumeSpec, Fanout, Producer, Vitals
from celeriac.revocations import Revocations
from celeriac.timetable import Timetable
from celeriac.transports.redis import postmarks
from celeriac.transports.redis.caller import Caller
from celeriac.transports.redis.graveyard import RedisGraveyard
from celeriac.transports.redis.names import Names
from celeriac.transports.redis.producer import RedisProducer
from celeriac.transports.redis.sender_scripts import PURGE

if TYPE_CHECKING:
    from celeriac.transports.redis.consumer import RedisConsumer

CAPS: Final = Caps(
    native_delay=True,
    leases=True,
    hands_over=True,
    high_priority_first=False,
    gossip=True,
    permits=True,
    revocations=True,
    timetable=True,
    once=True,
    ages=True,
    rounds=True,
)


class RedisTransport:
    """Queues on Redis: the lists, messages, bindings and channels are Celery's, the leases our own.

    Args:
        url: ``redis://``, ``rediss://``, ``redis+socket://``, ``unix://`` or ``sentinel://``; several servers
            to try one after the other are separated by ``;``.
        options: ``broker_transport_options``: ``global_keyprefix``, ``sep``, ``priority_steps``,
            ``fanout_prefix``, ``fanout_patterns``, ``high_priority_first``, ``dead_letter_limit`` and the
            connection's (see
            `celeriac.net.redis_servers.servers`). ``visibility_timeout`` is accepted and not needed: leases
            belong to the node, which renews them.
    """

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        self.address: str = mask(url)
        self._options = options
        self._servers = servers(url, options)
        self._names = Names(self._servers.database, options)
        self.caps: Caps = msgspec.structs.replace(CAPS, high_priority_first=self._names.high_first)
        self._links = Links(self._servers)
        self._caller = Caller(self._links, self.address)

    def producer(self) -> Producer:
        """See `celeriac.ports.Transport`."""
        return RedisProducer(Links(self._servers), self.address, self._names)

    async def consumer(self, spec: ConsumeSpec) -> Consumer:
        """See `celeriac.ports.Transport`."""
        consumer = self._consumer(spec)
        await consumer.open()
        return consumer

    def fanout(self) -> Fanout:
        """See `celeriac.ports.Transport`."""
        # By name for the same reason as `_consumer`.
        module = importlib.import_module("celeriac.transports.redis.fanout")
        fanout: Fanout = module.RedisFanout(self._servers, self._links, self.address, self._names)
        return fanout

    def purge(self, queue: str) -> int:
        """See `celeriac.ports.Transport`."""
        keys = [self._names.parked(queue), self._names.due, *self._names.lists(queue)]
        answers = self._caller.call(
            PURGE.load() + PURGE.call(keys, [queue, self._names.prefix]), 2, f"purging {queue!r}"
        )
        return int(answers[1])

    def size(self, queue: str) -> int:
        """See `celeriac.ports.Transport`; messages that wait for their time count."""
        return self._count(queue, pack(("ZCARD", self._names.parked(queue))), 1)

    def ready(self, queue: str) -> int:
        """See `celeriac.ports.Transport`."""
        return self._count(queue)

    def oldest(self, queue: str) -> float | None:
        """See `celeriac.ports.Transport`; the first message of each list is looked at, more where need be.

        Of those that take turns by a key the first ones in line are; others may have waited a little longer.
        """
        lists, now = self._names.lists(queue), time.time()
        fronts = self._fronts(queue, lists, 1)
        untold = [bool(front) and not ages.is_telling(*front[0]) for front in fronts]
        more = [key for at, key in enumerate(lists) if untold[2 * at] or untold[2 * at + 1]]
        if more:
            fronts += self._fronts(queue, more, ages.MOST_LOOKED_AT)
        return min(filter(None, (ages.oldest(front, now) for front in fronts)), default=None)

    def _fronts(self, queue: str, lists: Sequence[bytes], most: int) -> list[list[ages.Found]]:
        """Return the first messages of some lists, the first first; after each those that take turns."""
        data = b"".join(
            pack(("LRANGE", key, -most, -1)) + pack(("ZRANGE", self._names.keyed(key), 0, most - 1))
            for key in lists
        )
        answers = self._caller.call(data, 2 * len(lists), f"looking for the oldest in {queue!r}")
        for at in range(0, len(answers), 2):
            answers[at] = answers[at][::-1]
            answers[at + 1] = [member.partition(b"\n")[2] for member in answers[at + 1]]
        found = [[postmarks.opened(raw) for raw in answer] for answer in answers]
        return [[(message.envelope, message.not_before) for message in front] for front in found]

    def parked(self, queue: str, limit: int) -> list[tuple[Delivery, float]]:
        """See `celeriac.ports.Transport`."""
        data = pack(("ZRANGE", self._names.parked(queue), 0, limit - 1, "WITHSCORES"))
        [answer] = self._caller.call(data, 1, f"looking what is parked in {queue!r}")
        return [
            (postmarks.opened(raw.partition(b"\n")[2]).delivery(queue), float(due)) for raw, due in answer
        ]

    def reap(self) -> int:
        """See `celeriac.ports.Transport`; what had begun stays until a worker of its queue tells of it.

        When no worker has lived for a while this takes 5 s: so long they have to come back after an outage.
        """
        module = importlib.import_module("celeriac.transports.redis.reaping")
        count: int = module.reap(self._consumer(ConsumeSpec(queues=(), node="reap@" + socket.gethostname())))
        return count

    def graveyard(self) -> RedisGraveyard:
        """Return the dead letters."""
        return RedisGraveyard(self._names, self._caller.call)

    def permits(self) -> Permits:
        """Return the permits of all nodes of the database."""
        module = importlib.import_module("celeriac.transports.redis.permits")
        permits: Permits = module.RedisPermits(self._another_caller(), self._names)
        return permits

    def locks(self) -> Locks:
        """Return the locks of all clients and nodes of the database."""
        module = importlib.import_module("celeriac.transports.redis.locks")
        locks: Locks = module.RedisLocks(self._another_caller(), self._names)
        return locks

    def bursts(self) -> Bursts:
        """Return the bursts of all clients and nodes of the database."""
        module = importlib.import_module("celeriac.transports.redis.bursts")
        bursts: Bursts = module.RedisBursts(self._another_caller(), self._names)
        return bursts

    def revocations(self) -> Revocations:
        """Return what all nodes of the database shall not run."""
        module = importlib.import_module("celeriac.transports.redis.revocations")
        kept: Revocations = module.RedisRevocations(self._names, self._caller.call)
        return kept

    def timetable(self, owner: str) -> Timetable:
        """Return the timetable of all schedulers that reach the database."""
        module = importlib.import_module("celeriac.transports.redis.timetable")
        timetable: Timetable = module.RedisTimetable(self._another_caller(), self._names, owner)
        return timetable

    def pauses(self) -> Pauses:
        """Return what remembers paused queues."""
        module = importlib.import_module("celeriac.transports.redis.pauses")
        pauses: Pauses = module.RedisPauses(self._another_caller(), self._names)
        return pauses

    def whereabouts(self, task_id: str) -> str | None:
        """Return None: to find one among many would hold up the server."""
        return None

    def vitals(self) -> Vitals:
        """See `celeriac.ports.TellsVitals`."""
        data = pack(("TIME",)) + pack(("INFO", "server")) + pack(("INFO", "memory"))
        moment, server, memory = self._caller.call(data, 3, "asking how it is")
        facts = _facts(server) | _facts(memory)
        # Without a limit its memory is never full; the policies `volatile-…` leave alone what has no end.
        limited = facts.get("maxmemory", "0") != "0"
        policy = facts.get("maxmemory_policy", "noeviction")
        return Vitals(
            server=f"{facts.get('server_name', 'redis')} {facts.get('redis_version', '')}".strip(),
            clock=int(moment[0]) + int(moment[1]) / 1e6,
            evicts=policy if limited and policy.startswith("allkeys") else None,
        )

    def close(self) -> None:
        """See `celeriac.ports.Transport`."""
        self._caller.close()

    def _consumer(self, spec: ConsumeSpec) -> RedisConsumer:
        # By name and not above: a client, who only sends, does without asyncio and everything of a consumer.
        module = importlib.import_module("celeriac.transports.redis.consumer")
        limit = int(self._options.get("dead_letter_limit") or MOST_LETTERS)
        consumer: RedisConsumer = module.RedisConsumer(
            self._servers, self.address, self._names, spec, dead_letter_limit=limit
        )
        return consumer

    def _count(self, queue: str, also: bytes = b"", answers: int = 0) -> int:
        for key in self._names.lists(queue):
            also += pack(("LLEN", key)) + pack(("ZCARD", self._names.keyed(key)))
            answers += 2
        return sum(self._caller.call(also, answers, f"counting {queue!r}"))

    def _another_caller(self) -> Caller:
        """Return one with connections of its own, that outlive ours."""
        return Caller(Links(self._servers), self.address)


def _facts(info: bytes) -> dict[str, str]:
    lines = info.decode("utf-8", "replace").splitlines()
    return {name: value for name, colon, value in (line.partition(":") for line in lines) if colon}
