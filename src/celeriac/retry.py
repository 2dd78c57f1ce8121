"""Running a task again by itself when it raises certain exceptions: ``autoretry_for`` and its friends."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NoReturn

from celeriac.backoff import exponential
from celeriac.errors import Ignore, Retry
from celeriac.parameters import is_coroutine_function


def add_autoretry(task: Any, options: dict[str, Any]) -> None:  # Any: a Task, whose module imports this one
    """Wrap the ``run`` of a task that lists exceptions in ``autoretry_for``; others are left alone.

    Args:
        task: The task; its own ``run`` is kept as ``_orig_run``.
        options: The options of its declaration, which go before its attributes.
    """

    def option(name: str, default: Any) -> Any:
        return options.get(name, getattr(task, name, default))

    wanted = tuple(option("autoretry_for", ()))
    if not wanted or hasattr(task, "_orig_run"):
        return
    unwanted = (Ignore, Retry, *option("dont_autoretry_for", ()))
    retry_kwargs = dict(option("retry_kwargs", {}))
    backoff = option("retry_backoff", False)
    most = option("retry_backoff_max", 600)
    jitter = bool(option("retry_jitter", True))
    run = task.run

    def again(exc: Exception) -> NoReturn:
        if backoff:
            retry_kwargs["countdown"] = exponential(
                task.request.retries, factor=float(backoff), maximum=most, full_jitter=jitter
            )
        if hasattr(task, "override_max_retries"):
            retry_kwargs["max_retries"] = getattr(task, "override_max_retries", task.max_retries)
        reason = task.retry(exc=exc, **retry_kwargs)
        # `retry(throw=False)` has been overridden, or it returns: the run is over all the same.
        raise reason

    task._orig_run = run
    task.run = (
        _wrap_async(run, wanted, unwanted, again)
        if is_coroutine_function(run)
        else _wrap(run, wanted, unwanted, again)
    )


def _wrap(
    run: Callable[..., Any],
    wanted: tuple[type[BaseException], ...],
    unwanted: tuple[type[BaseException], ...],
    again: Callable[[Any], NoReturn],
) -> Callable[..., Any]:
    @functools.wraps(run)
    def retrying(*args: Any, **kwargs: Any) -> Any:
        try:
            return run(*args, **kwargs)
        except unwanted:
            raise
        except wanted as exc:
            again(exc)

    return retrying


def _wrap_async(
    run: Callable[..., Any],
    wanted: tuple[type[BaseException], ...],
    unwanted: tuple[type[BaseException], ...],
    again: Callable[[Any], NoReturn],
) -> Callable[..., Any]:
    @functools.wraps(run)
    async def retrying(*args: Any, **kwargs: Any) -> Any:
        try:
            return await run(*args, **kwargs)
        except unwanted:
            raise
        except wanted as exc:
            again(exc)

    return retrying
