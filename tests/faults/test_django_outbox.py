"""Calls that wait for the commit, with the outbox: whoever is killed and whatever is away, none is lost."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing

import pytest

from buyers import Market
from processes import Program, celery

pytestmark = pytest.mark.together("outbox")


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Market:
    return Market(tmp_path_factory.mktemp("market"))


def test_killed_at_any_moment_what_is_committed_is_sent_and_nothing_else(market: Market) -> None:
    dice = random.Random(6)
    market.kill(["before", "after", *(dice.uniform(0.0, 0.1) for _ in range(8))])
    lost_without = market.outbox()

    said = market.sweep()

    first, again = market.sent()
    bought = market.orders()
    assert lost_without >= 2
    assert len(bought) >= 2
    assert f"{lost_without} sent, 0 failed, 0 in the outbox" in said
    assert {key for key in first | again if "-" in key} == {key for key in bought if "-" in key}
    assert max(first.values()) == 1
    assert max(again.values()) == 1  # in doubt, and marked as such
    assert {"0-0", "1-0"} & set(again), "one of these was not sent, and it had to be told that it is late"


def test_what_is_rolled_back_is_never_sent(market: Market) -> None:
    said = market.python(
        """
import django
django.setup()
from django.db import transaction
from celeriac.contrib.django.outbox.models import rows
from market.models import Order
from market.tasks import deliver
from project.tasks_app import app

with transaction.atomic():
    Order.objects.create(key="kept")
    deliver.delay_on_commit("kept")
    try:
        with transaction.atomic():
            deliver.delay_on_commit("taken back")
            raise KeyError
    except KeyError:
        pass
    deliver.apply_async_on_commit(("kept too",), countdown=3600)
    print(rows().count())
print(rows().count())
try:
    with transaction.atomic():
        deliver.delay_on_commit("never")
        raise KeyError
except KeyError:
    print(rows().count())
deliver.delay_on_commit("at once")
app.conf.task_always_eager = True
with transaction.atomic():
    deliver.delay_on_commit("right here")
    print("before")
"""
    )

    first, again = market.sent()
    assert said.split("\n")[:5] == ["2", "0", "0", "before", "delivered right here"]
    assert {key for key in first if "-" not in key} == {"kept", "kept too", "at once"}
    assert not {key for key in again if "-" not in key}


def test_a_broker_that_is_away_at_the_commit_gets_the_call_from_a_worker_later(market: Market) -> None:
    said = market.python(
        """
import django
django.setup()
from django.db import transaction
from celeriac.contrib.django.outbox.models import rows
from market.tasks import deliver

with transaction.atomic():
    deliver.delay_on_commit("late")
    transaction.on_commit(lambda: print("the others are called"))
[row] = rows()
print(row, row.error)
rows().update(due="2000-01-01T00:00Z")  # nobody has sent it for long
""",
        BROKER="redis://127.0.0.1:1",
        PUBLISH_TIMEOUT="0.2",
    )
    assert "the others are called" in said
    assert "market.tasks.deliver[" in said
    assert "BrokerUnreachable" in said

    with worker_of(market) as worker:
        worker.wait_for("delivered late")
        assert worker.stop() == 0

    assert market.outbox() == 0


def test_a_unique_task_takes_its_lock_when_it_is_sent_and_not_before(market: Market) -> None:
    said = market.python(
        """
import django
django.setup()
from django.db import transaction
from celeriac.contrib.django.outbox.models import rows
from market.tasks import bill

try:
    with transaction.atomic():
        bill.delay_on_commit("taken back")
        raise KeyError
except KeyError:
    pass
with transaction.atomic():
    bill.delay_on_commit("taken back")
    bill.delay_on_commit("taken back")
    print(rows().count(), "in the outbox")
"""
    )

    first, again = market.sent("bill")
    assert said == "0 in the outbox\n"
    assert first["taken back"] == 1
    assert again["taken back"] == 0


def test_what_nobody_can_send_stays_and_says_why(market: Market) -> None:
    with closing(sqlite3.connect(market.folder / "db.sqlite3")) as database:
        database.execute(
            "INSERT INTO celeriac_outbox_outboxmessage"
            " (app, task, task_id, message, written, due, attempts, error)"
            " VALUES ('project', 'spoiled', '1', x'00', '2000-01-01', '2000-01-01', 0, '')"
        )
        database.commit()

        said = market.sweep()

        [(attempts, error)] = database.execute(
            "SELECT attempts, error FROM celeriac_outbox_outboxmessage WHERE task = 'spoiled'"
        )
        database.execute("DELETE FROM celeriac_outbox_outboxmessage")
        database.commit()
    assert "0 sent, 1 failed, 1 in the outbox" in said
    assert "spoiled[1] is in the outbox still, after attempt 1" in said
    assert attempts == 1
    assert "ValidationError" in error or "DecodeError" in error


def worker_of(market: Market) -> Program:
    command = [*celery("-A", "project.tasks_app", "worker", "-l", "info", "-P", "solo")]
    return Program(command, cwd=market.folder, env=market.environment)
