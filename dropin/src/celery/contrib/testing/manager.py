"""Waiting for tasks in tests that run against real workers."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping
from itertools import count, repeat
from typing import Any, TextIO

from celery import exceptions
from celery.result import GroupResult, ResultSet
from celery.utils.text import truncate

# Any in this module: results, and values of tasks

__all__ = ("Manager", "ManagerMixin", "Sentinel")

E_STILL_WAITING = "Still waiting for {0}.  Trying again {when}: {exc!r}"

_POLL_SECONDS = 0.5


class Sentinel(Exception):
    """Raised to say that something is not so yet."""


class ManagerMixin:
    """Waits for results and states of tasks, and says on standard error what it waits for."""

    app: Any
    stdout: TextIO
    stderr: TextIO

    def _init_manager(
        self,
        block_timeout: float = 30 * 60.0,
        no_join: bool = False,
        stdout: TextIO | None = None,
        stderr: TextIO | None = None,
    ) -> None:
        self.stdout = sys.stdout if stdout is None else stdout
        self.stderr = sys.stderr if stderr is None else stderr
        self.connerrors: tuple[type[BaseException], ...] = self.app.connection().recoverable_connection_errors
        self._not_yet = (exceptions.TimeoutError, *self.connerrors)
        self.block_timeout = block_timeout
        self.no_join = no_join
        self.progress: Any = None

    # --- saying ----------------------------------------------------------------------------------------

    def remark(self, s: Any, sep: str = "-") -> None:
        """Print a line."""
        self.stdout.write(f"{sep}{s}\n")

    def warn(self, s: Any) -> None:
        """Print a line on standard error."""
        self.stderr.write(f"WARNING: {s}\n")

    def missing_results(self, r: Iterable[Any]) -> list[str]:
        """Return the ids of those results that are not there."""
        return [result.id for result in r if not result.ready()]

    # --- waiting ---------------------------------------------------------------------------------------

    def wait_for(
        self,
        fun: Callable[..., Any],
        catch: Any,
        desc: str = "thing",
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        errback: Callable[..., object] | None = None,
        max_retries: int = 10,
        interval_start: float = 0.1,
        interval_step: float = 0.5,
        interval_max: float = 5.0,
        emit_warning: bool = False,
        **options: Any,
    ) -> Any:
        """Call a function until it does not raise, and return what it returns.

        Args:
            fun: The function.
            catch: The errors that mean: not yet.
            desc: What is waited for.
            args: For the function.
            kwargs: For the function.
            errback: Called with the error, the pauses to come and the number of retries.
            max_retries: How often to try again.
            interval_start: The first pause, in seconds.
            interval_step: How much longer each is than the one before.
            interval_max: The longest.
            emit_warning: Say each time what is waited for.
            **options: Accepted for Celery's sake.
        """
        for retries in count(1):
            try:
                return fun(*args, **(kwargs or {}))
            except catch as exc:
                if max_retries is not None and retries > max_retries:
                    raise
                pause = min(interval_start + interval_step * (retries - 1), interval_max)
                if errback is not None:
                    errback(exc, repeat(pause), retries)
                if emit_warning:
                    when = f"in {pause:.2f} seconds" if pause else "now"
                    self.warn(E_STILL_WAITING.format(desc, when=when, exc=exc))
                time.sleep(pause)
        raise AssertionError("it is tried again until it raises or returns")

    def ensure_not_for_a_while(
        self,
        fun: Callable[..., Any],
        catch: Any,
        desc: str = "thing",
        max_retries: int = 20,
        interval_start: float = 0.1,
        interval_step: float = 0.02,
        interval_max: float = 1.0,
        emit_warning: bool = False,
        **options: Any,
    ) -> None:
        """Make sure that something does not come to be; the arguments are those of `wait_for`.

        Raises:
            AssertionError: It is so.
        """
        try:
            self.wait_for(
                fun,
                catch,
                desc=desc,
                max_retries=max_retries,
                interval_start=interval_start,
                interval_step=interval_step,
                interval_max=interval_max,
                emit_warning=emit_warning,
                **options,
            )
        except catch:
            return
        raise AssertionError(f"Should not have happened: {desc}")

    def retry_over_time(self, *args: Any, **kwargs: Any) -> Any:
        """Call a function until it does not raise; see `wait_for`."""
        return self.wait_for(*args, **kwargs)

    def join(self, r: Any, propagate: bool = False, max_retries: int = 10, **kwargs: Any) -> Any:
        """Wait for results, saying what is missing, and return them.

        Args:
            r: A result, or a set of them.
            propagate: Raise what tasks raised.
            max_retries: How often a timeout is borne.
            **kwargs: For ``get``.

        Raises:
            AssertionError: They did not come.
        """
        if self.no_join:
            return None
        results = r if isinstance(r, ResultSet) else ResultSet([r])
        received: list[str] = []

        def on_result(task_id: str, value: Any) -> None:
            received.append(task_id)

        kwargs.setdefault("timeout", 10.0)
        for retries in range(max_retries + 1):
            try:
                return results.get(callback=on_result, propagate=propagate, **kwargs)
            except self._not_yet as exc:
                waiting = [result.id for result in results.results if result.id not in received]
                self.remark(
                    f"Still waiting for {len(waiting)}/{len(results)}: [{truncate(', '.join(waiting))}]: "
                    f"{exc!r} ({retries})",
                    "!",
                )
                received.clear()
        raise AssertionError("Test failed: Missing task results")

    def wait_until_idle(self) -> None:
        """Wait until the workers run nothing."""
        active: Mapping[str, Any] | None = {"": [None]}
        while active and any(active.values()):
            active = self.inspect().active()
            if active and any(active.values()):
                time.sleep(_POLL_SECONDS)

    def true_or_raise(self, fun: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Return what a function returns.

        Raises:
            Sentinel: That is nothing.
        """
        found = fun(*args, **kwargs)
        if not found:
            raise Sentinel
        return found

    # --- states ----------------------------------------------------------------------------------------

    def inspect(self, timeout: float = 3.0) -> Any:
        """Return what asks the workers."""
        return self.app.control.inspect(timeout=timeout)

    def query_tasks(self, ids: Iterable[str], timeout: float = 0.5) -> Any:
        """Return what each worker that answers knows of tasks, by the worker's name."""
        replies: Mapping[str, Any] = self.inspect(timeout).query_task(*ids) or {}
        return iter(replies.items())

    def query_task_states(self, ids: Iterable[str], timeout: float = 0.5) -> dict[str, set[str]]:
        """Return the ids of the tasks that workers know, by their state there."""
        states: dict[str, set[str]] = {}
        for _, reply in self.query_tasks(ids, timeout=timeout):
            for task_id, (state, _) in reply.items():
                states.setdefault(state, set()).add(task_id)
        return states

    def assert_accepted(
        self,
        ids: Iterable[str],
        interval: float = 0.5,
        desc: str = "waiting for tasks to be accepted",
        **policy: Any,
    ) -> Any:
        """Wait until workers run the tasks, or have."""
        return self.assert_task_worker_state(self.is_accepted, ids, interval=interval, desc=desc, **policy)

    def assert_received(
        self,
        ids: Iterable[str],
        interval: float = 0.5,
        desc: str = "waiting for tasks to be received",
        **policy: Any,
    ) -> Any:
        """Wait until workers have taken the tasks."""
        return self.assert_task_worker_state(self.is_received, ids, interval=interval, desc=desc, **policy)

    def assert_result_tasks_in_progress_or_completed(
        self,
        async_results: Iterable[Any],
        interval: float = 0.5,
        desc: str = "waiting for tasks to be started or completed",
        **policy: Any,
    ) -> Any:
        """Wait until the tasks of results have begun."""
        return self.assert_task_state_from_result(
            self.is_result_task_in_progress, async_results, interval=interval, desc=desc, **policy
        )

    def assert_task_state_from_result(
        self, fun: Callable[..., Any], results: Iterable[Any], interval: float = 0.5, **policy: Any
    ) -> Any:
        """Wait until a function says so of results."""
        return self.wait_for(
            self.true_or_raise,
            (Sentinel,),
            args=(fun, results),
            kwargs={"timeout": interval},
            **policy,
        )

    def assert_task_worker_state(
        self, fun: Callable[..., Any], ids: Iterable[str], interval: float = 0.5, **policy: Any
    ) -> Any:
        """Wait until a function says so of ids."""
        return self.wait_for(
            self.true_or_raise, (Sentinel,), args=(fun, ids), kwargs={"timeout": interval}, **policy
        )

    @staticmethod
    def is_result_task_in_progress(results: Any, **kwargs: Any) -> bool:
        """Return whether the tasks of results have begun."""
        found = results.results if isinstance(results, (GroupResult, ResultSet)) else results
        return all(result.state in {"STARTED", "SUCCESS"} for result in found)

    def is_received(self, ids: Iterable[str], **kwargs: Any) -> bool:
        """Return whether workers have all of the tasks."""
        return self._ids_matches_state({"reserved", "active", "ready"}, ids, **kwargs)

    def is_accepted(self, ids: Iterable[str], **kwargs: Any) -> bool:
        """Return whether workers run all of the tasks, or have."""
        return self._ids_matches_state({"active", "ready"}, ids, **kwargs)

    def _ids_matches_state(self, expected_states: set[str], ids: Iterable[str], timeout: float = 0.5) -> bool:
        states = self.query_task_states(list(ids), timeout=timeout)
        return all(any(id_ in states.get(state, ()) for state in expected_states) for id_ in ids)


class Manager(ManagerMixin):
    """Waits for tasks of an app.

    Args:
        app: The app.
        **kwargs: ``block_timeout``, ``no_join``, ``stdout`` and ``stderr``.
    """

    def __init__(self, app: Any, **kwargs: Any) -> None:
        self.app = app
        self._init_manager(**kwargs)
