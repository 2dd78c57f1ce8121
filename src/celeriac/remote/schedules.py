"""Periodic tasks, seen and changed while schedulers run: ``app.schedules``."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from celeriac.connections import connect_timetable
from celeriac.errors import ScheduleError
from celeriac.remote.plan import Described, Plan, Run, decode, encode, key_of, plans_and_runs
from celeriac.schedules.base import BaseSchedule
from celeriac.schedules.interval import maybe_schedule
from celeriac.schedules.missed import MissedPolicy, checked_policy
from celeriac.schedules.written import Written, read, write
from celeriac.settings.spelling import did_you_mean
from celeriac.timetable import NOBODY, Timetable

__all__ = ["BeatStatus", "ScheduleInfo", "Schedules"]

_TRIES: Final = 20  # of a change, when others change the same entry
_MOST_ASKED: Final = 100
_UTC: Final = datetime.UTC
_GIVEN: Final = ("args", "kwargs", "options", "missed")
_LATE_SECONDS: Final = 10.0  # by then a call is sent, also when a scheduler had to take over


class ScheduleInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A periodic task as it is now."""

    name: str
    task: str
    schedule: str  # for people
    origin: str  # code; added; or changed: in the code, and something of it was changed
    paused: bool
    missed: MissedPolicy
    last_run: datetime.datetime | None  # when it was sent last; UTC
    last_slot: datetime.datetime | None  # for which time that was
    next_run: datetime.datetime | None
    times: int
    lag_seconds: float  # how long its next run has been due


class BeatStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How the schedulers of an app are."""

    store: str  # where they agree, passwords hidden
    leader: str | None  # pid@host of the one that sends, or did
    renewed: datetime.datetime | None  # when it last said so, by its clock; it does each second
    silent_seconds: float  # since then, by ours
    lag_seconds: float  # of the entry that has been due for the longest time
    last_run: datetime.datetime | None
    next_run: datetime.datetime | None
    entries: int

    @property
    def leads(self) -> bool:
        """Whether somebody leads, and is not silent for so long that others would have taken over."""
        return self.leader is not None and self.silent_seconds < _LATE_SECONDS

    @property
    def sends(self) -> bool:
        """Whether somebody leads and nothing is overdue."""
        return self.leads and self.lag_seconds < _LATE_SECONDS


class Schedules:
    """Sees and changes the periodic tasks of an app; what is changed counts in all schedulers within 2 s.

    Every method raises TransportError or BackendError when the store cannot be reached.

    Args:
        app: The app; a Celeriac.
    """

    def __init__(self, app: Any = None) -> None:  # Any: see above
        self.app = app

    def list(self) -> Sequence[ScheduleInfo]:
        """Return the entries by name, those of the code as soon as a scheduler has led with it."""
        with _closing(self._timetable()) as timetable:
            plans, runs = plans_and_runs(timetable.changes(0).lines)
        now = time.time()
        names = {name for name, plan in plans.items() if plan.added} | runs.keys()
        return [_info(name, plans.get(name), runs.get(name), now) for name in sorted(names)]

    def status(self) -> BeatStatus:
        """Return how the schedulers are."""
        with _closing(self._timetable()) as timetable:
            lead = timetable.lead()
            plans, runs = plans_and_runs(timetable.changes(0).lines)
        now = time.time()
        infos = [_info(name, plans.get(name), run, now) for name, run in runs.items()]
        return BeatStatus(
            store=timetable.address,
            leader=None if lead.holder == NOBODY else lead.holder.partition(" ")[0],
            renewed=_moment(lead.at or None),
            silent_seconds=round(max(now - lead.at, 0.0), 3) if lead.at else 0.0,
            lag_seconds=max((info.lag_seconds for info in infos), default=0.0),
            last_run=max((info.last_run for info in infos if info.last_run is not None), default=None),
            next_run=min((info.next_run for info in infos if info.next_run is not None), default=None),
            entries=len(infos),
        )

    def add(
        self,
        name: str,
        task: Any,
        schedule: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        missed: MissedPolicy = "once",
    ) -> None:
        """Add an entry.

        Args:
            name: Its name.
            task: The task, or its name.
            schedule: Seconds, timedelta, crontab or solar.
            args: Positional arguments of the call; such as JSON knows, like all that follows.
            kwargs: Keyword arguments of the call.
            options: Options of `apply_async`.
            missed: What becomes of runs that were missed: ``skip``, ``once`` or ``all``.

        Raises:
            ScheduleError: There is an entry of that name, the schedule is never due, or something of it
                cannot be kept.
        """
        entry = Described(
            task=_task_name(task),
            schedule=self._written(schedule),
            args=[*args],
            kwargs=dict(kwargs or {}),
            options=dict(options or {}),
            missed=checked_policy(missed),
        )

        def change(plan: Plan | None, known: bool) -> Plan:
            if known:
                raise ScheduleError(
                    f"there is an entry named {name!r} already: update it, or give this one another name"
                )
            return Plan(name=name, added=True, entry=entry, since=time.time())

        self._edit(name, change, new=True)

    def update(
        self, name: str, *, task: Any = None, schedule: Any = None, **changes: Any
    ) -> None:  # Any: see `add`
        """Change an entry; what is not named stays. One of the code keeps the change until it is removed.

        Args:
            name: The entry's name.
            task: The task, or its name.
            schedule: When it is due; counted from now on.
            **changes: ``args``, ``kwargs``, ``options`` and ``missed``, as for `add`.

        Raises:
            ScheduleError: There is no such entry; the schedule is never due; something cannot be kept.
            TypeError: There is nothing of that name to be changed.
        """
        if unknown := changes.keys() - set(_GIVEN):
            raise TypeError(
                f"update() knows task, schedule, {', '.join(_GIVEN)}, not {', '.join(sorted(unknown))}"
            )
        if changes.get("missed") is not None:
            checked_policy(changes["missed"])
        given: dict[str, Any] = {key: value for key, value in changes.items() if value is not None}
        if task is not None:
            given["task"] = _task_name(task)
        if schedule is not None:
            given["schedule"] = self._written(schedule)

        def change(plan: Plan | None, known: bool) -> Plan:
            plan = plan or Plan(name=name)
            entry = msgspec.structs.replace(plan.entry, **given)
            since = plan.since if schedule is None else time.time()
            return msgspec.structs.replace(plan, entry=entry, since=since)

        self._edit(name, change)

    def pause(self, name: str) -> None:
        """Have an entry not sent until `resume`.

        Raises:
            ScheduleError: There is no such entry.
        """
        self._edit(name, lambda plan, known: msgspec.structs.replace(plan or Plan(name=name), paused=True))

    def resume(self, name: str) -> None:
        """Have an entry sent again; its runs count from now on.

        Raises:
            ScheduleError: There is no such entry.
        """

        def change(plan: Plan | None, known: bool) -> Plan:
            plan = plan or Plan(name=name)
            return msgspec.structs.replace(plan, paused=False, since=time.time()) if plan.paused else plan

        self._edit(name, change)

    def run_now(self, name: str) -> None:
        """Have an entry sent once more, now, also a paused one; its schedule goes on as it was.

        Raises:
            ScheduleError: There is no such entry.
        """

        def change(plan: Plan | None, known: bool) -> Plan:
            plan = plan or Plan(name=name)
            asked = max([time.time(), *(one + 1e-6 for one in plan.asked[-1:])])
            return msgspec.structs.replace(plan, asked=[*plan.asked[1 - _MOST_ASKED :], asked])

        self._edit(name, change)

    def remove(self, name: str) -> None:
        """Remove an entry that was added; of one of the code, all that was changed.

        Raises:
            ScheduleError: There is nothing to remove.
        """

        def change(plan: Plan | None, known: bool) -> None:
            if plan is None:
                raise ScheduleError(
                    f"the entry {name!r} is in the code: remove it there; pause() stops it until then"
                )

        self._edit(name, change)

    # --- inside -------------------------------------------------------------------------------------

    def _timetable(self) -> Timetable:
        app = self.app
        return connect_timetable(app.conf, app.transport, lambda: app.backend, app_name=app.main)

    def _written(self, given: Any) -> Written:
        is_interval = isinstance(given, (int, float, datetime.timedelta))
        written = write(maybe_schedule(given) if is_interval else given)
        found: BaseSchedule = read(written, self.app)
        found.is_due(found.now())  # one that can never be due is told here
        return written

    def _edit(
        self, name: str, change: Callable[[Plan | None, bool], Plan | None], *, new: bool = False
    ) -> None:
        """Change the plan of an entry; again, when somebody else has changed it meanwhile."""
        key = key_of("plan", name)
        with _closing(self._timetable()) as timetable:
            for _ in range(_TRIES):
                lines = timetable.changes(0).lines
                line = lines.get(key)
                plan = None if line is None else decode(key, line)
                assert plan is None or isinstance(plan, Plan)
                plans, runs = plans_and_runs(lines)
                names = {*plans, *runs, *(self.app.conf.beat_schedule or {})}
                if name not in names and not new:
                    raise ScheduleError(f"there is no entry named {name!r}{_hint(name, names)}")
                changed = change(plan, name in names)
                if changed is not None and changed == plan:
                    return
                value = None if changed is None else encode(changed)
                if timetable.edit(key, value, 0 if line is None else line.revision):
                    return
        raise ScheduleError(
            f"the entry {name!r} was changed by others all the time; nothing was changed here"
        )


class _closing:  # noqa: N801 - as `contextlib.closing`, with the type of what it closes
    def __init__(self, timetable: Timetable) -> None:
        self._timetable = timetable

    def __enter__(self) -> Timetable:
        return self._timetable

    def __exit__(self, *exc_info: object) -> None:
        self._timetable.close()


def _task_name(task: Any) -> str:  # Any: a task, or its name
    name = task if isinstance(task, str) else getattr(task, "name", None)
    if not isinstance(name, str) or not name:
        raise ScheduleError(f"the call of an entry is a task or the name of one, not {task!r}")
    return name


def _hint(name: str, names: set[str]) -> str:
    meant = did_you_mean(name, sorted(names))
    return f"; did you mean {meant!r}?" if meant else ""


def _info(name: str, plan: Plan | None, run: Run | None, now: float) -> ScheduleInfo:
    plan = plan or Plan(name=name)
    run = run or Run(name=name, since=plan.since)
    changed = plan.entry != Described()
    overdue = 0.0 if run.next is None or plan.paused else max(now - run.next, 0.0)
    written = plan.entry.schedule
    return ScheduleInfo(
        name=name,
        task=run.task or plan.entry.task or "",
        schedule=run.schedule or ("" if written is None else str(read(written))),
        origin="added" if plan.added else "changed" if changed else "code",
        paused=plan.paused,
        missed=plan.entry.missed or run.missed,
        last_run=_moment(run.at),
        last_slot=_moment(run.slot),
        next_run=_moment(run.next),
        times=run.times,
        lag_seconds=round(overdue, 3),
    )


def _moment(seconds: float | None) -> datetime.datetime | None:
    return None if seconds is None else datetime.datetime.fromtimestamp(seconds, _UTC)
