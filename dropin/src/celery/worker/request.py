"""Requests: what a worker knows of a call. A task may have a class of its own for them, with hooks."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Callable
from typing import Any

from celeriac.message import Delivery
from celeriac.pools.base import nothing
from celeriac.wire.task import unpack_call
from celery.exceptions import Retry

# Any in this module: header values, and objects of programs

__all__ = ("ExceptionInfo", "Message", "Request", "create_request_cls")


logger: logging.Logger = logging.getLogger("celery.worker.request")


class Message:
    """A message as a request has it.

    Args:
        delivery: What the worker has received.
    """

    def __init__(self, delivery: Delivery) -> None:
        envelope = delivery.envelope
        props = envelope.properties
        self.headers: dict[str, Any] = envelope.headers
        self.body: bytes = envelope.body
        self.content_type: str | None = envelope.content_type
        self.content_encoding: str | None = envelope.content_encoding
        self.delivery_info: dict[str, Any] = {
            "exchange": delivery.exchange,
            "routing_key": delivery.routing_key,
            "priority": props.priority,
            "redelivered": delivery.redelivered,
        }
        self.properties: dict[str, Any] = {
            **props.extra,
            "correlation_id": props.correlation_id,
            "reply_to": props.reply_to,
            "priority": props.priority,
            "delivery_mode": props.delivery_mode,
        }


class ExceptionInfo:
    """How a task has failed, as far as its worker knows.

    Args:
        exception: What was raised.
        traceback: Where, as text.
    """

    tb: Any = None  # it was in another process
    internal: bool = False

    def __init__(self, exception: BaseException, traceback: str | None = None) -> None:
        self.exception: BaseException = exception
        self.type: type[BaseException] = type(exception)
        self.traceback: str = (
            traceback or f"Traceback (most recent call last):\n{self.type.__name__}: {exception}\n"
        )

    def __str__(self) -> str:
        return self.traceback

    def __repr__(self) -> str:
        return f"<ExceptionInfo: {self.exception!r}>"


class Request:
    """One call of a task in a worker.

    Subclasses that are a task's ``Request`` replace `on_accepted`, `on_timeout`, `on_failure` and `on_retry`.
    These are called in a thread of their own, one after the other, when it has happened: they see what
    becomes of a call and change nothing of it. Results, acknowledgements and logs are the worker's business.

    Args:
        message: The message.
        on_ack: Called by `acknowledge`.
        hostname: The node's name.
        eventer: Sends events.
        app: The app.
        connection_errors: Taken.
        request_dict: The headers, when they are not the message's.
        task: The task.
        on_reject: Called by `reject`.
        body: Of the message, when it is not its own.
        headers: The headers, when they are not the message's.
        decoded: Whether the body is already: positional and keyword arguments, and what follows the call.
        utc: Whether times are in UTC.
        **opts: Taken.
    """

    acknowledged: bool = False
    time_start: float | None = None  # on the monotonic clock
    worker_pid: int | None = None

    def __init__(
        self,
        message: Any,
        on_ack: Callable[..., object] = nothing,
        hostname: str | None = None,
        eventer: Any = None,
        app: Any = None,
        connection_errors: Any = None,
        request_dict: dict[str, Any] | None = None,
        task: Any = None,
        on_reject: Callable[..., object] = nothing,
        body: Any = None,
        headers: dict[str, Any] | None = None,
        decoded: bool = False,
        utc: bool = True,
        **opts: Any,
    ) -> None:
        self.message = message
        self._on_ack = on_ack
        self._on_reject = on_reject
        self.hostname = hostname
        self.eventer = eventer
        self.app = app
        self.connection_errors = connection_errors
        self.request_dict: dict[str, Any] = headers or request_dict or message.headers
        self.body: Any = message.body if body is None else body
        self.utc = utc
        self._task = task
        self._call: tuple[Any, Any, dict[str, Any]] | None = tuple(body) if decoded else None

    def __getattr__(self, name: str) -> Any:
        """Return a header of that name."""
        headers = self.__dict__.get("request_dict") or {}
        if name in headers:
            return headers[name]
        raise AttributeError(f"A request has no {name!r} and its message no such header.")

    @property
    def task(self) -> Any:
        """The task."""
        return self._task or self.app.tasks[self.type]

    @property
    def id(self) -> str:
        """The id of the call."""
        return str(self.request_dict["id"])

    @property
    def task_id(self) -> str:
        """The same."""
        return self.id

    @property
    def type(self) -> str:
        """The task's name."""
        return str(self.request_dict["task"])

    @property
    def task_name(self) -> str:
        """The same."""
        return self.type

    @property
    def name(self) -> str:
        """The same, or the one that its sender wants to be shown."""
        return str(self.request_dict.get("shadow") or self.type)

    @property
    def delivery_info(self) -> dict[str, Any]:
        """Where the message came from."""
        info: dict[str, Any] = self.message.delivery_info
        return info

    @property
    def eta(self) -> datetime.datetime | None:
        """When it is to run."""
        return self._moment("eta")

    @property
    def expires(self) -> datetime.datetime | None:
        """Until when it is wanted."""
        return self._moment("expires")

    def _moment(self, name: str) -> datetime.datetime | None:
        text = self.request_dict.get(name)
        if not isinstance(text, str):
            return None
        moment = datetime.datetime.fromisoformat(text)
        return moment if moment.tzinfo is not None else moment.replace(tzinfo=datetime.UTC)

    @property
    def correlation_id(self) -> str | None:
        """Of the message."""
        found: str | None = self.message.properties.get("correlation_id")
        return found

    @property
    def reply_to(self) -> str | None:
        """The queue that waits for the result, where there is one."""
        found: str | None = self.message.properties.get("reply_to")
        return found

    @property
    def content_type(self) -> str | None:
        """Of the message."""
        found: str | None = self.message.content_type
        return found

    @property
    def content_encoding(self) -> str | None:
        """Of the message."""
        found: str | None = self.message.content_encoding
        return found

    @property
    def time_limits(self) -> tuple[float | None, float | None]:
        """The hard and the soft limit that came with the message."""
        hard, soft = self.request_dict.get("timelimit") or (None, None)
        return hard, soft

    @property
    def store_errors(self) -> bool:
        """Whether a failure is stored."""
        return not self.task.ignore_result or bool(self.task.store_errors_even_if_ignored)

    @property
    def args(self) -> Any:
        """The positional arguments; the message's body is decoded for them."""
        return self._payload[0]

    @property
    def kwargs(self) -> Any:
        """The keyword arguments; the message's body is decoded for them."""
        return self._payload[1]

    @property
    def _payload(self) -> tuple[Any, Any, dict[str, Any]]:
        if self._call is None:
            conf = self.app.conf
            call = unpack_call(
                self.body,
                self.content_type,
                self.content_encoding,
                self.request_dict.get("compression"),
                self.app.codecs,
                self.app.codecs.accept_set(conf.accept_content),
                conf.worker_max_message_bytes,
            )
            embed = {
                "callbacks": call.callbacks,
                "errbacks": call.errbacks,
                "chain": call.chain,
                "chord": call.chord,
            }
            self._call = call.args, call.kwargs, embed
        return self._call

    # --- hooks -------------------------------------------------------------------------------------------

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        """Hear that it has begun.

        Args:
            pid: The process that runs it.
            time_accepted: When, on the monotonic clock.
        """
        self.worker_pid = pid
        self.time_start = time_accepted

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """Hear that it has run for too long.

        Args:
            soft: Whether the task could still do something about it.
            timeout: The limit in seconds.
        """

    def on_success(self, failed__retval__runtime: tuple[bool, Any, float], **kwargs: Any) -> None:
        """Do nothing: neither Celery's workers nor ours call what subclasses put in its place."""

    def on_retry(self, exc_info: Any) -> None:
        """Hear that it is going to be tried again; called by `on_failure`."""

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:
        """Hear that it has raised something: an error, or a wish to be tried again or rejected.

        Args:
            exc_info: An `ExceptionInfo`.
            send_failed_event: True.
            return_ok: Whether its process lives.
        """
        if isinstance(exc_info.exception, Retry):
            self.on_retry(exc_info)

    def acknowledge(self) -> None:
        """Say that its message is done; it has no effect where the worker does so itself, when it is time."""
        if not self.acknowledged:
            self.acknowledged = True
            self._on_ack(logger, self.connection_errors)

    def reject(self, requeue: bool = False) -> None:
        """Refuse its message, or put it back; likewise."""
        if not self.acknowledged:
            self.acknowledged = True
            self._on_reject(logger, self.connection_errors, requeue)

    # --- for people --------------------------------------------------------------------------------------

    def info(self, safe: bool = False) -> dict[str, Any]:
        """Return what remote control tells of a task."""
        return {
            "id": self.id,
            "name": self.name,
            "args": self.request_dict.get("argsrepr"),
            "kwargs": self.request_dict.get("kwargsrepr"),
            "type": self.type,
            "hostname": self.hostname,
            "time_start": self.time_start,
            "acknowledged": self.acknowledged,
            "delivery_info": self.delivery_info,
            "worker_pid": self.worker_pid,
        }

    def humaninfo(self) -> str:
        """Return ``name[id]``."""
        return f"{self.name}[{self.id}]"

    def __str__(self) -> str:
        return self.humaninfo()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.humaninfo()} {self.request_dict.get('argsrepr')}>"


def create_request_cls(
    base: type[Request], task: Any, pool: Any, hostname: str, eventer: Any, app: Any = None, **_: Any
) -> type[Request]:
    """Return the class for the requests of a task: the base, here."""
    return base
