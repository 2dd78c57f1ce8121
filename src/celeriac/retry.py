"""Running a task again: ``self.retry()``, and by itself with ``autoretry_for`` and its friends."""

from __future__ import annotations

import functools
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NoReturn

from celeriac.backoff import exponential
from celeriac.canvas import Signature
from celeriac.context import Context
from celeriac.errors import Ignore, Retry
from celeriac.parameters import is_coroutine_function

# Headers that RabbitMQ adds to what it has dead-lettered; a retry is a new message.
_DEATH_HEADERS = ("x-death", "x-first-death", "x-last-death")


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


def delays(task: Any) -> Iterator[tuple[float, float]]:  # Any: see above
    """Yield the seconds before each retry of a task, the least and the most; without end if it may be.

    Those of a task with ``autoretry_for``, or of ``self.retry()`` without arguments.
    """
    kwargs = task.retry_kwargs if task.autoretry_for else {}
    most_retries = kwargs.get("max_retries", task.max_retries)
    for number in itertools.count() if most_retries is None else range(most_retries):
        if task.autoretry_for and task.retry_backoff:
            factor, maximum = float(task.retry_backoff), task.retry_backoff_max
            most = exponential(number, factor=factor, maximum=maximum, full_jitter=False)
            yield 0.0 if task.retry_jitter else most, most
        else:
            seconds = kwargs.get("countdown", task.default_retry_delay)
            yield seconds, seconds


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


def send_again(
    task: Any,  # Any: a Task
    args: Iterable[Any] | None,
    kwargs: Mapping[str, Any] | None,
    exc: BaseException | None,
    *,
    throw: bool,
    eta: Any,
    countdown: float | None,
    most: int | None,
    options: dict[str, Any],
) -> Retry:
    """Send the current call of a task again; `celeriac.task.Task.retry` says what the arguments are."""
    request = task.request
    retries = request.retries + 1
    if most is not None:
        task.override_max_retries = most
    else:
        most = task.max_retries
    if request.called_directly:
        # Nobody has sent it, so nobody can send it again: the caller gets what went wrong.
        raise_in_context(exc or Retry("Task can be retried", None))
    if not eta and countdown is None:
        countdown = task.default_retry_delay
    again = task.signature_from_request(
        request,
        args,
        kwargs,
        countdown=countdown,
        eta=eta,
        retries=retries,
        ignore_result=task.ignore_result if request.ignore_result is None else request.ignore_result,
        **options,
    )
    if most is not None and retries > most:
        request._retries_exhausted = True
        if exc is not None:
            raise_in_context(exc)
        raise task.MaxRetriesExceededError(
            f"Can't retry {task.name}[{request.id}] args:{tuple(again.args)} kwargs:{again.kwargs}",
            task_args=again.args,
            task_kwargs=again.kwargs,
        )
    verdict = Retry(exc=exc, when=eta or countdown, is_eager=request.is_eager, sig=again)
    if not request.is_eager:
        again.apply_async()
    if throw:
        raise verdict
    return verdict


def call_again(
    task: Any,  # Any: a Task
    request: Context,
    args: Iterable[Any] | None,
    kwargs: Mapping[str, Any] | None,
    queue: str | None,
    extra_options: Mapping[str, Any],
) -> Signature:
    """Return the signature that sends a call again, under its id and to where it came from."""
    if not request.called_directly:
        request._passed_on = True
    options = request.as_execution_options()
    if options["headers"]:
        options["headers"] = {k: v for k, v in options["headers"].items() if not k.startswith(_DEATH_HEADERS)}
    info = request.delivery_info or {}
    if info.get("priority") is not None:
        options["priority"] = info["priority"]
    if queue is not None:
        options["queue"] = queue
    elif info.get("exchange"):
        options.update(exchange=info["exchange"], routing_key=info.get("routing_key"))
    elif info.get("routing_key"):
        options["queue"] = info["routing_key"]
    options.update(extra_options)
    again: Signature = task.signature(
        request.args if args is None else args,
        request.kwargs if kwargs is None else kwargs,
        **{name: value for name, value in options.items() if value is not None},
    )
    return again


def raise_in_context(exc: BaseException) -> NoReturn:
    """Raise an exception, or the one that is being handled when that is the same; chained to the latter."""
    current = sys.exc_info()[1]
    if current is None or current is exc:
        raise exc
    raise exc from current
