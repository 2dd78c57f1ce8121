"""Wakes a thread that sleeps on a socket."""

from __future__ import annotations

import contextlib
import math
import select
import socket
import time
from typing import Literal

Woken = Literal["rung", "readable", "late"]


class Alarm:
    """Something to sleep on beside a socket, that any thread can ring."""

    def __init__(self) -> None:
        self._ear, self._bell = socket.socketpair()
        self._ear.setblocking(False)
        self._bell.setblocking(False)

    def ring(self) -> None:
        """Wake who sleeps on it, or whoever will next."""
        with contextlib.suppress(BlockingIOError):  # it has rung for long
            self._bell.send(b"\0")

    def sleep(self, until: float, sock: socket.socket | None = None) -> Woken:
        """Sleep until it rings, the socket can be read or it is late enough, and return which.

        Args:
            until: When to give up; `time.monotonic` seconds.
            sock: The socket, if there is one.
        """
        poller = select.poll()
        poller.register(self._ear, select.POLLIN)
        if sock is not None:
            poller.register(sock, select.POLLIN)
        left = max(0.0, until - time.monotonic())
        ready = poller.poll(None if left == math.inf else math.ceil(left * 1000))
        if not ready:
            return "late"
        if all(fd != self._ear.fileno() for fd, _ in ready):
            return "readable"
        with contextlib.suppress(BlockingIOError):
            while self._ear.recv(64):
                pass
        return "rung"

    def __del__(self) -> None:
        """Let go of its descriptors; in a forked child, of its copies."""
        self._ear.close()
        self._bell.close()
