"""What events have told of one worker."""

from __future__ import annotations

import time
from typing import Any, Final

HEARTBEAT_EXPIRE_WINDOW: Final = 200  # percent of the time between heartbeats after which one counts as dead
_HEARTBEATS_KEPT: Final = 4


def heartbeat_expires(
    timestamp: float, freq: float = 60, expire_window: float = HEARTBEAT_EXPIRE_WINDOW
) -> float:
    """Return the epoch seconds at which a worker counts as dead that is not heard of any more.

    Args:
        timestamp: When it was heard of last.
        freq: Seconds between its heartbeats.
        expire_window: How much of that, in percent.
    """
    return timestamp + float(freq) * (float(expire_window) / 100.0)


class Worker:
    """One worker.

    Args:
        hostname: Its node name.
        pid: Its process.
        freq: Seconds between its heartbeats.
        heartbeats: When it was heard of, in epoch seconds of this machine; the latest last.
        clock: Its logical clock.
        active: How many tasks it runs.
        processed: How many it has run.
        loadavg: Its machine's load.
        sw_ident: Its program.
        sw_ver: The program's version.
        sw_sys: Its operating system.
    """

    heartbeat_max: int = _HEARTBEATS_KEPT
    expire_window: float = HEARTBEAT_EXPIRE_WINDOW
    _fields = (
        "hostname", "pid", "freq", "heartbeats", "clock", "active", "processed", "loadavg", "sw_ident",
        "sw_ver", "sw_sys",
    )  # fmt: skip

    def __init__(
        self,
        hostname: str | None = None,
        pid: int | None = None,
        freq: float = 60,
        heartbeats: list[float] | None = None,
        clock: int = 0,
        active: int | None = None,
        processed: int | None = None,
        loadavg: list[float] | None = None,
        sw_ident: str | None = None,
        sw_ver: str | None = None,
        sw_sys: str | None = None,
    ) -> None:
        self.hostname = hostname
        self.pid = pid
        self.freq = freq
        self.heartbeats: list[float] = [] if heartbeats is None else heartbeats
        self.clock: int = clock or 0
        self.active = active
        self.processed = processed
        self.loadavg = loadavg
        self.sw_ident = sw_ident
        self.sw_ver = sw_ver
        self.sw_sys = sw_sys

    def event(
        self,
        type_: str,
        timestamp: float | None = None,
        local_received: float | None = None,
        fields: dict[str, Any] | None = None,
    ) -> None:
        """Take in an event.

        Args:
            type_: Its type, without the group.
            timestamp: When the worker sent it, in epoch seconds.
            local_received: When it came, in epoch seconds of this machine.
            fields: What else it tells.
        """
        for name, value in (fields or {}).items():
            setattr(self, name, value)
        if type_ == "offline":
            self.heartbeats.clear()
        elif timestamp and local_received:
            self._hear(local_received)

    def _hear(self, received: float) -> None:
        """Note that it is alive; heartbeats may come out of order."""
        heard = self.heartbeats
        if not heard or received > heard[-1]:
            heard.append(received)
        else:
            heard.append(received)
            heard.sort()
        del heard[: -self.heartbeat_max]

    def update(self, f: dict[str, Any], **kw: Any) -> None:
        """Set some fields."""
        for name, value in {**f, **kw}.items():
            setattr(self, name, value)

    @property
    def heartbeat_expires(self) -> float:
        """When it counts as dead, in epoch seconds, if it is not heard of any more."""
        return heartbeat_expires(self.heartbeats[-1], self.freq, self.expire_window)

    @property
    def alive(self) -> bool:
        """Whether it was heard of lately."""
        return bool(self.heartbeats) and time.time() < self.heartbeat_expires

    @property
    def status_string(self) -> str:
        """``ONLINE`` or ``OFFLINE``."""
        return "ONLINE" if self.alive else "OFFLINE"

    @property
    def id(self) -> str:
        """Node name and process."""
        return f"{self.hostname}.{self.pid}"

    def __eq__(self, other: object) -> bool:
        """Compare node names."""
        return self.hostname == other.hostname if isinstance(other, Worker) else NotImplemented

    def __hash__(self) -> int:
        """Hash the node name."""
        return hash(self.hostname)

    def __repr__(self) -> str:
        """Show name and status."""
        return f"<Worker: {self.hostname} ({self.status_string})>"
