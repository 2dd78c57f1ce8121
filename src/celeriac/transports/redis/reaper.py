"""Taking over from nodes that died: what had not begun runs elsewhere, what had is told to be lost."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Final

from celeriac.net.redis_link import RedisFailure, ReplyError, checked, pack
from celeriac.net.redis_stream import Answers
from celeriac.transports.redis import postmarks
from celeriac.transports.redis.holding import Holding, list_of, number_of
from celeriac.transports.redis.membership import Membership
from celeriac.transports.redis.names import Names
from celeriac.transports.redis.scripts import INHERIT, SALVAGE

logger: logging.Logger = logging.getLogger(__name__)

_CATCH_ENDS_SECONDS: Final = 5.0  # after its last command came no wait of a catcher goes on: it lasts one
_AT_ONCE: Final = 200  # messages in one step, so that no script holds up the server


class Reaper:
    """Settles the estates of dead nodes.

    Args:
        names: The names of keys.
        membership: Ours.
        consumes: Says whether we consume a queue. What had begun is taken over only by a consumer of its
            queue: other apps on the same database have other result stores.
        on_begun: Called with the field and the message of every delivery that had begun and is ours now.
    """

    def __init__(
        self,
        names: Names,
        membership: Membership,
        consumes: Callable[[str], bool],
        on_begun: Callable[[bytes, bytes], None],
    ) -> None:
        self._names = names
        self._membership = membership
        self._consumes = consumes
        self._on_begun = on_begun
        self.taken_back: int = 0  # messages that went back to their queues

    async def reap(self, dead: Sequence[bytes]) -> None:
        """Take over from these nodes.

        Raises:
            RedisFailure: The connection failed; whoever calls next goes on where we stopped.
        """
        for id_ in dead:
            await self._reap(id_.decode())

    async def _reap(self, id_: str) -> None:
        stream = await self._membership.stream()
        lease = self._names.lease(id_)
        keys = [self._names.nodes, self._names.catch(id_), lease, self._names.catching]
        [fields] = checked(await stream.call(SALVAGE.call(keys, [id_, _CATCH_ENDS_SECONDS]), 1))
        if fields is None:
            return
        marks = {field[1:] for field in fields if field.startswith(b"!")}
        waiting = [f for f in fields if not f.startswith(b"!") and f not in marks]
        begun = [f for f in fields if f in marks and self._consumes(self._names.queue_of(list_of(f)))]
        if not waiting and not begun and marks:
            return  # others will tell of these
        # Descending: each goes to the front of its list, so the one to be served first goes last.
        rest = iter([*sorted(waiting, key=number_of, reverse=True), *sorted(begun, key=number_of)])
        while True:
            some = list(islice(rest, _AT_ONCE))
            await self._inherit(id_, lease, some, marks)
            self.taken_back += sum(field not in marks for field in some)
            if len(some) < _AT_ONCE:
                break
        if not waiting and not begun:
            return
        logger.warning(
            "Node %s is dead: %d of its messages go back to their queues, %d had begun and are lost",
            id_.partition("/")[0],
            len(waiting),
            len(begun),
        )

    async def _inherit(self, id_: str, lease: bytes, fields: list[bytes], marks: set[bytes]) -> None:
        stream = await self._membership.stream()
        messages: list[bytes | None] = []
        if fields:
            [messages] = checked(await stream.call(pack(("HMGET", lease, *fields)), 1))
        holding = self._membership.holding
        number = holding.reserve(len(fields))
        arguments: list[bytes | str] = [id_, holding.id, self._names.prefix]
        ours: dict[bytes, bytes] = {}
        for offset, (field, message) in enumerate(zip(fields, messages, strict=True)):
            if message is None:
                continue  # another node was quicker
            if field in marks:
                own = b"%d:%s" % (number + offset, list_of(field))
                ours[own] = message
                arguments += [field, own, message]
            else:
                attempt = postmarks.opened(message).attempt + 1
                arguments += [field, b"", postmarks.redelivered(message, attempt)]
        keys = [self._names.nodes, lease, self._membership.lease]
        # A callback and not the lines below an await: that may be cancelled when the answer is on its way.
        stream.ask(INHERIT.call(keys, arguments), 1, functools.partial(self._inherited, holding, ours))
        checked(await stream.call(pack(("PING",)), 1))

    def _inherited(self, holding: Holding, ours: dict[bytes, bytes], answer: Answers | RedisFailure) -> None:
        if isinstance(answer, RedisFailure):
            return  # when it was done all the same, we find these among our leases on the next connection
        [fields] = answer
        if isinstance(fields, ReplyError):
            logger.error("Taking over from a dead node failed, we will try again: %s", fields)
        elif fields is not None and holding is self._membership.holding:
            for field in fields:
                self._on_begun(field, ours[field])
