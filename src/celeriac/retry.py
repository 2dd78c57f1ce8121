"""Running a task again by itself when it raises certain exceptions: ``autoretry_for`` and its friends."""

from __future__ import annotations

import functools
import inspect
import random
from collections.abc import Callable
from typing import Any, NoReturn

from celeriac.errors import Ignore, Retry


def backoff_seconds(
    factor: int, retries: int, most: int, *, jitter: bool, choose: Callable[[int], int] = random.randrange
) -> int:
    """Return the pause before the next run: ``factor`` doubled with every retry, up to ``most``.

    Args:
        factor: Seconds before the first retry.
        retries: How many retries there were already.
        most: The longest pause in seconds.
        jitter: Pick any whole number of seconds from 0 to the pause, so that a crowd spreads out.
        choose: Picks from 0 up to, not including, its argument.
    """
    pause = min(most, factor * 2 ** min(retries, 64))
    if jitter:
        pause = choose(pause + 1)
    return max(0, pause)


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
    most = int(option("retry_backoff_max", 600))
    jitter = bool(option("retry_jitter", True))
    run = task.run

    def again(exc: Exception) -> NoReturn:
        if backoff:
            retry_kwargs["countdown"] = backoff_seconds(
                int(max(1.0, backoff)), task.request.retries, most, jitter=jitter
            )
        if hasattr(task, "override_max_retries"):
            retry_kwargs["max_retries"] = getattr(task, "override_max_retries", task.max_retries)
        reason = task.retry(exc=exc, **retry_kwargs)
        # `retry(throw=False)` has been overridden, or it returns: the run is over all the same.
        raise reason

    task._orig_run = run
    task.run = _wrap_async(run, wanted, unwanted, again) if _is_async(run) else _wrap(run, wanted, unwanted, again)


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


def _is_async(run: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(run)
