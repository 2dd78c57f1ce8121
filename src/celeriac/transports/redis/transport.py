"""The Redis broker at one address."""

from __future__ import annotations

import importlib
import socket
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from celeriac.letters import MOST_LETTERS
from celeriac.net.redis_link import Links, RedisFailure, checked, pack
from celeriac.net.redis_servers import servers
from celeriac.net.url import mask
from celeriac.permits import Permits
from celeriac.ports import Caps, Consumer, ConsumeSpec, Fanout, Producer, Vitals
from celeriac.timetable import Timetable
from celeriac.transports.redis.errors import translated
from celeriac.transports.redis.graveyard import RedisGraveyard
from celeriac.transports.redis.names import Names
from celeriac.transports.redis.producer import RedisProducer
from celeriac.transports.redis.scripts import PURGE

if TYPE_CHECKING:
    from celeriac.transports.redis.consumer import RedisConsumer

_PATIENCE_SECONDS: Final = 5.0  # for administration


class RedisTransport:
    """Queues on Redis: the lists, messages, bindings and channels are Celery's, the leases our own.

    Args:
        url: ``redis://``, ``rediss://``, ``redis+socket://``, ``unix://`` or ``sentinel://``; several servers
            to try one after the other are separated by ``;``.
        options: ``broker_transport_options``: ``global_keyprefix``, ``sep``, ``priority_steps``,
            ``fanout_prefix``, ``fanout_patterns``, ``dead_letter_limit`` and the connection's (see
            `celeriac.net.redis_servers.servers`). ``visibility_timeout`` is accepted and not needed: leases
            belong to the node, which renews them.
    """

    caps: Caps = Caps(
        native_delay=True, leases=True, high_priority_first=False, permits=True, timetable=True, once=True
    )

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        self.address: str = mask(url)
        self._options = options
        self._servers = servers(url, options)
        self._names = Names(self._servers.database, options)
        self._links = Links(self._servers)

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
        answers = self._call(PURGE.load() + PURGE.call(keys, [queue]), 2, f"purging {queue!r}")
        return int(answers[1])

    def size(self, queue: str) -> int:
        """See `celeriac.ports.Transport`; messages that wait for their time count."""
        lists = self._names.lists(queue)
        data = pack(("ZCARD", self._names.parked(queue))) + b"".join(pack(("LLEN", key)) for key in lists)
        return sum(self._call(data, 1 + len(lists), f"counting {queue!r}"))

    def ready(self, queue: str) -> int:
        """See `celeriac.ports.Transport`."""
        lists = self._names.lists(queue)
        data = b"".join(pack(("LLEN", key)) for key in lists)
        return sum(self._call(data, len(lists), f"counting {queue!r}"))

    def reap(self) -> int:
        """See `celeriac.ports.Transport`; what had begun stays until a worker of its queue tells of it.

        When no worker has lived for a while this takes 5 s: so long they have to come back after an outage.
        """
        module = importlib.import_module("celeriac.transports.redis.reaping")
        count: int = module.reap(self._consumer(ConsumeSpec(queues=(), node="reap@" + socket.gethostname())))
        return count

    def graveyard(self) -> RedisGraveyard:
        """Return the dead letters."""
        return RedisGraveyard(self._names, self._call)

    def permits(self) -> Permits:
        """Return the permits of all nodes of the database."""
        module = importlib.import_module("celeriac.transports.redis.permits")
        permits: Permits = module.RedisPermits(Links(self._servers), self.address, self._names)
        return permits

    def timetable(self, owner: str) -> Timetable:
        """Return the timetable of all schedulers that reach the database."""
        module = importlib.import_module("celeriac.transports.redis.timetable")
        timetable: Timetable = module.RedisTimetable(Links(self._servers), self.address, self._names, owner)
        return timetable

    def whereabouts(self, task_id: str) -> str | None:
        """Return None: to find one among many would hold up the server."""
        return None

    def vitals(self) -> Vitals:
        """See `celeriac.ports.TellsVitals`."""
        data = pack(("TIME",)) + pack(("INFO", "server")) + pack(("INFO", "memory"))
        moment, server, memory = self._call(data, 3, "asking how it is")
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
        self._links.close()

    def _consumer(self, spec: ConsumeSpec) -> RedisConsumer:
        # By name and not above: a client, who only sends, does without asyncio and everything of a consumer.
        module = importlib.import_module("celeriac.transports.redis.consumer")
        limit = int(self._options.get("dead_letter_limit") or MOST_LETTERS)
        consumer: RedisConsumer = module.RedisConsumer(
            self._servers, self.address, self._names, spec, dead_letter_limit=limit
        )
        return consumer

    def _call(self, data: bytes, count: int, doing: str) -> list[Any]:  # Any: whatever Redis answers
        try:
            return checked(self._links.call(data, count, time.monotonic() + _PATIENCE_SECONDS))
        except RedisFailure as exc:
            raise translated(exc, self.address, doing) from exc


def _facts(info: bytes) -> dict[str, str]:
    lines = info.decode("utf-8", "replace").splitlines()
    return {name: value for name, colon, value in (line.partition(":") for line in lines) if colon}
