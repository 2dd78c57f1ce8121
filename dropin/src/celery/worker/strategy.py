"""Strategies: what a worker does with the messages of a task. Here is the usual one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# Any in this module: tasks, and parts of messages

__all__ = ("default", "hybrid_to_proto2", "proto1_to_proto2")


def default(task: Any, app: Any, consumer: Any, **options: Any) -> Callable[..., None]:
    """Return what has messages run by the worker; strategies of programs call it for those they do not want.

    Args:
        task: The task.
        app: The app.
        consumer: The worker's.
        **options: Taken.
    """

    def run(message: Any, body: Any, ack: Any, reject: Any, callbacks: Any, **kwargs: Any) -> None:
        message.run()

    return run


def proto1_to_proto2(message: Any, body: dict[str, Any]) -> tuple[Any, dict[str, Any], bool, bool]:
    """Return body and headers that a message of the old protocol has in the new one.

    Args:
        message: The message.
        body: Its body, decoded.

    Returns:
        The body, the headers, that the body is decoded, and whether its times are in UTC.
    """
    known = ("args", "kwargs", "callbacks", "errbacks", "chord", "utc", "taskset")
    headers = {name: value for name, value in body.items() if name not in known}
    headers["group"] = body.get("taskset") or body.get("group")
    return _decoded(message, body, headers)


def hybrid_to_proto2(message: Any, body: dict[str, Any]) -> tuple[Any, dict[str, Any], bool, bool]:
    """Return body and headers of a message that has those of the new protocol, and the body of the old one.

    Args:
        message: The message.
        body: Its body, decoded.

    Returns:
        See `proto1_to_proto2`.
    """
    known = ("shadow", "eta", "expires", "group", "timelimit", "root_id", "parent_id", "ignore_result")
    headers = {
        "retries": body.get("retries", 0),
        **{name: body.get(name) for name in known},
        **{name: value for name, value in message.headers.items() if value is not None},
    }
    return _decoded(message, body, headers)


def _decoded(
    message: Any, body: dict[str, Any], headers: dict[str, Any]
) -> tuple[Any, dict[str, Any], bool, bool]:
    follows = {name: body.get(name) for name in ("callbacks", "errbacks", "chord")}
    args, kwargs = body.get("args") or (), body.get("kwargs") or {}
    return (args, kwargs, {**follows, "chain": None}), headers, True, bool(body.get("utc", True))
