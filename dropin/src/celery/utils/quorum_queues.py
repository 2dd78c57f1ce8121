"""Whether an app's queues are quorum queues of RabbitMQ."""

from __future__ import annotations

from celeriac.app import Celeriac

__all__ = ("detect_quorum_queues",)


def detect_quorum_queues(app: Celeriac, driver_type: str) -> tuple[bool, str]:
    """Return whether there is one, and the name of the first.

    Args:
        app: The app.
        driver_type: The broker's kind; only ``amqp`` has such queues.
    """
    if driver_type != "amqp":
        return False, ""
    for name, queue in app.amqp.queues.items():
        if (getattr(queue, "queue_arguments", None) or {}).get("x-queue-type") == "quorum":
            return True, str(name)
    return False, ""
