"""Broadcasts on Redis: channels for exchanges that many listen to, a list for whoever waits for answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from celeriac.errors import DecodeError, TransportError
from celeriac.ids import IdSource
from celeriac.message import Broadcast, Envelope, Props
from celeriac.net.redis_link import Links, RedisFailure, checked, pack
from celeriac.net.redis_servers import Servers
from celeriac.net.redis_stream import Streams
from celeriac.queues import Exchange, Queue
from celeriac.transports.redis.bindings import routed
from celeriac.transports.redis.errors import translated
from celeriac.transports.redis.names import Names
from celeriac.transports.subscription import Inbox
from celeriac.wire import virtual

_ANSWERS_SECONDS: Final = 300  # how long answers lie that nobody fetches
_WAIT_SECONDS: Final = 1  # of one blocking call; far less than a connection's patience
_PULSE_SECONDS: Final = 10.0  # between looks whether somebody is still at the other end of what listens


class _Commands:
    """What a batch is on the wire, and how to read the answers."""

    def __init__(self) -> None:
        self._packed = [pack(("PING",))]  # so that an answer comes, whatever the batch is
        self.count = 1
        self._published: list[int] = []  # which of the answers tell how many have heard it
        self._pushed = 0

    @property
    def data(self) -> bytes:
        return b"".join(self._packed)

    def publish(self, channel: str, message: bytes) -> None:
        self._packed.append(pack(("PUBLISH", channel, message)))
        self._published.append(self.count)
        self.count += 1

    def push(self, list_: bytes, message: bytes) -> None:
        self._packed += pack(("LPUSH", list_, message)), pack(("EXPIRE", list_, _ANSWERS_SECONDS))
        self._pushed += 1
        self.count += 2

    def heard(self, answers: list[Any]) -> int:  # Any: whatever Redis answers
        """Return how many subscriptions got something."""
        return self._pushed + sum(int(answers[index]) for index in self._published)


class RedisFanout:
    """Publishes and listens as kombu does.

    A direct exchange is a set of bindings, and its queues are lists; every other kind is a channel, whose
    name has the routing key in it. One connection listens to all channels; each list has one of its own, for
    it blocks. What is published while a connection is lost is missed, as it is the nature of channels; who
    listens is told, also when the connection has died in silence, as a firewall's table does it.

    Args:
        servers: The servers to try.
        links: The connections of the transport, for those who publish without a loop.
        shown: The broker's URL, its password hidden.
        names: The names of keys and channels.
    """

    def __init__(self, servers: Servers, links: Links, shown: str, names: Names) -> None:
        self._links = links
        self._servers = servers
        self._streams = Streams(servers, self._pushed, self._lost)
        self._shown = shown
        self._names = names
        self._tags = IdSource()
        self._inboxes: dict[bytes, list[Inbox]] = {}  # by the pattern subscribed to
        self._fetching: dict[Inbox, tuple[asyncio.Task[None], Streams]] = {}
        self._pulse: asyncio.TimerHandle | None = None

    # --- sending ---------------------------------------------------------------------------------------

    def publish(self, batch: Sequence[Broadcast], *, deadline: float) -> int:
        """See `celeriac.ports.Fanout`."""
        until = time.monotonic() + deadline
        try:
            members: dict[str, list[bytes]] = {}
            for name in _direct(batch):
                [members[name]] = checked(self._links.call(self._ask(name), 1, until))
            commands = self._commands(batch, members)
            return commands.heard(checked(self._links.call(commands.data, commands.count, until)))
        except RedisFailure as exc:
            raise translated(exc, self._shown, _doing(batch), publishing=True) from exc

    async def apublish(self, batch: Sequence[Broadcast], *, deadline: float) -> int:
        """See `celeriac.ports.Fanout`; on the connection that listens."""
        try:
            async with asyncio.timeout(deadline):
                stream = await self._streams.get()
                members: dict[str, list[bytes]] = {}
                for name in _direct(batch):
                    [members[name]] = checked(await stream.call(self._ask(name), 1))
                commands = self._commands(batch, members)
                return commands.heard(checked(await stream.call(commands.data, commands.count)))
        except RedisFailure as exc:
            raise translated(exc, self._shown, _doing(batch), publishing=True) from exc
        except TimeoutError as exc:
            raise TransportError(f"Redis at {self._shown} did not answer while {_doing(batch)}.") from exc

    def _ask(self, exchange: str) -> bytes:
        return pack(("SMEMBERS", self._names.binding(exchange)))

    def _commands(self, batch: Sequence[Broadcast], members: dict[str, list[bytes]]) -> _Commands:
        commands = _Commands()
        for broadcast in batch:
            exchange, key = broadcast.exchange, broadcast.routing_key
            message = virtual.encode(broadcast.envelope, exchange.name, key, self._tags.next())
            if exchange.type == "direct":
                for queue in routed(members[exchange.name], key, self._names):
                    commands.push(self._names.list_of(queue, broadcast.envelope.properties.priority), message)
            else:
                commands.publish(self._names.channel(exchange.name, key), message)
        return commands

    # --- listening -------------------------------------------------------------------------------------

    async def subscribe(self, queue: Queue) -> Inbox:
        """See `celeriac.ports.Fanout`."""
        try:
            if queue.exchange.type == "direct":
                return await self._fetch(queue)
            return await self._listen(queue)
        except RedisFailure as exc:
            raise translated(exc, self._shown, f"listening to {queue.exchange.name!r}") from exc

    async def _listen(self, queue: Queue) -> Inbox:
        pattern = self._pattern(queue)
        inbox = Inbox(queue, self._leave_channel)
        self._inboxes.setdefault(pattern, []).append(inbox)
        try:
            stream = await self._streams.get()
            # The server answers the PING after it has subscribed us.
            checked(await stream.call(pack(("PSUBSCRIBE", pattern)) + pack(("PING",)), 1))
        except BaseException:
            await self._leave_channel(inbox)
            raise
        self._wait_for_pulse()
        return inbox

    def _wait_for_pulse(self) -> None:
        if self._pulse is not None:
            self._pulse.cancel()
        self._pulse = asyncio.get_running_loop().call_later(_PULSE_SECONDS, self._feel_pulse)

    def _feel_pulse(self) -> None:
        """Ask for a sign of life, as long as somebody listens; the stream fails when none comes."""
        self._pulse = None
        stream = self._streams.current()
        if self._inboxes and stream is not None and stream.alive:
            stream.ask(pack(("PING",)), 1, lambda answers: None)
            self._wait_for_pulse()

    def _pattern(self, queue: Queue) -> bytes:
        key = "" if queue.exchange.type == "fanout" else queue.routing_key
        return self._names.channel_pattern(queue.exchange.name, key).encode()

    async def _leave_channel(self, inbox: Inbox) -> None:
        pattern = self._pattern(inbox.queue)
        others = self._inboxes.get(pattern, [])
        if inbox in others:
            others.remove(inbox)
        if not others and self._inboxes.pop(pattern, None) is not None:
            stream = self._streams.current()
            if stream is not None:
                stream.tell(pack(("PUNSUBSCRIBE", pattern)))

    async def _fetch(self, queue: Queue) -> Inbox:
        key, member = self._binding(queue)
        stream = await self._streams.get()
        own = Streams(self._servers)
        commands = pack(("DEL", *self._names.lists(queue.name))) + pack(("SADD", key, member))
        checked(await stream.call(commands, 2))
        inbox = Inbox(queue, self._leave_list)
        task = asyncio.create_task(self._fetch_until_closed(inbox, own), name=f"fetch {queue.name}")
        self._fetching[inbox] = task, own
        return inbox

    def _binding(self, queue: Queue) -> tuple[bytes, str]:
        member = self._names.member(queue.routing_key, "", queue.name)
        return self._names.binding(queue.exchange.name), member

    async def _fetch_until_closed(self, inbox: Inbox, streams: Streams) -> None:
        command = pack(("BRPOP", *self._names.lists(inbox.queue.name), _WAIT_SECONDS))
        try:
            while True:
                stream = await streams.get()
                [found] = checked(await stream.call(command, 1))
                if found is not None:
                    inbox.put(_read(found[1], inbox.queue.exchange))
        except RedisFailure as exc:
            inbox.fail(translated(exc, self._shown, f"waiting for answers in {inbox.queue.name!r}"))

    async def _leave_list(self, inbox: Inbox) -> None:
        task, streams = self._fetching.pop(inbox)
        task.cancel()
        await asyncio.wait([task])
        streams.close()
        key, member = self._binding(inbox.queue)
        with suppress(RedisFailure):  # what is left behind then is what real clients leave behind, too
            stream = await self._streams.get()
            commands = pack(("SREM", key, member)) + pack(("DEL", *self._names.lists(inbox.queue.name)))
            await stream.call(commands, 2)

    def _pushed(self, push: list[Any]) -> None:  # Any: whatever Redis sends
        if push[0] == b"pmessage":
            for inbox in self._inboxes.get(push[1], ()):
                inbox.put(_read(push[3], inbox.queue.exchange))

    def _lost(self, failure: RedisFailure) -> None:
        heard, self._inboxes = self._inboxes, {}
        for inboxes in heard.values():
            for inbox in inboxes:
                inbox.fail(translated(failure, self._shown, f"listening to {inbox.queue.exchange.name!r}"))

    # --- the end ---------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """See `celeriac.ports.Fanout`."""
        for inbox in [*self._fetching, *(each for inboxes in self._inboxes.values() for each in inboxes)]:
            await inbox.close()
        if self._pulse is not None:
            self._pulse.cancel()
            self._pulse = None
        self._streams.close()

    def close(self) -> None:
        """See `celeriac.ports.Fanout`; the connections are the transport's."""


def _direct(batch: Sequence[Broadcast]) -> set[str]:
    return {broadcast.exchange.name for broadcast in batch if broadcast.exchange.type == "direct"}


def _read(message: bytes, exchange: Exchange) -> Broadcast:
    try:
        envelope, _, key = virtual.decode(message)
    except DecodeError as exc:
        nothing = Envelope(headers={}, body=message, properties=Props())
        return Broadcast(envelope=nothing, exchange=exchange, defect=str(exc))
    return Broadcast(envelope=envelope, exchange=exchange, routing_key=key)


def _doing(batch: Sequence[Broadcast]) -> str:
    return f"broadcasting to {batch[0].exchange.name!r}" if batch else "broadcasting"
