"""Tells what schedules say, case by case; runs under real Celery and under ours, and answers in JSON."""

import datetime
import heapq
import importlib
import json
import pickle
import sys
from zoneinfo import ZoneInfo

from celery import Celery
from celery.beat import PersistentScheduler, ScheduleEntry, event_t
from celery.beat import Scheduler as PlainScheduler
from celery.schedules import crontab, maybe_schedule, schedule, solar

MAKERS = {"crontab": crontab, "schedule": schedule, "solar": solar, "from_string": crontab.from_string}


def make(case, app, nowfun=None):
    """Return the schedule of a case: its maker, positional and keyword arguments."""
    made = MAKERS[case["make"]](*case["args"], **case.get("kwargs", {}))
    made.app = app
    made.nowfun = nowfun
    return made


def answer(case):
    """Return what a schedule says of a last run, at a given time: or the error's base classes."""
    zone = ZoneInfo(case.get("zone", "UTC"))
    app = Celery("almanac", broker="memory://", set_as_current=False)
    app.conf.timezone = str(zone)
    app.conf.beat_cron_starting_deadline = case.get("deadline_seconds")
    now = datetime.datetime.fromisoformat(case["now"]).astimezone(zone)
    last = datetime.datetime.fromisoformat(case["last"]).astimezone(zone)
    try:
        made = make(case, app, lambda: now)
        due, next_seconds = made.is_due(last)
        return {
            "remaining": made.remaining_estimate(last).total_seconds(),
            "due": due,
            "next": next_seconds,
            "repr": repr(made),
        }
    except (TypeError, ValueError, RuntimeError) as exc:
        return {
            "error": [cls.__name__ for cls in (ValueError, TypeError, RuntimeError) if isinstance(exc, cls)]
        }
    except Exception as exc:
        return {"error": [type(exc).__name__]}


def same(pair):
    """Return whether two schedules are equal, how the first looks, and what its copy is."""
    one, other = (make(case, None) for case in pair)
    copy = pickle.loads(pickle.dumps(one))
    return [one == other, one != other, repr(one), copy == one, type(copy).__qualname__, repr(copy)]


def fields(case):
    """Return the numbers that each field of a crontab allows."""
    made = make(case, None)
    return [
        sorted(numbers)
        for numbers in (made.minute, made.hour, made.day_of_week, made.day_of_month, made.month_of_year)
    ]


def entry(case):
    """Return how an entry looks, what it becomes by a run, and what plug-ins ask of its scheduler."""
    app = Celery("almanac", broker="memory://", set_as_current=False)
    first = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    naive = first.replace(tzinfo=None)
    one = ScheduleEntry(last_run_at=first, schedule=make(case["schedule"], app), app=app, **case["entry"])
    later = first + datetime.timedelta(hours=1)
    following = one.next(later)
    scheduler = PlainScheduler(app, max_interval=77)
    scheduler.schedule[one.name] = one
    scheduler.populate_heap(event_t=event_t, heapify=heapq.heapify)
    heaps = {"heappop": heapq.heappop, "heappush": heapq.heappush}
    return [
        repr(one),
        [following.total_run_count, following.last_run_at == later, following == one, following != one],
        sorted(dict(one)),
        [round(scheduler.tick(event_t=event_t, min=min, **heaps)), scheduler.adjust(5), scheduler.adjust(0)],
        [[event.priority, event.entry.name] for event in scheduler._heap],
        make(case["schedule"], app).maybe_make_aware(naive, naive_as_utc=False).isoformat(),
    ]


def unpickle(text):
    """Return how an object that the other side pickled looks here."""
    return repr(pickle.loads(bytes.fromhex(text)))


def pickled(case):
    """Return a schedule as the bytes of its pickle."""
    return pickle.dumps(make(case, None)).hex()


def ticks(case):
    """Return when a scheduler that sleeps as long as it is told sends, in seconds since the epoch."""
    zone = ZoneInfo(case["zone"])
    now = datetime.datetime.fromisoformat(case["now"]).astimezone(zone)
    end = now + datetime.timedelta(days=case["days"])
    app = Celery("almanac", broker="memory://", set_as_current=False)
    app.conf.timezone = str(zone)
    made = make(case, app, lambda: now)
    last, sent = now, []
    while now < end:
        due, next_seconds = made.is_due(last)
        if due:
            sent.append(now.timestamp())
            last = now
        step = datetime.timedelta(seconds=max(next_seconds, 0.001))
        now = (now.astimezone(datetime.UTC) + step).astimezone(zone)
    return sent


class Turned:
    """The time of an app, of its schedules and of its scheduler."""

    def __init__(self, now):
        self.now = now

    def time(self):
        """Return it in seconds since the epoch."""
        return self.now.timestamp()

    monotonic = time

    def advance(self, seconds):
        """Let time pass, by the clocks that nobody changes."""
        zone = self.now.tzinfo
        self.now = (self.now.astimezone(datetime.UTC) + datetime.timedelta(seconds=seconds)).astimezone(zone)


def scheduled(case):
    """Return what a scheduler sends, entry by entry, in seconds since the epoch."""
    turned = Turned(datetime.datetime.fromisoformat(case["now"]).astimezone(ZoneInfo(case["zone"])))
    end = turned.time() + case["days"] * 86400
    sent = {name: [] for name in case["entries"]}

    class App(Celery):
        def now(self):
            return turned.now

    # Real Celery's writes entries to a file and reads them back without their app, and so without its time.
    ours = hasattr(PersistentScheduler, "open_timetable")

    class Scheduler(PersistentScheduler if ours else PlainScheduler):
        producer = None
        clock = turned  # ours asks this, too
        look_seconds = 3600.0

        def open_timetable(self):
            return importlib.import_module("celeriac.transports.memory_timetable").MemoryTimetable()

        def apply_entry(self, entry, producer=None):
            sent[entry.name].append(turned.time())

    app = App("almanac", broker="memory://", set_as_current=False)
    app.conf.timezone = case["zone"]
    app.conf.result_expires = None
    app.conf.beat_schedule = {
        name: {"task": "t", "schedule": make(one, app), **one.get("entry", {})}
        for name, one in case["entries"].items()
    }
    scheduler = Scheduler(app, max_interval=3600)
    while turned.time() < end:
        turned.advance(max(scheduler.tick(), 0.001))
    scheduler.close()
    return sent


OPERATIONS = {
    "answer": answer,
    "entry": entry,
    "fields": fields,
    "maybe": lambda seconds: repr(maybe_schedule(seconds)),
    "pickled": pickled,
    "same": same,
    "scheduled": scheduled,
    "ticks": ticks,
    "unpickle": unpickle,
}

if __name__ == "__main__":
    print(json.dumps([OPERATIONS[name](case) for name, case in json.load(sys.stdin)]))
