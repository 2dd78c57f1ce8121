"""A received task as receivers of hooks see it: Celery's worker request."""

from __future__ import annotations

from typing import Any

from celeriac.message import Delivery, TaskHeaders


class Request:
    """A task that was received; made only when somebody listens.

    Args:
        delivery: Its message.
        headers: Its headers.
        hostname: The node's name.
        task: The task; a Task of any parameters.
    """

    def __init__(
        self, delivery: Delivery, headers: TaskHeaders, hostname: str, task: Any = None
    ) -> None:  # Any: see above
        self._delivery = delivery
        self._headers = headers
        self.task = task
        self.hostname = hostname

    def __getattr__(self, name: str) -> Any:  # Any: header values
        """Return a header of that name."""
        headers = self._delivery.envelope.headers
        if name in headers:
            return headers[name]
        raise AttributeError(f"A request has no {name!r} and its message no such header.")

    @property
    def id(self) -> str:
        """The task's id."""
        return self._headers.id

    @property
    def task_id(self) -> str:
        """The same."""
        return self._headers.id

    @property
    def name(self) -> str:
        """The task's name, or the one that its sender wants to be shown."""
        return self._headers.shadow or self._headers.task

    @property
    def task_name(self) -> str:
        """The task's registered name."""
        return self._headers.task

    @property
    def type(self) -> str:
        """The same."""
        return self._headers.task

    @property
    def correlation_id(self) -> str | None:
        """Of the message."""
        return self._delivery.envelope.properties.correlation_id

    @property
    def reply_to(self) -> str | None:
        """The queue that waits for the result, where there is one."""
        return self._delivery.envelope.properties.reply_to

    @property
    def request_dict(self) -> dict[str, Any]:  # Any: header values
        """All headers."""
        return self._delivery.envelope.headers

    @property
    def delivery_info(self) -> dict[str, Any]:  # Any: text, numbers and a flag
        """Where the message came from."""
        return delivery_info(self._delivery)

    def info(self, safe: bool = False) -> dict[str, Any]:  # Any: as above
        """Return what remote control tells of a task."""
        return {
            "id": self.id,
            "name": self.name,
            "args": self._headers.argsrepr,
            "kwargs": self._headers.kwargsrepr,
            "type": self.type,
            "hostname": self.hostname,
            "delivery_info": self.delivery_info,
        }

    def humaninfo(self) -> str:
        """Return ``name[id]``."""
        return f"{self.name}[{self.id}]"

    __str__ = humaninfo


def delivery_info(delivery: Delivery) -> dict[str, Any]:  # Any: text, numbers and a flag
    """Return where a message came from, in Celery's words."""
    return {
        "exchange": delivery.exchange,
        "routing_key": delivery.routing_key,
        "priority": delivery.envelope.properties.priority,
        "redelivered": delivery.redelivered,
    }
