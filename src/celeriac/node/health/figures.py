"""The figures of a node, as they are told to those who measure."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from celeriac.node.health.exposition import Family, Sample, histogram, single
from celeriac.version import VERSION

if TYPE_CHECKING:
    from celeriac.node.node import Node
    from celeriac.ports import Transport


class QueueFigures(msgspec.Struct, frozen=True):
    """What the broker says of a queue."""

    waiting: int  # messages
    ready: int  # those of them that a worker may take now
    since: float | None  # epoch seconds: since when the oldest of these waits, as far as that is known
    is_empty: bool  # of ready messages, where it would be known since when they wait

    @classmethod
    def of(cls, transport: Transport, name: str) -> QueueFigures:
        """Ask the broker.

        Raises:
            TransportError: It does not answer.
        """
        waiting, ready = transport.size(name), transport.ready(name)
        since = transport.oldest(name) if ready and transport.caps.ages else None
        return cls(waiting, ready, since, not ready and transport.caps.ages)


def families(node: Node, queues: Mapping[str, QueueFigures], now: float) -> list[Family]:
    """Return everything that is told of a node.

    Args:
        node: The node; to be called on its loop.
        queues: What the broker says of each queue.
        now: Epoch seconds.
    """
    return [
        *_of_node(node),
        *_of_queues(node, queues, now),
        *_of_slots(node),
        *_of_tasks(node),
        *_of_broker(node),
    ]


def _of_node(node: Node) -> list[Family]:
    labels = {"node": node.hostname, "version": VERSION, "pool": node.pool.kind}
    return [
        Family("celeriac_info", "gauge", "The worker.", [Sample(1, labels)]),
        single("celeriac_uptime_seconds", "gauge", "Time since the start.", time.monotonic() - node.born),
        single("celeriac_ready", "gauge", "1 when it takes messages.", int(node.unready is None)),
    ]


def _of_queues(node: Node, queues: Mapping[str, QueueFigures], now: float) -> list[Family]:
    runs = {started.number for started in node.pool.running()}
    waiting = [work.ready_at for work in node.ledger if not work.started and work.number not in runs]
    return [
        Family(
            "celeriac_queue_messages",
            "gauge",
            "Messages that wait in a queue, those for later included; what workers hold is not.",
            [Sample(queue.waiting, {"queue": name}) for name, queue in queues.items()],
        ),
        Family(
            "celeriac_queue_ready_messages",
            "gauge",
            "Those of them that a worker may take now.",
            [Sample(queue.ready, {"queue": name}) for name, queue in queues.items()],
        ),
        Family(
            "celeriac_queue_oldest_seconds",
            "gauge",
            "How long the oldest ready message waits; RabbitMQ, and Celery's messages, do not tell.",
            [
                Sample(0.0 if queue.since is None else max(0.0, now - queue.since), {"queue": name})
                for name, queue in queues.items()
                if queue.since is not None or queue.is_empty
            ],
        ),
        Family(
            "celeriac_queue_taken_seconds",
            "gauge",
            "How long the message had waited that this worker took last from a queue.",
            [Sample(seconds, {"queue": name}) for name, seconds in node.intake.waited_seconds.items()],
        ),
        single(
            "celeriac_oldest_waiting_seconds",
            "gauge",
            "How long the oldest task waits that this worker has taken and could begin.",
            max(0.0, now - min(waiting, default=now)),
        ),
        single("celeriac_held_messages", "gauge", "Taken and not settled.", len(node.ledger)),
        single("celeriac_unsettled_outcomes", "gauge", "Done, but not written down.", node.reporter.backlog),
    ]


def _of_slots(node: Node) -> list[Family]:
    return [
        single("celeriac_slots", "gauge", "Tasks that can run at once.", node.pool.size),
        single("celeriac_slots_busy", "gauge", "Tasks that run.", len(node.pool.running())),
        single(
            "celeriac_prefetch_messages", "gauge", "Held at most; 0: no limit.", node.dispatcher.prefetch()
        ),
    ]


def _of_tasks(node: Node) -> list[Family]:
    tallies = node.policies.tallies
    return [
        Family(
            "celeriac_tasks_total",
            "counter",
            "Runs by how they ended: success, failure, retry, ignore, reject, requeue, revoked, lost.",
            [
                Sample(count, {"task": name, "outcome": ending})
                for name, tally in tallies.items()
                for ending, count in tally.endings.items()
            ],
        ),
        histogram(
            "celeriac_task_run_seconds",
            "How long tasks ran.",
            [({"task": name}, tally.runs) for name, tally in tallies.items()],
        ),
        histogram(
            "celeriac_task_wait_seconds",
            "How long tasks waited in this worker that could have begun.",
            [({"task": name}, tally.waits) for name, tally in tallies.items()],
        ),
        _by_kind("celeriac_dead_letters_total", "kind", "Dead letters made.", node.reporter.dead_letters),
        _by_kind("celeriac_refused_total", "reason", "Messages that were not run.", node.refusals.counts),
        single("celeriac_returned_total", "counter", "Messages handed back.", node.reporter.returned),
    ]


def _of_broker(node: Node) -> list[Family]:
    link, stream = node.link, node.herald.stream
    return [
        single("celeriac_broker_up", "gauge", "1 when the broker can be spoken to.", int(link.is_up)),
        single("celeriac_broker_losses_total", "counter", "Connections that were lost.", link.losses),
        single("celeriac_lease_renewals_total", "counter", "Leases renewed.", link.renewals),
        single("celeriac_lease_renewals_failed_total", "counter", "Not renewed in time.", node.leases.failed),
        single("celeriac_events_sent_total", "counter", "Events sent.", stream.sent),
        single("celeriac_events_dropped_total", "counter", "Events dropped.", stream.dropped),
    ]


def _by_kind(name: str, label: str, help: str, counts: Mapping[str, int]) -> Family:
    return Family(name, "counter", help, [Sample(count, {label: kind}) for kind, count in counts.items()])
