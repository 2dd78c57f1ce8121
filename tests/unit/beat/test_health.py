"""A scheduler is asked over HTTP how it is."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from celeriac import Celeriac
from celeriac.beat import Scheduler, Service
from celeriac.beat.condition import families
from celeriac.beat.pulse import Pulse
from celeriac.clock import FakeClock
from celeriac.errors import ConfigError
from celeriac.node.health.exposition import render
from celeriac.remote.plan import Run
from health_probe import ask, figure, until

NOW = 1_800_000_000.0
_BROKERS = itertools.count()


def test_who_leads_tells_of_each_entry_and_of_the_one_that_is_due_for_the_longest_time() -> None:
    runs = {
        "late": Run(name="late", since=0, at=NOW - 90, times=7, passed_over=2, next=NOW - 30),
        "in time": Run(name="in time", since=0, at=NOW - 5, times=1, next=NOW + 55),
        "paused": Run(name="paused", since=0),
    }

    text = render(families(runs, NOW))

    assert figure(text, "celeriac_beat_leads") == 1
    assert figure(text, "celeriac_beat_entries") == 3
    assert figure(text, "celeriac_beat_lag_seconds") == 30
    assert figure(text, 'celeriac_beat_entry_lag_seconds{entry="late"}') == 30
    assert figure(text, 'celeriac_beat_entry_lag_seconds{entry="in time"}') == 0
    assert figure(text, 'celeriac_beat_entry_last_run_timestamp_seconds{entry="late"}') == NOW - 90
    assert figure(text, 'celeriac_beat_entry_next_run_timestamp_seconds{entry="in time"}') == NOW + 55
    assert figure(text, 'celeriac_beat_entry_runs_total{entry="late"}') == 7
    assert figure(text, 'celeriac_beat_entry_passed_over_total{entry="late"}') == 2
    assert 'timestamp_seconds{entry="paused"}' not in text


def test_who_stands_by_tells_only_that() -> None:
    text = render(families(None, NOW))

    assert figure(text, "celeriac_beat_leads") == 0
    assert "entry" not in text


def test_of_very_many_entries_the_first_ones_are_told_singly_and_all_are_counted() -> None:
    runs = {f"{number:05}": Run(name=f"{number:05}", since=0, next=NOW - number) for number in range(1500)}

    text = render(families(runs, NOW))

    assert figure(text, "celeriac_beat_entries") == 1500
    assert figure(text, "celeriac_beat_lag_seconds") == 1499
    assert text.count("celeriac_beat_entry_lag_seconds{") == 1000


def test_a_scheduler_that_does_not_look_again_is_dead() -> None:
    clock = FakeClock()
    pulse = Pulse(clock)

    pulse.looked(300.0, None)
    clock.advance(359)
    assert pulse.dead is None

    clock.advance(2)
    assert pulse.dead == "the schedule should have been looked at 61 s ago"


Serve = Callable[..., str]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Return a function that runs a scheduler and returns the path at which it can be asked."""
    number = itertools.count()
    with contextlib.ExitStack() as stack:

        def start(**options: Any) -> str:
            path = str(tmp_path / f"health{next(number)}")
            app = Celeriac(
                "asked", broker=f"memory://asked{next(_BROKERS)}", beat_http_address=f"unix:{path}"
            )
            app.conf.beat_schedule = {"often": {"task": "t", "schedule": 0.05}}
            stack.callback(app.close)
            service = Service(app, schedule_filename=str(tmp_path / "schedule"), **options)
            thread = threading.Thread(target=service.start)
            thread.start()
            stack.callback(thread.join)
            stack.callback(service.stop)
            return path

        yield start


def test_one_leads_and_the_other_stands_by_and_both_are_well(serve: Serve) -> None:
    first = serve()
    until(first, "/readyz", 200)
    second = serve()
    until(second, "/readyz", 200)

    leads, stands_by = ask(first, "/metrics")[1], ask(second, "/metrics")[1]

    assert ask(first, "/livez") == ask(second, "/livez") == (200, "ok\n")
    assert figure(leads, "celeriac_beat_leads") == figure(leads, "celeriac_beat_ready") == 1
    assert figure(leads, 'celeriac_beat_entry_runs_total{entry="often"}') >= 0
    assert figure(stands_by, "celeriac_beat_leads") == 0
    assert 'scheduler="celeriac.beat.persistent.PersistentScheduler"' in leads


class Broken(Scheduler):
    """One whose database is away."""

    def tick(self) -> float:
        raise OSError("the database is away")


def test_one_of_another_package_that_cannot_follow_its_schedule_is_alive_and_not_ready(serve: Serve) -> None:
    path = serve(scheduler_cls=Broken)

    while (text := until(path, "/readyz", 503)) == "starting\n":
        pass

    assert text == "the schedule cannot be followed: the database is away\n"
    assert ask(path, "/livez")[0] == 200
    assert "celeriac_beat_leads" not in ask(path, "/metrics")[1]


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("9808", "beat_http_address = '9808' is no address"),
        ("unix:/nowhere/at/all", "beat_http_address: nothing can listen at unix:/nowhere/at/all"),
    ],
)
def test_an_address_that_cannot_be_had_is_told(address: str, message: str, tmp_path: Path) -> None:
    app = Celeriac("asked", broker="memory://", beat_http_address=address)
    service = Service(app, schedule_filename=str(tmp_path / "schedule"))

    with pytest.raises(ConfigError, match=message):
        service.start()

    app.close()
