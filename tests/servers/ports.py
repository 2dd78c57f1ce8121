"""Loopback ports for the test runs of a machine, each given to one of them only."""

from __future__ import annotations

import random
import socket
from functools import cache
from pathlib import Path

LOOPBACK = "127.0.0.1"
FIRST_PORT, LAST_PORT = 20_000, 65_535
_CLIENT_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")

_dice = random.SystemRandom()  # the ordinary one is seeded alike in all processes of a run


def free_port() -> int:
    """Return a loopback port on which nobody listens, kept for this process until it ends.

    Listening is the only way to reserve a port, so the runs agree upon a sign: an abstract Unix socket named
    after the port, which the system removes together with the process that holds it.
    """
    while True:
        port = _dice.choice(_candidates())
        sign = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            sign.bind(f"\0celeriac-test-port-{port}")
            socket.create_server((LOOPBACK, port)).close()
        except OSError:
            sign.close()
        else:
            sign.detach()  # stays open
            return port


@cache
def _candidates() -> range:
    """Return ports that the system does not give to clients.

    A client's port would be free now, and somebody's connection when the server starts, or comes back after
    it was killed; and who connects to it in vain again and again is one day connected with himself.
    """
    first, last = map(int, _CLIENT_PORTS.read_text().split())
    below, above = range(FIRST_PORT, first), range(last + 1, LAST_PORT + 1)
    return max(below, above, key=len) or range(FIRST_PORT, LAST_PORT + 1)
