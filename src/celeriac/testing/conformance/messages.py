"""Messages and queues for the transport conformance suite, and the process that dies with some in hand."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from celeriac.message import Delivery, Envelope, Outgoing, Props
from celeriac.queues import Exchange, Queue, direct_queue

PATIENCE_SECONDS = 60.0  # how long anything may take before a test gives up


def new_queue(**changes: Any) -> Queue:  # Any: fields of Queue
    """Return a queue that no other test uses."""
    return msgspec.structs.replace(direct_queue(f"conformance-{uuid.uuid4().hex[:12]}"), **changes)


def new_exchange(kind: str) -> Exchange:
    """Return an exchange that no other test uses."""
    return Exchange(name=f"conformance-{kind}-{uuid.uuid4().hex[:12]}", type=kind)


def envelope(text: str = "hello", **props: Any) -> Envelope:  # Any: fields of Props
    """Return a small message whose body is the text."""
    message_id = str(uuid.uuid4())
    props.setdefault("delivery_tag", str(uuid.uuid4()))
    return Envelope(
        headers={"lang": "py", "task": "conformance.task", "id": message_id},
        body=text.encode(),
        content_type="text/plain",
        content_encoding="utf-8",
        properties=Props(correlation_id=message_id, **props),
    )


def to_queue(queue: Queue, text: str = "hello", *, not_before: float | None = None, **props: Any) -> Outgoing:
    """Return a message for one queue, through the anonymous exchange."""
    return Outgoing(
        envelope=envelope(text, **props), routing_key=queue.name, queue=queue, not_before=not_before
    )


def texts(deliveries: Sequence[Delivery]) -> list[str]:
    """Return the bodies as text."""
    return [delivery.envelope.body.decode() for delivery in deliveries]


def _python(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(  # noqa: S603 - our own module
        [sys.executable, "-m", "celeriac.testing.conformance.peer", *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@contextlib.contextmanager
def process(command: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Run a command of `celeriac.testing.conformance.peer` in a process of its own; killed at the end.

    Args:
        command: The name of a function there.
        *arguments: What it is called with; JSON.
    """
    peer = _python(command, msgspec.json.encode(arguments).decode())
    try:
        yield peer
    finally:
        peer.kill()
        peer.wait(PATIENCE_SECONDS)
        for stream in (peer.stdin, peer.stdout):
            if stream is not None:
                stream.close()


def read_line(peer: subprocess.Popen[str]) -> str:
    """Return the next line that the process prints."""
    assert peer.stdout is not None
    return peer.stdout.readline().rstrip("\n")


def holding_process(
    url: str,
    options: Mapping[str, Any],  # Any: transport options
    queue: Queue,
    *,
    count: int,
    lease_seconds: float,
    start: bool = False,
) -> contextlib.AbstractContextManager[subprocess.Popen[str]]:
    """Run a consumer that takes messages, perhaps starts them, says ``holding`` and waits to be killed."""
    return process("hold", url, dict(options), queue, count, lease_seconds, start)
