"""The scheduler that knows what was sent, whoever sent it: any number of them may run at once."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from celeriac import ids
from celeriac.beat.agenda import Agenda
from celeriac.beat.book import Book
from celeriac.beat.leadership import LOOK_SECONDS, Leadership
from celeriac.beat.scheduler import RETRY_SECONDS, Scheduler
from celeriac.beat.tick_producer import Tick, TickProducer, task_id_of
from celeriac.connections import connect_timetable, timetable_owner
from celeriac.errors import BackendError, ScheduleError, TransportError
from celeriac.message import Once
from celeriac.remote.plan import Plan, Run, encode, key_of
from celeriac.schedules import Owed, crontab, owed
from celeriac.schedules.written import read
from celeriac.timetable import Timetable

__all__ = ["PersistentScheduler"]

_UTC: Final = datetime.UTC
_SHORTEST_SECONDS: Final = 0.001
_NO_PLAN: Final = Plan(name="")


class PersistentScheduler(Scheduler):
    """Sends each slot of each entry once, however many schedulers run and whichever of them dies.

    1. Stand by until it leads, see `Leadership`.
    2. Read what was sent last, and what people have changed (`app.schedules`).
    3. Send what is due, numbered by its slot: a broker that counts drops what is sent a second time.
    4. Note each run when it was sent. In this order, so that a death in between loses nothing.

    Args:
        *args: As for `Scheduler`.
        **kwargs: Likewise; ``schedule_filename`` names a file to be used instead of the broker.
    """

    look_seconds: float = LOOK_SECONDS

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.schedule_filename: str | None = kwargs.get("schedule_filename")
        self._coded: dict[str, Any] = {}  # entries as the program has them, without what was changed
        self._known: dict[str, Any] = {}  # entries as they were when the agenda was made
        self._agenda = Agenda()
        self._doubtful: set[str] = set()  # entries whose last call the broker may or may not have
        self._unanswered: set[str] = set()  # entries that may have been asked to be run at once
        self._led_since = math.inf
        self._next_look = -math.inf
        self._store_is_away = False
        super().__init__(*args, **kwargs)

    # --- beginning and end --------------------------------------------------------------------------

    def open_timetable(self) -> Timetable:
        """Return what is shared with other schedulers."""
        app = self.app
        return connect_timetable(
            app.conf,
            app.transport,
            lambda: app.backend,
            app_name=app.main,
            filename=self.schedule_filename,
        )

    def setup_schedule(self) -> None:
        """Read the entries of the program."""
        super().setup_schedule()
        self._coded = dict(self.schedule)
        self._owner = timetable_owner(self.app.conf, self.app.main)
        self._timetable = self.open_timetable()
        self._leadership = Leadership(self._timetable, self.clock)
        self._book = Book(self._timetable)
        self._sender: TickProducer | None = None
        self._events: Any = None  # Any: an EventDispatcher of the app

    def close(self) -> None:
        """Give the lead back, and let go of the store."""
        super().close()
        try:
            self._leadership.resign()
        except (TransportError, BackendError) as exc:
            self.logger.warning("beat: The lead was not given back (%s); others take over in a moment.", exc)
        self._timetable.close()
        for part in (self._sender, self._events):
            if part is not None:
                part.close()
        self._sender = self._events = None

    @property
    def info(self) -> str:
        """A line for the banner."""
        return f"    . db -> {self._timetable.address}"

    @property
    def trouble(self) -> str | None:
        """Why nothing is sent although it may be due; None: nothing is wrong."""
        return f"the timetable at {self._timetable.address} cannot be used" if self._store_is_away else None

    def runs(self) -> Mapping[str, Run] | None:
        """Return the runs of the entries by name; None when another scheduler leads. Safe for threads."""
        return None if self._leadership.term is None else dict(self._book.runs)

    # --- ticking ------------------------------------------------------------------------------------

    def tick(self, *_: Any, **__: Any) -> float:
        """Send the call that is due, if one is and we lead; return how many seconds later to tick again."""
        until_look = self._next_look - self.clock.monotonic()
        if until_look <= 0:
            until_look = self.look_seconds
            self._next_look = self.clock.monotonic() + until_look
            if not self._look():
                return min(until_look, self.max_interval)
        until_look = min(until_look, self.max_interval)
        first = (
            self._agenda.first() if self._leadership.term is not None and not self._store_is_away else None
        )
        if first is None:
            return until_look
        until_first = first[0] - self.clock.time()
        if until_first > 0:
            return min(until_first, until_look)
        try:
            self._turn_to(first[1])
        except (TransportError, BackendError) as exc:
            self._store_away(exc)
        return 0.0

    def _look(self) -> bool:
        """Look at the timetable; whether we lead."""
        led = self._leadership.term
        try:
            if not self._leadership.ask():
                self._stand_by()
                return False
            if led is None or self._leadership.term != led + 1:
                self._begin_to_lead()
                self._unanswered = set(self._book.plans)
            else:
                for name in self._book.heed():
                    self._heed(name)
                    self._unanswered.add(name)
            self._heed_program()
            self._write()
            for name in list(self._unanswered):
                self._answer(name)
        except (TransportError, BackendError) as exc:
            self._store_away(exc)
            return False
        if self._store_is_away:
            self._store_is_away = False
            self.logger.warning("beat: The timetable at %s can be used again.", self._timetable.address)
        return self._leadership.term is not None

    def _store_away(self, exc: Exception) -> None:
        if not self._store_is_away:
            self._store_is_away = True
            self.logger.error(
                "beat: The timetable cannot be used: %s Nothing is sent until it can; what is due meanwhile "
                "is sent then, as the entries' policies for missed runs say.",
                exc,
            )

    def _begin_to_lead(self) -> None:
        self._led_since = self.clock.time()
        self._book.read()
        self._added_by_program()  # before runs of what nobody knows are forgotten
        self._agenda.clear()
        self._known.clear()
        for name in {**self._coded, **self._book.plans}:
            self._heed(name)
        for name in [name for name in self._book.runs if name not in self._known]:
            self._book.forget(name)
        self.logger.info("beat: This scheduler leads; entries: %d.", len(self._known))

    def _stand_by(self) -> None:
        self._agenda.clear()
        self._doubtful.clear()

    def _write(self) -> None:
        term = self._leadership.term
        if term is not None and not self._book.write(term):
            self.logger.warning("beat: Another scheduler has taken the lead meanwhile; this one stands by.")
            self._leadership.term = None
            self._stand_by()

    # --- entries ------------------------------------------------------------------------------------

    def _heed(self, name: str) -> None:
        """Take an entry over as the program and its plan have it now."""
        plan = self._book.plans.get(name, _NO_PLAN)
        entry = self._planned(name, plan)
        if entry is None:
            self.schedule.pop(name, None)
            self._known.pop(name, None)
            self._agenda.drop(name)
            self._book.forget(name)
            return
        now = self.clock.time()
        run = self._book.runs.get(name) or Run(name=name, since=now)
        entry.last_run_at = _local(max(run.base, plan.since), entry)
        entry.total_run_count = run.times
        self.schedule[name] = self._known[name] = entry
        described = {"task": str(entry.task), "schedule": _shown(entry.schedule), "missed": entry.missed}
        self._book.note(msgspec.structs.replace(run, **described))
        if plan.paused:
            self._agenda.drop(name)
            self._note_next(name, None)
        else:
            self._plan_next(name, entry)

    def _planned(self, name: str, plan: Plan) -> Any:  # Any: an entry, or None
        coded = self._coded.get(name)
        if coded is None and not plan.added:
            return None
        described = plan.entry
        changed = {
            key: value
            for key in ("task", "args", "kwargs", "options", "missed")
            if (value := getattr(described, key)) is not None
        }
        if coded is not None and plan.added:
            self.logger.warning(
                "beat: There are two entries named %r, one in the code and one that was added: the one that "
                "was added counts until it is removed. Give one another name.",
                name,
            )
        try:
            if described.schedule is not None:
                changed["schedule"] = read(described.schedule, self.app)
            if coded is None:
                entry = self.Entry(name=name, app=self.app, **changed)
            elif changed:
                entry = _twin(coded, **changed)
            else:
                return coded
            entry.is_due()  # a schedule that can never be is told here
        except (ScheduleError, TypeError, ValueError) as exc:
            kept = "" if coded is None else "; it stays as the code has it"
            self.logger.error("beat: The entry %r cannot be as its plan says: %s%s", name, exc, kept)
            return coded
        return entry

    def _heed_program(self) -> None:
        """Take over what the program has added to `schedule` or removed from it by itself."""
        for name in self._added_by_program():
            self._heed(name)
        schedule, known = self.schedule, self._known
        if len(known) > len(schedule):
            for name in [name for name in known if name not in schedule]:
                self._coded.pop(name, None)
                self._heed(name)

    def _added_by_program(self) -> list[str]:
        """Note which entries the program has added or replaced, and return their names."""
        schedule, known = self.schedule, self._known
        names = [name for name, entry in schedule.items() if known.get(name) is not entry]
        self._coded.update((name, schedule[name]) for name in names)
        return names

    def _plan_next(self, name: str, entry: Any) -> None:
        """Put an entry down for when there is something to do about it."""
        found = self._owed(name, entry)
        if found is not None:
            self._put_down(name, 0.0 if found.slot or found.upto else found.wait_seconds)

    def _put_down(self, name: str, wait_seconds: float | None) -> None:
        if wait_seconds is None:  # such as a one-off that has been
            self._agenda.drop(name)
            self._note_next(name, None)
            return
        time = self.clock.time() + max(wait_seconds, 0.0)
        self._agenda.put(name, time)
        self._note_next(name, round(time, 3))

    def _note_next(self, name: str, time: float | None) -> None:
        self._book.note(msgspec.structs.replace(self._book.runs[name], next=time))

    def _owed(self, name: str, entry: Any) -> Owed | None:
        """Return what an entry owes; None when its schedule cannot tell, and is asked again later."""
        deadline = self.app.conf.beat_cron_starting_deadline if isinstance(entry.schedule, crontab) else None
        try:
            return owed(entry.schedule, entry.last_run_at, entry.default_now(), entry.missed, deadline)
        except Exception:
            # A schedule may be the user's own class: what it raises must not keep others from being sent.
            self.logger.exception(
                "beat: The schedule of %r cannot tell when it is due; it is asked again.", name
            )
            self._agenda.put(name, self.clock.time() + RETRY_SECONDS)
            return None

    # --- sending ------------------------------------------------------------------------------------

    def _turn_to(self, name: str) -> None:
        """Do what is to be done about an entry now."""
        entry = self.schedule.get(name)
        found = None if entry is None else self._owed(name, entry)
        if entry is None:
            self._agenda.drop(name)
        elif found is None:
            return
        elif found.slot is not None:
            self._send_slot(name, entry, found)
        elif found.upto is not None:
            self._pass_over(name, entry, found)
        else:
            # Never at once: a clock that is a moment behind would have us ask in a circle.
            wait = found.wait_seconds
            self._put_down(name, None if wait is None else max(wait, _SHORTEST_SECONDS))

    def _pass_over(self, name: str, entry: Any, found: Owed) -> None:
        assert found.upto is not None
        self.logger.warning(
            "beat: %s was missed up to %s and is not sent (missed=%r).",
            name,
            found.upto.isoformat(),
            entry.missed,
        )
        entry.last_run_at = _local(found.upto.timestamp(), entry)
        run = self._book.runs[name]
        self._book.note(
            msgspec.structs.replace(run, slot=found.upto.timestamp(), passed_over=run.passed_over + 1)
        )
        self._put_down(name, found.wait_seconds)
        self._write()

    def _send_slot(self, name: str, entry: Any, found: Owed) -> None:
        assert found.slot is not None
        once = Once(f"{self._owner}/{name}", found.slot.timestamp())
        now, upto = self.clock.time(), found.upto or entry.default_now()
        time = None if found.wait_seconds is None else round(now + found.wait_seconds, 3)
        run = self._book.runs[name]
        times = entry.total_run_count + 1
        run = msgspec.structs.replace(run, slot=upto.timestamp(), at=now, times=times, next=time)
        in_doubt = name in self._doubtful or once.number <= self._led_since
        following = self.reserve(entry)
        if not self._send_call(entry, once, run, in_doubt=in_doubt):
            self.schedule[name] = self._known[name] = entry
            self._doubtful.add(name)
            self._agenda.put(name, now + RETRY_SECONDS)
            return
        self._doubtful.discard(name)
        following.last_run_at = _local(upto.timestamp(), following)
        self.schedule[name] = self._known[name] = following
        if time is None:
            self._agenda.drop(name)
        else:
            self._agenda.put(name, time)
        self._note(run)
        self._tell(run)
        self.sent(following)

    def _send_call(self, entry: Any, once: Once, run: Run, *, in_doubt: bool) -> bool:
        """Send the call of an entry; whether the broker has taken it.

        Args:
            entry: The entry.
            once: Its slot.
            run: What is to be noted then.
            in_doubt: Whether it may have been sent before.
        """
        if self._sender is None:
            self._sender = TickProducer(self.app.transport, self._timetable)
        term = self._leadership.term
        assert term is not None, "who does not lead sends nothing"
        task_id = (entry.options or {}).get("task_id") or task_id_of(once)
        lines: dict[str, bytes | None] = {key_of("run", run.name): encode(run)}
        self._sender.begin(Tick(once=once, task_id=task_id, in_doubt=in_doubt, lines=lines, term=term))
        call = _twin(entry, options={**(entry.options or {}), "task_id": task_id})
        self._unsent = None
        self.apply_entry(call, producer=self._sender)
        return self._unsent is None

    def _note(self, run: Run) -> None:
        """Note a run that was sent."""
        if self._sender is not None and self._sender.noted:
            self._book.written(run)
        else:
            self._book.note(run)
            self._write()

    def _tell(self, run: Run) -> None:
        """Tell those who listen to events of a run."""
        if not self.app.conf.task_send_sent_event:
            return
        if self._events is None:
            self._events = self.app.events.Dispatcher(hostname=ids.origin())
        assert run.at is not None
        assert run.slot is not None
        try:
            self._events.send(
                "beat-run", name=run.name, task=run.task, slot=run.slot, lag=run.at - run.slot, next=run.next
            )
        except TransportError as exc:
            self.logger.warning("beat: No event tells that %s was sent: %s", run.name, exc)

    def _answer(self, name: str) -> None:
        """Send an entry as often as somebody has asked that it be run at once."""
        plan, entry = self._book.plans.get(name, _NO_PLAN), self.schedule.get(name)
        for asked in sorted(plan.asked) if entry is not None else ():
            run = self._book.runs[name]
            if asked <= run.answered or self._leadership.term is None:
                continue
            times = run.times + 1
            run = msgspec.structs.replace(run, answered=asked, at=self.clock.time(), times=times)
            if not self._send_call(entry, Once(f"{self._owner}/{name}!now", asked), run, in_doubt=True):
                return
            entry.total_run_count = times
            self._note(run)
        self._unanswered.discard(name)


def _twin(entry: Any, **changes: Any) -> Any:
    """Return a copy with other attributes, the schedule being the same object; `copy` would make it anew."""
    twin = object.__new__(type(entry))
    vars(twin).update(vars(entry), **changes)
    return twin


def _local(time: float, entry: Any) -> datetime.datetime:
    zone = getattr(entry.schedule, "tz", None) or _UTC
    return datetime.datetime.fromtimestamp(time, _UTC).astimezone(zone)


def _shown(schedule: Any) -> str:
    return str(schedule)
