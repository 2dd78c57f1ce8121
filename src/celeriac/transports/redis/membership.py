"""Being one of the nodes: the connection of a consumer, and the id that its leases are kept by."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

from celeriac.net.redis_link import RedisFailure, ReplyError, checked, pack
from celeriac.net.redis_servers import Servers
from celeriac.net.redis_stream import Stream, open_stream
from celeriac.net.redis_url import RedisAddress
from celeriac.transports.redis import postmarks
from celeriac.transports.redis.holding import Holding, Token, number_of
from celeriac.transports.redis.names import Names
from celeriac.transports.redis.scripts import JOIN, OF_A_CONSUMER, QUICK, SETTLE

logger: logging.Logger = logging.getLogger(__name__)

KEPT_OF_A_LEASE: Final = 0.9  # of the promised time; the rest is for somebody to notice that it ended

Commands = tuple[bytes, int]  # packed, and how many answers they get


class Membership:
    """Keeps one consumer connected and known to the others.

    Duties: 1. connect when somebody needs it, one attempt at a time; 2. on every connection load the scripts,
    have the server ring when something comes in, and join under a new id that takes the old one's leases
    along; 3. put back what a lost answer has left in our lease; 4. start over when our lease was taken.

    Args:
        servers: The servers to try.
        names: The names of keys.
        node: The node's name.
        lease_seconds: How long after its last sign of life a node counts as dead.
        greeting: Returns commands for every new connection, such as subscriptions.
        on_push: Called with what the server sends unasked.
        on_lost: Called when the connection is lost.
        on_begun: Called with the field and the message of a delivery that we took over from a dead node
            after it had begun there.
        last_list: Returns the list that the server was to hand over messages of; without the prefix.
    """

    def __init__(
        self,
        servers: Servers,
        names: Names,
        *,
        node: str,
        lease_seconds: float,
        greeting: Callable[[], Commands],
        on_push: Callable[[Any], None],
        on_lost: Callable[[RedisFailure], None],
        on_begun: Callable[[bytes, bytes], None],
        last_list: Callable[[], bytes],
    ) -> None:
        self._servers = servers
        self._names = names
        self._node = node
        self.lease_seconds: float = lease_seconds * KEPT_OF_A_LEASE
        self._greeting = greeting
        self._on_push = on_push
        self._on_lost = on_lost
        self._on_begun = on_begun
        self._last_list = last_list
        self._stream: Stream | None = None
        self._opening: asyncio.Task[Stream] | None = None
        self.holding: Holding = Holding(node)
        self._joined_at: RedisAddress | None = None  # the server that gave the numbers of our connections
        self.client_ids: list[int] = []  # of connections that the server may still hold for us
        self.rings: bool = True  # whether the server tells us of new messages

    @property
    def lease(self) -> bytes:
        """The key of our leases."""
        return self._names.lease(self.holding.id)

    def current(self) -> Stream | None:
        """Return the connection, when there is one."""
        stream = self._stream
        return stream if stream is not None and stream.alive else None

    def address(self) -> RedisAddress | None:
        """Return the server that we are connected to, when there is one."""
        stream = self.current()
        return None if stream is None else stream.address

    async def stream(self) -> Stream:
        """Return the connection; opens it when there is none.

        Raises:
            RedisFailure: There is none to be had.
        """
        stream = self._stream
        if stream is not None and stream.alive:
            return stream
        if self._opening is None:
            # A task of its own: who waits for it may be cancelled half-way through joining.
            self._opening = asyncio.create_task(self._open(), name="celeriac-redis-join")
            self._opening.add_done_callback(self._opened)
        return await asyncio.shield(self._opening)

    async def start_over(self) -> None:
        """Join anew with nothing in hand: the broker has taken our leases back."""
        logger.warning(
            "Node %s was out of touch for longer than its lease; others have its %d messages now",
            self._node,
            len(self.holding.tokens),
        )
        before, self.holding = self.holding, Holding(self._node)
        self.holding.ids = before.ids  # what the server has handed over meanwhile lies under these
        running = {token.message for token in before.tokens.values()}
        await self._join(await self.stream(), connected=False, running=running)

    def drop(self, failure: RedisFailure | None = None) -> None:
        """Let go of this connection, for it does not do; the next call opens another one."""
        if self._stream is not None:
            self._stream.close(failure)

    async def close(self) -> None:
        """Let go of the connection."""
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        self.drop()

    def _opened(self, opening: asyncio.Task[Stream]) -> None:
        self._opening = None
        if not opening.cancelled():
            opening.exception()  # whoever waits gets it; it need not be told twice

    async def _open(self) -> Stream:
        stream = await open_stream(self._servers, self._on_push, self._on_lost)
        try:
            await self._set_up(stream)
            await self._join(stream, connected=True)
        except BaseException:
            stream.close()
            raise
        self._stream = stream
        return stream

    async def _set_up(self, stream: Stream) -> None:
        greeting, count = self._greeting()
        tracking = stream.call(pack(("CLIENT", "TRACKING", "ON", "NOLOOP")), 1)
        scripts = stream.call(
            b"".join(s.load() for s in OF_A_CONSUMER) + greeting, len(OF_A_CONSUMER) + count
        )
        refusal = (await tracking)[0]
        self.rings = not isinstance(refusal, ReplyError)
        if not self.rings:
            logger.warning(
                "Redis does not tell of changes (%s): looking for messages 20 times a second", refusal
            )
        checked(await scripts)

    async def _join(self, stream: Stream, *, connected: bool, running: Collection[bytes] = ()) -> None:
        """Join under a new id.

        Args:
            stream: The connection.
            connected: Whether that is a new one, too.
            running: Messages that our node has taken under a lease that others have by now.
        """
        holding = self.holding
        before = list(holding.ids)
        id_ = holding.next_id()
        arguments: list[bytes | str | float] = [
            *(id_, self.lease_seconds, self._names.lease(""), self._names.catch(""), self._last_list()),
            *before,
        ]
        # What our old connections have still to deliver must not be carried out after we have joined anew.
        old = self.client_ids if connected and stream.address == self._joined_at else []
        kill = [pack(("CLIENT", "KILL", "ID", number)) for number in old]
        join = JOIN.call([self._names.nodes, self._names.catching], arguments)
        kept = checked((await stream.call(b"".join(kill) + join, len(kill) + 1))[-1:])[0]
        known, fields, caught, list_ = kept or (0, [], [], b"")
        if not known and holding.tokens:
            running = {token.message for token in holding.tokens.values()}
            self.holding = holding = Holding(self._node)
            logger.warning("The leases of node %s are gone; what it holds will run elsewhere", self._node)
        holding.joined(id_)
        if connected:
            self._joined_at = stream.address
            self.client_ids[:] = [stream.client_id]
        taken = await self._take_in(stream, fields, caught, list_) if caught else []
        again = {field: message for field, message in zip(taken, caught, strict=True) if message in running}
        await self._reclaim(stream, [*fields, *taken], again)

    async def _take_in(
        self, stream: Stream, fields: Sequence[bytes], caught: Sequence[bytes], list_: bytes
    ) -> list[bytes]:
        """Put into our lease what was caught on an old connection; returns the fields."""
        holding = self.holding
        missing: dict[bytes, list[Token]] = {}  # nobody keeps senders from sending the same bytes twice
        for token in holding.tokens.values():
            if token.field not in fields:
                missing.setdefault(token.message, []).append(token)
        taken: list[bytes] = []
        for number, message in enumerate(caught, holding.reserve(len(caught))):
            if missing.get(message):
                token = missing[message].pop()
                token.caught = False
                taken.append(token.field)
            else:
                taken.append(b"%d:%s" % (number, list_))
        keys = [self._names.nodes, self.lease, self._names.catch(holding.id)]
        commands = [QUICK.call(keys, [holding.id, field]) for field in taken]
        checked(await stream.call(b"".join(commands), len(commands)))
        return taken

    async def _reclaim(self, stream: Stream, fields: Sequence[bytes], again: dict[bytes, bytes]) -> None:
        """Care for what was leased to us in an answer that we never got.

        Args:
            stream: The connection.
            fields: All that we hold.
            again: Fields of messages that our node has taken under a lease that is gone, with the messages:
                it shall recognise them when they come again.
        """
        known = self.holding.tokens
        marks = {field[1:] for field in fields if field.startswith(b"!")}
        unknown = [f for f in fields if f not in known and not f.startswith(b"!")]
        unknown.sort(key=number_of, reverse=True)
        operations: list[bytes] = []
        for field in unknown:
            if field in again:
                attempt = postmarks.opened(again[field]).attempt + 1
                operations += [b"again", field, postmarks.redelivered(again[field], attempt)]
            elif field not in marks:
                operations += [b"back", field]
        if operations:
            command = SETTLE.call([self.lease, self._names.due], [self._names.prefix, 0, *operations])
            checked(await stream.call(command, 1))
        begun = [field for field in unknown if field in marks]
        if begun:
            [messages] = checked(await stream.call(pack(("HMGET", self.lease, *begun)), 1))
            for field, message in zip(begun, messages, strict=True):
                self._on_begun(field, message)
