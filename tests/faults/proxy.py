"""A TCP proxy that breaks things: between a program and its server, in this process, on loopback.

with Proxy(server.port) as proxy:
    app = Celeriac("proj", broker=f"redis://127.0.0.1:{proxy.port}/0")
    proxy.block("to_client")  # the server hears us, we do not hear it
    proxy.heal()
    proxy.cut()  # every connection is reset
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Literal, Self, TypeVar

from servers.ports import LOOPBACK, free_port

Direction = Literal["to_server", "to_client"]
BOTH: tuple[Direction, Direction] = ("to_server", "to_client")
_CHUNK_BYTES = 65536
_ANSWER_SECONDS = 10.0
_RESET = struct.pack("ii", 1, 0)  # lingers for zero seconds: closing sends RST

Answer = TypeVar("Answer")


@dataclass(slots=True)
class Trap:
    """Breaks a connection when certain bytes pass for the first time; made by `Proxy.trap`.

    Attributes:
        direction: Where the bytes go.
        pattern: What to look for.
        keep: How many bytes from the beginning of the pattern on still arrive; None = all that came with it.
        sprung: Set when the connection is broken.
    """

    direction: Direction
    pattern: bytes
    keep: int | None
    sprung: threading.Event = field(default_factory=threading.Event)

    def allowed(self, seen: bytes, known: int) -> int | None:
        """Return how many bytes may still pass when this is the place to break, else None.

        Args:
            seen: The end of what has passed, and what is about to pass.
            known: How many bytes of it have passed.
        """
        place = seen.find(self.pattern)
        if place < 0:
            return None
        return len(seen) - known if self.keep is None else max(0, place + self.keep - known)


class _Link:
    """One connection of a client with the server."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.sockets: dict[Direction, tuple[socket.socket, socket.socket]] = {
            "to_server": (client, server),
            "to_client": (server, client),
        }
        self.over = asyncio.Event()
        self.gone = asyncio.Event()
        self.slow = False
        self.forgotten = False
        self.caught: Trap | None = None

    async def run(self, pump: Callable[[_Link, Direction], Awaitable[None]]) -> None:
        """Carry bytes in both directions until either side has closed; reset both when the link is cut."""
        pumps = [asyncio.ensure_future(pump(self, direction)) for direction in BOTH]
        cut = asyncio.ensure_future(self.over.wait())
        try:
            await asyncio.wait([*pumps, cut], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (*pumps, cut):
                task.cancel()
            await asyncio.gather(*pumps, cut, return_exceptions=True)
            for end in self.sockets["to_server"]:
                if self.over.is_set():
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                end.close()
            self.gone.set()
            if self.caught is not None:
                self.caught.sprung.set()


class Proxy:
    """Carries connections to a server, and breaks them as told, from any thread.

    Duties: 1. forward; 2. `cut`: reset what is connected; 3. `refuse` and `admit`: nobody listens;
    4. `block` and `heal`: a black hole in one direction or both, also for new connections; `forget`: one for
    those that there are; 5. `slow` and
    `slice`: a bad line; 6. `trap`: break a connection in the middle of a conversation; 7. `retarget`: another
    server; `move`: another address.

    Args:
        target: The server's port on loopback.
    """

    def __init__(self, target: int) -> None:
        self.host = LOOPBACK
        self.port = free_port()
        self._target = target
        self._delay_seconds = 0.0
        self._delayed_after = b""
        self._slice_bytes = 0
        self._traps: list[Trap] = []
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._loop = asyncio.new_event_loop()
        self._open: dict[Direction, asyncio.Event] = {direction: asyncio.Event() for direction in BOTH}
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self.heal()
        self.admit()

    # --- faults ---

    def cut(self) -> int:
        """Reset every connection (RST to both sides) and return how many there were."""
        return self._do(self._cut())

    def refuse(self) -> None:
        """Stop listening: who connects is refused, who is connected stays so."""
        self._do(self._refuse())

    def admit(self) -> None:
        """Listen (again)."""
        self._do(self._admit())

    def block(self, *directions: Direction) -> None:
        """Let nothing through, by default in neither direction; nobody is told, and what is sent waits."""
        self._do(self._set_open(directions or BOTH, False))

    def forget(self) -> None:
        """Let nothing through any more on what is connected now, as a firewall that has lost its table."""
        self._do(self._forget())

    def heal(self) -> None:
        """Let everything through again, with what has waited, and forget `slow`, `slice` and traps."""
        self._delay_seconds, self._slice_bytes = 0.0, 0
        self._traps.clear()
        self._do(self._set_open(BOTH, True))

    def slow(self, seconds: float, *, after: bytes = b"") -> None:
        """Deliver everything so much later, in each direction.

        Args:
            seconds: How much.
            after: Only on connections on which a client has sent this, and from then on.
        """
        self._delay_seconds, self._delayed_after = seconds, after

    def slice(self, size: int) -> None:
        """Deliver everything in packets of so many bytes."""
        self._slice_bytes = size

    def trap(self, direction: Direction, pattern: bytes, *, keep: int | None = 0) -> Trap:
        """Reset the first connection on which a pattern passes, and say so by the trap's event.

        Args:
            direction: Where it goes.
            pattern: The bytes to look for.
            keep: How many bytes from the pattern's beginning on still arrive (half a frame); None = all that
                came with it, so that a question arrives and its answer never does.
        """
        trap = Trap(direction, pattern, keep)
        self._traps.append(trap)
        return trap

    def retarget(self, target: int) -> None:
        """Send new connections to another server."""
        self._target = target

    def move(self, host: str) -> None:
        """Listen on another address of this machine, such as 127.0.0.2, and on the old one no more."""
        self.refuse()
        self.host = host
        self.admit()

    @property
    def connections(self) -> int:
        """How many there are."""
        return len(self._links)

    def close(self) -> None:
        """End everything."""
        if not self._thread.is_alive():
            return
        self._do(self._refuse())
        self._do(self._cut())
        self._do(self._end_tasks())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_ANSWER_SECONDS)
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # --- on the loop ---

    def _do(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_ANSWER_SECONDS)

    async def _cut(self) -> int:
        links = list(self._links)
        for link in links:
            link.over.set()
        for link in links:
            await link.gone.wait()
        return len(links)

    async def _forget(self) -> None:
        for link in self._links:
            link.forgotten = True

    async def _refuse(self) -> None:
        if self._accepting is not None and self._listener is not None:
            self._accepting.cancel()
            await asyncio.gather(self._accepting, return_exceptions=True)
            self._listener.close()
            self._accepting = self._listener = None

    async def _admit(self) -> None:
        if self._listener is None:
            self._listener = socket.create_server((self.host, self.port), backlog=512)
            self._listener.setblocking(False)
            self._accepting = asyncio.create_task(self._accept(self._listener))

    async def _set_open(self, directions: tuple[Direction, ...], is_open: bool) -> None:
        for direction in directions:
            gate = self._open[direction]
            if is_open:
                gate.set()
            else:
                gate.clear()

    async def _end_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, listener: socket.socket) -> None:
        while True:
            client, _ = await self._loop.sock_accept(listener)
            task = asyncio.create_task(self._carry(client))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry(self, client: socket.socket) -> None:
        server = socket.socket()
        try:
            for end in (client, server):
                end.setblocking(False)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._loop.sock_connect(server, (LOOPBACK, self._target))
        except OSError:
            # The server is not there: the client hears what it would have heard without us, a reset.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            client.close()
            server.close()
            return
        link = _Link(client, server)
        self._links.add(link)
        try:
            await link.run(self._pump)
        finally:
            self._links.discard(link)

    async def _pump(self, link: _Link, direction: Direction) -> None:
        source, sink = link.sockets[direction]
        tail = b""
        with contextlib.suppress(OSError):
            while True:
                data = await self._loop.sock_recv(source, _CHUNK_BYTES)
                await self._open[direction].wait()
                if link.forgotten:
                    if data:
                        continue
                    await link.over.wait()  # the other side does not hear of the end either
                    return
                if direction == "to_server" and self._delayed_after and self._delayed_after in tail + data:
                    link.slow = True
                if self._delay_seconds and (link.slow or not self._delayed_after):
                    await asyncio.sleep(self._delay_seconds)
                if not data:
                    return
                allowed = self._sprung(link, direction, tail, data)
                await self._send(sink, data[:allowed])
                if allowed is not None:
                    link.over.set()
                    return
                tail = (tail + data)[-256:]

    def _sprung(self, link: _Link, direction: Direction, tail: bytes, data: bytes) -> int | None:
        """Return how many bytes may still pass when a trap has caught this link, else None."""
        for trap in self._traps:
            if trap.direction != direction:
                continue
            known = tail[-(len(trap.pattern) - 1) :] if len(trap.pattern) > 1 else b""
            allowed = trap.allowed(known + data, len(known))
            if allowed is not None:
                self._traps.remove(trap)
                link.caught = trap
                return allowed
        return None

    async def _send(self, sink: socket.socket, data: bytes) -> None:
        size = self._slice_bytes or len(data) or 1
        for start in range(0, len(data), size):
            await self._loop.sock_sendall(sink, data[start : start + size])
            if self._slice_bytes:
                await asyncio.sleep(0)  # a packet of its own
