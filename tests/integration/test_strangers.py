"""Brokers that are none: another program listens on the port, or nobody says a word there."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from celeriac.app import Celeriac
from celeriac.errors import BrokerUnreachable
from celeriac.ports import ConsumeSpec
from celeriac.queues import direct_queue
from servers.ports import LOOPBACK

BUDGET_SECONDS = 2.0
SLACK_SECONDS = 5.0  # for a busy machine
TLS = {"rediss", "amqps"}

GREETINGS = {
    "a web server": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "a mail server": b"220 mail ESMTP\r\n",
    "RabbitMQ": b"AMQP\x00\x00\x09\x01",
    "something like Redis": b"+OK\r\n",
    "noise": bytes(range(256)),
    "nobody": b"",
    "somebody who hangs up": None,
}


@pytest.fixture
def stranger(request: pytest.FixtureRequest) -> Iterator[int]:
    """Listen on a port, read a little, and answer with the greeting of that name to everybody."""
    greeting = GREETINGS[request.param]
    over = threading.Event()
    server = socket.create_server((LOOPBACK, 0))

    def talk(peer: socket.socket) -> None:
        with peer:
            try:
                if greeting is None:
                    return
                peer.recv(100)
                peer.sendall(greeting)
                over.wait()
            except OSError:
                return  # it has seen enough

    def listen() -> None:
        while True:
            try:
                peer, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=talk, args=(peer,), daemon=True).start()

    threading.Thread(target=listen, daemon=True).start()
    yield server.getsockname()[1]
    over.set()
    server.shutdown(socket.SHUT_RDWR)  # else who waits for a caller waits for ever
    server.close()


@pytest.mark.parametrize("stranger", GREETINGS, indirect=True)
@pytest.mark.parametrize("scheme", ["redis", "amqp", "rediss", "amqps"])
def test_a_port_where_something_else_listens_is_told_in_time(scheme: str, stranger: int) -> None:
    app = Celeriac("strange", broker=f"{scheme}://me:sekrit@{LOOPBACK}:{stranger}/0", set_as_current=False)
    app.conf.publish_timeout_seconds = BUDGET_SECONDS
    app.conf.broker_connection_timeout = BUDGET_SECONDS
    spec = ConsumeSpec(queues=(direct_queue("q"),), node="n@here")

    began = time.monotonic()
    with pytest.raises(BrokerUnreachable) as publishing:
        app.send_task("nothing", retry=False)
    took = time.monotonic() - began
    with pytest.raises(BrokerUnreachable) as consuming:
        asyncio.run(app.transport.consumer(spec))
    app.close()

    assert took < BUDGET_SECONDS + SLACK_SECONDS
    for told in (str(publishing.value), str(consuming.value)):
        assert f"{scheme}://me:**@{LOOPBACK}:{stranger}/0" in told
        assert "sekrit" not in told
        assert "permitted" not in told  # numbers of TLS errors are none of the system's
        assert "Exec format" not in told
    assert consuming.value.retryable  # the broker may only be moving in
