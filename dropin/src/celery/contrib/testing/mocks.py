"""Messages as tests make them, and mocks."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from unittest.mock import MagicMock, Mock

from kombu.utils.json import dumps

from celery.utils import uuid

# Any in this module: values of tasks

__all__ = ("ContextMock", "TaskMessage", "TaskMessage1", "task_message_from_sig")


def TaskMessage(  # noqa: N802 - Celery's name
    name: str,
    id: str | None = None,
    args: Iterable[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    callbacks: Any = None,
    errbacks: Any = None,
    chain: Any = None,
    shadow: str | None = None,
    utc: bool | None = None,
    **options: Any,
) -> Any:
    """Return a task's message, as protocol 2 has it.

    Args:
        name: Of the task.
        id: Of the call; a new one when not given.
        args: Of the call.
        kwargs: Of the call.
        callbacks: Signatures to call with the result.
        errbacks: Signatures to call on failure.
        chain: Signatures that follow.
        shadow: The name to show.
        utc: Accepted for Celery's sake.
        **options: More headers.
    """
    embed = {"callbacks": callbacks, "errbacks": errbacks, "chain": chain}
    payload = (args, kwargs or {}, embed)
    headers = {"id": id or uuid(), "task": name, "shadow": shadow, **options}
    return _message(headers, payload)


def TaskMessage1(  # noqa: N802 - Celery's name
    name: str,
    id: str | None = None,
    args: Iterable[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    callbacks: Any = None,
    errbacks: Any = None,
    chain: Any = None,
    **options: Any,
) -> Any:
    """Return a task's message, as protocol 1 has it; the arguments are those of `TaskMessage`."""
    payload = {
        "task": name,
        "id": id or uuid(),
        "args": args,
        "kwargs": kwargs or {},
        "callbacks": callbacks,
        "errbacks": errbacks,
        **options,
    }
    return _message({}, payload)


def _message(headers: dict[str, Any], payload: Any) -> Any:
    message = Mock(name="TaskMessage")
    message.headers = headers
    message.payload = payload
    message.content_type, message.content_encoding = "application/json", "utf-8"
    message.body = dumps(payload)
    return message


def task_message_from_sig(
    app: Any,
    sig: Any,
    utc: bool = True,
    TaskMessage: Callable[..., Any] = TaskMessage,  # noqa: N803 - Celery's name
) -> Any:
    """Return the message of a signature.

    Args:
        app: Where its task and callbacks belong.
        sig: The signature.
        utc: Accepted for Celery's sake.
        TaskMessage: Makes the message.
    """
    options = dict(sig.options)
    sig.freeze()
    headers: dict[str, Any] = {}
    now = datetime.datetime.now(datetime.UTC)
    if options.get("countdown"):
        headers["eta"] = (now + datetime.timedelta(seconds=options["countdown"])).isoformat()
    elif options.get("eta"):
        headers["eta"] = options["eta"].isoformat()
    expires = options.get("expires")
    if isinstance(expires, (int, float)):
        expires = now + datetime.timedelta(seconds=expires)
    if expires:
        headers["expires"] = expires.isoformat()
    return TaskMessage(
        sig.task,
        id=sig.id,
        args=sig.args,
        kwargs=sig.kwargs,
        callbacks=[dict(one) for one in options.get("link") or ()] or None,
        errbacks=[dict(one) for one in options.get("link_error") or ()] or None,
        **headers,
    )


def ContextMock(*args: Any, **kwargs: Any) -> Any:  # noqa: N802 - Celery's name
    """Return a mock that is a context manager, and gives itself."""
    mock = MagicMock(*args, **kwargs)
    mock.__enter__.return_value = mock
    mock.__exit__.return_value = None
    return mock
