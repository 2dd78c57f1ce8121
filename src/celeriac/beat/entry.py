"""One entry of a periodic schedule: what to call, when, and when it was called last."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from typing import Any, Self

from celeriac.app import Celeriac
from celeriac.schedules import MissedPolicy, maybe_schedule
from celeriac.schedules.missed import checked_policy

__all__ = ["BeatLazyFunc", "ScheduleEntry", "evaluated"]

_UTC = datetime.UTC


class BeatLazyFunc:
    """An argument of an entry that is computed each time it is sent.

    Args:
        func: Computes it.
        *args: For the function.
        **kwargs: For the function.
    """

    def __init__(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self._func = func
        self._func_params = {"args": args, "kwargs": kwargs}

    def __call__(self) -> Any:  # Any: whatever the function returns
        return self.delay()

    def delay(self) -> Any:  # Any: as above
        """Return the value of now."""
        return self._func(*self._func_params["args"], **self._func_params["kwargs"])  # type: ignore[arg-type]  # a mapping


def evaluated(value: Any) -> Any:  # Any: an argument
    """Return an argument, computed where it is a `BeatLazyFunc`."""
    return value() if isinstance(value, BeatLazyFunc) else value


class ScheduleEntry:  # noqa: PLW1641 - unhashable, as it can be changed
    """One entry of a schedule.

    Args:
        name: Its name.
        task: The name of the task.
        last_run_at: When it was sent last; now without, so that it comes first after one interval.
        total_run_count: How often it was sent.
        schedule: When it is due: seconds, timedelta or schedule.
        args: Positional arguments of the call.
        kwargs: Keyword arguments of the call.
        options: Options of `apply_async`.
        relative: Whether an interval is a relative one.
        app: The app.
        missed: What becomes of runs that were missed: ``skip``, ``once`` or ``all``.

    Raises:
        ScheduleError: There is no such policy.
    """

    # The drop-in puts its own here, whose schedules are of the classes that other packages know.
    make_schedule: Callable[..., Any] = staticmethod(maybe_schedule)

    name: str | None = None
    schedule: Any = None  # Any: a schedule, or what a program takes for one
    args: Any = None  # Any: a sequence
    kwargs: Any = None  # Any: a mapping
    options: Any = None  # Any: a mapping
    last_run_at: datetime.datetime | None = None
    total_run_count: int = 0
    # On the instance only where it is another: plug-ins make copies with the attributes as arguments.
    missed: MissedPolicy = "once"

    def __init__(
        self,
        name: str | None = None,
        task: str | None = None,
        last_run_at: datetime.datetime | None = None,
        total_run_count: int | None = None,
        schedule: Any = None,
        args: Any = (),
        kwargs: Any = None,
        options: Any = None,
        relative: bool = False,
        app: Celeriac | None = None,
        missed: MissedPolicy = "once",
    ) -> None:
        if missed != "once":
            self.missed = checked_policy(missed)
        self.app: Any = app  # Any: a Celeriac; plug-ins put their own there
        self.name = name
        self.task = task
        self.args = args
        self.kwargs = kwargs or {}
        self.options = options or {}
        self.schedule = self.make_schedule(schedule, relative, app=app)
        self.last_run_at = last_run_at or self.default_now()
        self.total_run_count = total_run_count or 0

    def default_now(self) -> datetime.datetime:
        """Return the current time, as the schedule has it."""
        if self.schedule is not None:
            now: datetime.datetime = self.schedule.now()
            return now
        return datetime.datetime.now(_UTC) if self.app is None else self.app.now()

    _default_now = default_now

    def _next_instance(self, last_run_at: datetime.datetime | None = None) -> Self:
        """Return the entry as it is after one more run."""
        state = dict(self)
        state["last_run_at"] = last_run_at or self.default_now()
        state["total_run_count"] = self.total_run_count + 1
        return type(self)(**state)

    def __next__(self) -> Self:
        return self._next_instance()

    def next(self, last_run_at: datetime.datetime | None = None) -> Self:
        """Return the entry as it is after one more run.

        Args:
            last_run_at: When that was; now without.
        """
        return self._next_instance(last_run_at)

    def update(self, other: ScheduleEntry) -> None:
        """Take over what another entry of the name says; when it ran last stays."""
        self.task = other.task
        self.schedule = other.schedule
        self.args = other.args
        self.kwargs = other.kwargs
        self.options = other.options
        if other.missed != self.missed:
            self.missed = other.missed

    def is_due(self) -> tuple[bool, float]:
        """Return whether it is due now, and after how many seconds to ask again."""
        state: tuple[bool, float] = self.schedule.is_due(self.last_run_at)
        return state

    def editable_fields_equal(self, other: Any) -> bool:
        """Return whether another entry says the same, whenever it ran last."""
        return all(
            getattr(self, name) == getattr(other, name)
            for name in ("task", "args", "kwargs", "options", "schedule", "missed")
        )

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return iter(vars(self).items())

    def __eq__(self, other: object) -> bool:
        return self.editable_fields_equal(other) if isinstance(other, ScheduleEntry) else NotImplemented

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, ScheduleEntry):
            return NotImplemented
        return str(self.name) < str(other.name)  # a heap asks, where two are due at one time

    def __reduce__(self) -> tuple[Any, ...]:
        arguments = (
            self.name, self.task, self.last_run_at, self.total_run_count,
            self.schedule, self.args, self.kwargs, self.options,
        )  # fmt: skip
        return (
            (type(self), arguments)
            if self.missed == "once"
            else (type(self), arguments, {"missed": self.missed})
        )

    def __repr__(self) -> str:
        keywords = (f"{name}={value!r}" for name, value in (self.kwargs or {}).items())
        arguments = ", ".join([*map(repr, self.args or ()), *keywords])
        # The bracket that ends it is the schedule's own: so Celery has it.
        return f"<{type(self).__name__}: {self.name} {self.task}({arguments}) {self.schedule}"
