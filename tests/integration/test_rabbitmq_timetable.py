"""Schedules on RabbitMQ alone: whoever has the plans out and dies, or holds them, nothing of them is lost."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing

import pytest

from celeriac import Celeriac
from celeriac.beat import PersistentScheduler
from celeriac.schedules import crontab
from celeriac.timetable import Timetable
from celeriac.transports import connect
from celeriac.transports.amqp import timetable as amqp_timetable
from celeriac.transports.amqp.address import read
from celeriac.transports.amqp.link import Link

PLANS = "celeriac.plans.{}"


class Shop:
    """The timetables of one app, and whoever else looks into their queues."""

    def __init__(self, url: str, stack: ExitStack) -> None:
        self.owner = f"shop {uuid.uuid4().hex}"
        self._transport = stack.enter_context(closing(connect(url, {})))
        self._address = read(url, {})[0]
        self._stack = stack

    def timetable(self) -> Timetable:
        """Return one more timetable."""
        return self._stack.enter_context(closing(self._transport.timetable(self.owner)))

    def link(self) -> Link:
        """Return a connection whose turn is held."""
        turn = threading.Condition(threading.Lock())
        turn.acquire()
        link = Link(self._address, turn, lambda event: None)
        link.connect(time.monotonic() + 5)
        self._stack.callback(link.close)
        return link

    def takes_plans_out(self) -> Link:
        """Return the connection of somebody who has the page of plans."""
        link = self.link()
        while link.call(time.monotonic() + 5, 1, "basic.get", 0, PLANS.format(self.owner), False) == ("",):
            pass
        return link

    def pages(self) -> int:
        """Return how many pages of plans there are."""
        return self._transport.size(PLANS.format(self.owner))

    def loses_plans(self) -> None:
        """Have the page of plans be thrown away."""
        self.link().call(time.monotonic() + 5, 1, "queue.purge", 0, PLANS.format(self.owner), False)


@pytest.fixture
def shop(rabbitmq_url: str) -> Iterator[Shop]:
    """Yield an app that no other test has."""
    with ExitStack() as stack:
        yield Shop(rabbitmq_url, stack)


def values(timetable: Timetable, after: int = 0) -> dict[str, bytes | None]:
    """Return what was written after a revision."""
    return {key: line.value for key, line in timetable.changes(after).lines.items()}


def test_an_edit_waits_for_who_has_the_plans_out_and_goes_on_when_that_one_dies(shop: Shop) -> None:
    timetable = shop.timetable()
    timetable.edit("plan/a", b"1", 0)
    holder = shop.takes_plans_out()

    with ThreadPoolExecutor(1) as threads:
        edited = threads.submit(timetable.edit, "plan/b", b"2", 0)
        assert not edited.done()
        holder.abandon()

        assert edited.result(10)
    assert values(timetable) == {"plan/a": b"1", "plan/b": b"2"}


def test_who_begins_to_lead_while_somebody_looks_knows_what_was_sent(shop: Shop) -> None:
    before, timetable = shop.timetable(), shop.timetable()
    before.take("1@here", 0, 1.0)
    before.write({"run/a": b"1"}, 1)
    before.close()
    holder = shop.takes_plans_out()

    with ThreadPoolExecutor(1) as threads:
        taken = threads.submit(timetable.take, "2@there", 0, 1.0)
        holder.abandon()

        assert taken.result(10)
    assert values(timetable) == {"run/a": b"1"}


def test_who_leads_goes_on_while_somebody_has_the_plans_out_and_reads_them_then(shop: Shop) -> None:
    timetable, other = shop.timetable(), shop.timetable()
    timetable.take("1@here", 0, 1.0)
    known = timetable.changes(0).revision
    other.edit("plan/a", b"1", 0)
    holder = shop.takes_plans_out()

    assert values(timetable, known) == {}
    assert timetable.write({"run/a": b"1"}, 1)
    known = timetable.changes(0).revision
    holder.close()

    assert values(timetable, known) == {"plan/a": b"1"}


def test_plans_that_were_thrown_away_are_begun_anew_and_who_leads_sees_that(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(amqp_timetable, "_LOST_SECONDS", 0.1)
    timetable, other = shop.timetable(), shop.timetable()
    timetable.take("1@here", 0, 1.0)
    other.edit("plan/a", b"1", 0)
    other.edit("plan/b", b"1", 0)
    known = timetable.changes(0).revision
    shop.loses_plans()

    assert other.edit("plan/c", b"1", 0)

    assert values(timetable, known) == {"plan/a": None, "plan/b": None, "plan/c": b"1"}


def test_plans_that_come_back_after_they_were_taken_for_lost_are_one_with_the_new_ones(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(amqp_timetable, "_LOST_SECONDS", 0.1)
    timetable = shop.timetable()
    for value in (b"1", b"2"):
        timetable.edit("plan/a", value, timetable.changes(0).revision)
    timetable.edit("plan/b", b"1", 0)
    holder = shop.takes_plans_out()
    assert timetable.edit("plan/a", b"3", 0)

    holder.close()

    assert values(timetable) == {"plan/a": b"3", "plan/b": b"1"}
    assert timetable.edit("plan/b", b"2", timetable.changes(0).lines["plan/b"].revision)
    assert values(timetable) == {"plan/a": b"3", "plan/b": b"2"}
    assert shop.pages() == 1


def test_nobody_who_only_looks_makes_queues(shop: Shop) -> None:
    timetable = shop.timetable()

    assert values(timetable) == {}

    link = shop.link()
    with pytest.raises(Exception, match="NOT_FOUND"):
        link.call(time.monotonic() + 5, 1, "queue.purge", 0, PLANS.format(shop.owner), False)


def test_removed_plans_do_not_pile_up(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("celeriac.transports.amqp.plans._MOST_REMOVED", 2)
    timetable, other = shop.timetable(), shop.timetable()
    for name in ("a", "b", "c"):
        other.edit(f"plan/{name}", b"1", 0)
    timetable.take("1@here", 0, 1.0)
    known = timetable.changes(0).revision

    for name in ("a", "b", "c"):
        assert other.edit(f"plan/{name}", None, other.changes(0).lines[f"plan/{name}"].revision)

    assert values(other) == {"plan/b": None, "plan/c": None}
    assert values(timetable, known) == {"plan/a": None, "plan/b": None, "plan/c": None}


def test_entries_are_added_asked_to_run_paused_and_removed_while_a_scheduler_runs(rabbitmq_url: str) -> None:
    with Celeriac("prog", broker=rabbitmq_url, result_backend="disabled://") as app:
        app.conf.beat_schedule = {"nightly": {"task": "prog.clean", "schedule": crontab(0, 3)}}
        scheduler = PersistentScheduler(app)
        scheduler.look_seconds = 0
        with closing(scheduler):
            scheduler.tick()
            app.schedules.add("report", "prog.report", 3600, args=[1])
            app.schedules.run_now("report")
            app.schedules.pause("nightly")
            scheduler.tick()

            assert {one.name: (one.times, one.paused) for one in app.schedules.list()} == {
                "nightly": (0, True),
                "report": (1, False),
            }
            assert app.transport.size("celery") == 1
            app.schedules.remove("report")
            scheduler.tick()
            assert set(scheduler.schedule) == {"nightly"}

        assert [one.name for one in app.schedules.list()] == ["nightly"]


def test_a_slot_is_sent_with_its_note_when_plans_are_changed_meanwhile(rabbitmq_url: str) -> None:
    with Celeriac("prog", broker=rabbitmq_url, result_backend="disabled://") as app:
        app.schedules.add("often", "prog.report", 0.001)
        scheduler = PersistentScheduler(app)
        with closing(scheduler):
            scheduler.look_seconds = 0
            while app.transport.size("celery") < 3:
                scheduler.tick()
                app.schedules.update("often", args=[app.transport.size("celery")])

        (info,) = app.schedules.list()
        assert info.times == app.transport.size("celery")
