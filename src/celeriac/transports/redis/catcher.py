"""A second connection, on which the server hands over the next message of one list by itself."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable
from typing import Any, Final

from celeriac.net.redis_link import RedisFailure, ReplyError, Unreachable, pack
from celeriac.net.redis_servers import Servers
from celeriac.net.redis_stream import Answers, Stream, open_stream
from celeriac.net.redis_url import RedisAddress
from celeriac.transports.redis.names import Names

logger: logging.Logger = logging.getLogger(__name__)

_WAIT_SECONDS: Final = 1.0  # how long the server waits for us: so long a stopped node may still be handed one
_AGAIN_SECONDS: Final = 5.0  # before a second connection is tried for again
_OVERTAKEN_SECONDS: Final = 0.002  # until a wait that was not there yet to be ended is there

_UNANSWERED: Final = pack(("CLIENT", "REPLY", "SKIP"))  # to be woken for that answer would cost 30 µs

Caught = Callable[[str, bytes, bytes | None], None]


class Catcher:
    """Catches the next message of a list, half a round trip sooner than one that is rung first.

    The server moves it into ``celeriac.catch:<id>``, where it is leased to us like everything in our hash and
    stays until more is to be said of it than that it is done; ``celeriac.catching`` says from which list it
    came, should we die. It is armed only while somebody waits and there is room, with one list at a time: the
    one that brought something last.

    Args:
        address: Returns the server that the node is connected to, None when there is none.
        names: The names of keys.
        on_caught: Called with the id it was armed with, the list, and the message or None when none came.
        on_lost: Called when the connection is lost.
    """

    def __init__(
        self,
        address: Callable[[], RedisAddress | None],
        names: Names,
        on_caught: Caught,
        on_lost: Callable[[RedisFailure], None],
    ) -> None:
        self._address = address
        self._names = names
        self._on_caught = on_caught
        self._on_lost = on_lost
        self._stream: Stream | None = None
        self._opening: asyncio.Task[None] | None = None
        self._not_before = 0.0  # the loop's time
        self.client_ids: list[int] = []  # of our connections that the server may still hold
        self.armed: bytes | None = None  # the list that we wait for
        self._disarming = False
        self._endless = False  # the server refuses to end a wait before its time
        self.latest: bytes = b""  # or waited for last

    def brings(self, key: bytes, next_key: bytes) -> bool:
        """Whether the message for which a list's bell has rung needs no fetching.

        Args:
            key: The list.
            next_key: The list that is waited for next.
        """
        if self.armed is not None:
            return key == self.armed
        return key == next_key and not self._endless and self._stream is not None and self._stream.alive

    def arm(self, id_: str, key: bytes) -> None:
        """Wait for the next message of a list, unless we do already; connects in the background at first."""
        if self.armed is not None or self._endless:
            return
        stream = self._stream
        if stream is None or not stream.alive:
            self._open_soon()
            return
        note = pack(("HSET", self._names.catching, id_, self._names.bare(key)))
        move = pack(("BLMOVE", key, self._names.catch(id_), "RIGHT", "LEFT", _WAIT_SECONDS))
        self.armed = self.latest = key
        stream.ask(_UNANSWERED + note + move, 1, functools.partial(self._answered, id_, key))

    def disarm(self, main: Stream) -> None:
        """Have the server stop waiting, over the other connection. A message may still have been caught."""
        if self.armed is not None and self._stream is not None and not self._disarming and main.alive:
            self._disarming = True
            command = pack(("CLIENT", "UNBLOCK", self._stream.client_id))
            main.ask(command, 1, functools.partial(self._disarmed, main))

    def close(self) -> None:
        """Let go of the connection."""
        if self._opening is not None:
            self._opening.cancel()
        if self._stream is not None:
            self._stream.close()
        self.armed = None

    def _disarmed(self, main: Stream, answer: Answers | RedisFailure) -> None:
        self._disarming = False
        if isinstance(answer, RedisFailure):
            return
        if isinstance(answer[0], ReplyError):
            logger.info("Redis hands over no messages by itself, for no wait may be ended: %s", answer[0])
            self._endless = True
        elif self.armed is not None and answer[0] == 0:
            # It is answered, or our command has overtaken its own on the way.
            asyncio.get_running_loop().call_later(_OVERTAKEN_SECONDS, self.disarm, main)

    def _answered(self, id_: str, key: bytes, answer: Answers | RedisFailure) -> None:
        self.armed = None
        if isinstance(answer, RedisFailure):
            return  # `on_lost` is told, too
        message = answer[0]
        if isinstance(message, ReplyError):
            logger.info("Redis does not hand over messages by itself: %s", message)
            self._not_before = float("inf")
            self.close()
            message = None
        self._on_caught(id_, key, message)

    def _open_soon(self) -> None:
        loop = asyncio.get_running_loop()
        if self._opening is None and loop.time() >= self._not_before:
            self._opening = loop.create_task(self._open(), name="celeriac-redis-catch")

    async def _open(self) -> None:
        address = self._address()
        try:
            if address is None:
                raise Unreachable("there is no first one")
            stream = await open_stream(Servers([address]), _ignore, self._on_lost)
        except RedisFailure as exc:
            logger.info("No second connection to Redis: %s", exc)
            self._not_before = asyncio.get_running_loop().time() + _AGAIN_SECONDS
        else:
            self._stream = stream
            self.client_ids.append(stream.client_id)
            self._on_caught("", b"", None)
        finally:
            self._opening = None


def _ignore(push: Any) -> None:  # Any: whatever Redis sends
    """Nothing is subscribed to on that connection."""
