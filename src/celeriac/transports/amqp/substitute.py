"""Rule: when and what is sent in a delivery's place, as RabbitMQ itself cannot do what shall become of it."""

from __future__ import annotations

from typing import Final, Literal

from celeriac.message import DeadLetter, Delivery, Outgoing, Reject, Requeue, Verdict
from celeriac.queues import Queue
from celeriac.transports.amqp import topology

# How many are sent, and their originals acknowledged, at once. While more than 32 commands of a channel wait
# for a quorum queue's disk, RabbitMQ keeps further ones to itself, and forgets them when the channel ends
# (https://github.com/rabbitmq/rabbitmq-server/issues/10327). When the next copies are confirmed, what was
# acknowledged before is on its disk.
AT_ONCE: Final = 30

# As RabbitMQ sent it; by a copy in custody; not any more, as it was acknowledged at its start.
Held = Literal["pushed", "kept", "not"]


def substitute(
    delivery: Delivery, verdict: Verdict, queue: Queue | None, node: str, held: Held
) -> Outgoing | None:
    """Return what is sent before a delivery is acknowledged; None when it is settled without.

    Args:
        delivery: What is settled.
        verdict: What shall become of it.
        queue: The one it came from, as far as we still know it.
        node: Who settles it.
        held: How we have it.
    """
    match verdict:
        case DeadLetter():
            return topology.dead_letter(delivery, verdict, node)
        case Requeue() if held != "pushed" or not _is_put_back(delivery, verdict, queue):
            before = 1 if verdict.willing else delivery.attempt - verdict.untouched
            return topology.once_more(delivery, queue, before=before)
        case Reject() if held == "kept" and queue is not None:
            return topology.refused(delivery, queue)
    return None


def is_quorum(queue: Queue) -> bool:
    """Return whether a queue is of a kind that counts what it puts back."""
    return queue.arguments.get("x-queue-type") in ("quorum", "stream")


def _is_put_back(delivery: Delivery, verdict: Requeue, queue: Queue | None) -> bool:
    """Return whether RabbitMQ can put a delivery back by itself.

    Quorum queues count how often they did, wanted or not. The others do not count, and a task that kills
    every process it runs in would go round for ever. So a message is put back where that counts and
    shall, or neither; otherwise it is sent once more instead, with its count in a header. What cannot be read
    cannot be written either.
    """
    if delivery.defect is not None:
        return True
    if verdict.noted:
        return False
    if queue is not None and is_quorum(queue):
        return not (verdict.untouched or verdict.willing)
    return verdict.untouched
