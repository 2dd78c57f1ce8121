"""Retries: what is sent again, when, and when no more."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from celeriac.app import Celeriac
from celeriac.errors import Ignore, MaxRetriesExceededError, Retry
from celeriac.retry import delays
from desk import Desk, new_app


@pytest.fixture
def app() -> Celeriac:
    return new_app(results=True)


def test_a_retry_is_the_same_call_sent_again(app: Celeriac) -> None:
    @app.task(bind=True, queue="celery")
    def flaky(self: Any, x: int, y: int = 0) -> str:
        if self.request.retries < 2:
            raise self.retry(countdown=0)
        return f"{x} {y} after {self.request.retries}"

    desk = Desk(app)
    result = flaky.apply_async(
        (1,),
        {"y": 2},
        headers={"mine": "h", "x-death": [1]},
        time_limit=9,
        link=[],
        shadow="shown",
        priority=3,
    )
    desk.run_all()

    assert result.get(timeout=1) == "1 2 after 2"
    assert [ending.kind for _, ending in desk.endings] == ["retry", "retry", "success"]
    first, second, third = desk.requests
    assert {r.id for r in desk.requests} == {result.id}
    assert (first.mine, third.mine) == ("h", "h")
    assert third.headers is None or "x-death" not in third.__dict__
    assert (third.timelimit, third.shadow, third.root_id) == ([9, None], "shown", result.id)
    assert second.parent_id == result.id
    assert third.delivery_info["priority"] == 3


def test_other_arguments_can_be_given_for_the_next_run(app: Celeriac) -> None:
    @app.task(bind=True)
    def shrink(self: Any, n: int) -> int:
        if n > 1:
            raise self.retry(args=(n - 1,), countdown=0, max_retries=None)
        return n

    result = shrink.delay(3)
    Desk(app).run_all()

    assert result.get(timeout=1) == 1


def test_when_no_retries_are_left_the_reason_is_raised(app: Celeriac) -> None:
    @app.task(bind=True, max_retries=1)
    def with_reason(self: Any) -> None:
        try:
            raise KeyError("why")
        except KeyError as exc:
            raise self.retry(exc=exc, countdown=0) from exc

    @app.task(bind=True, max_retries=1)
    def without(self: Any) -> None:
        self.retry(countdown=0)

    desk = Desk(app)
    reason, none = with_reason.delay(), without.delay()
    desk.run_all()

    with pytest.raises(KeyError, match="why"):
        reason.get(timeout=1)
    with pytest.raises(MaxRetriesExceededError) as caught:
        none.get(timeout=1)
    assert str(caught.value) == f"Can't retry {without.name}[{none.id}] args:() kwargs:{{}}"


def test_while_it_waits_for_its_retry_the_state_says_why(app: Celeriac) -> None:
    @app.task(bind=True)
    def later(self: Any) -> None:
        raise self.retry(exc=KeyError("not yet"), countdown=60)

    result = later.delay()
    desk = Desk(app)
    desk.run_all()

    assert result.state == "RETRY"
    assert isinstance(result.info, KeyError)
    assert "Retry in 60s: KeyError('not yet')" in (result.traceback or "")
    assert not result.ready()


def test_called_as_a_function_retry_raises_what_went_wrong(app: Celeriac) -> None:
    @app.task(bind=True)
    def direct(self: Any, reason: bool) -> None:
        try:
            raise KeyError("why")
        except KeyError as exc:
            raise self.retry(exc=exc if reason else None) from exc

    with pytest.raises(KeyError):
        direct(True)
    with pytest.raises(Retry):
        direct(False)


def test_throw_false_returns_the_retry(app: Celeriac) -> None:
    seen = []

    @app.task(bind=True)
    def quiet(self: Any) -> str:
        if self.request.retries:
            return "again"
        seen.append(self.retry(throw=False, countdown=0))
        return "first"

    quiet.delay()
    desk = Desk(app)
    desk.run_all()

    assert isinstance(seen[0], Retry)
    assert [ending.value for _, ending in desk.endings] == ["first", "again"]


def test_listed_exceptions_are_retried_by_themselves(app: Celeriac) -> None:
    runs = []

    @app.task(autoretry_for=(OSError,), retry_kwargs={"max_retries": 2, "countdown": 0})
    def flaky(what: str) -> None:
        runs.append(what)
        raise {"os": OSError("away"), "key": KeyError("x"), "ignore": Ignore()}[what]

    results = [flaky.delay(what) for what in ("os", "key", "ignore")]
    Desk(app).run_all()

    assert sorted(runs) == ["ignore", "key", "os", "os", "os"]
    with pytest.raises(OSError, match="away"):
        results[0].get(timeout=1)
    with pytest.raises(KeyError):
        results[1].get(timeout=1)


def test_some_exceptions_can_be_left_out_of_the_listed_ones(app: Celeriac) -> None:
    @app.task(autoretry_for=(Exception,), dont_autoretry_for=(KeyError,), default_retry_delay=0)
    def flaky() -> None:
        raise KeyError("x")

    flaky.delay()
    desk = Desk(app)
    desk.run_all()

    assert [ending.kind for _, ending in desk.endings] == ["failure"]


@pytest.mark.parametrize(
    ("options", "countdowns"),
    [
        ({"retry_backoff": True}, [1, 2, 4]),
        ({"retry_backoff": 3}, [3, 6, 12]),
        ({"retry_backoff": 3, "retry_backoff_max": 5}, [3, 5, 5]),
        ({"default_retry_delay": 7}, [7, 7, 7]),
        ({"retry_kwargs": {"countdown": 9}}, [9, 9, 9]),
    ],
)
def test_pauses_grow_as_the_task_says(
    app: Celeriac, options: dict[str, Any], countdowns: list[float]
) -> None:
    @app.task(bind=False, autoretry_for=(ValueError,), retry_jitter=False, **options)
    def flaky() -> None:
        raise ValueError

    told = [most for _, most in itertools.islice(delays(flaky), 3)]  # as `retry-preview` prints them
    seen = []
    for retries in range(3):
        flaky.push_request(called_directly=False, retries=retries, id="1", args=(), kwargs={})
        try:
            flaky.run()
        except Retry as retry:
            seen.append(retry.when)
        finally:
            flaky.pop_request()

    assert seen == told == countdowns


async def test_coroutine_tasks_are_retried_too(app: Celeriac) -> None:
    @app.task(autoretry_for=(ValueError,), default_retry_delay=0)
    async def flaky() -> None:
        raise ValueError

    flaky.push_request(called_directly=False, id="1", args=(), kwargs={})
    try:
        with pytest.raises(Retry):
            await flaky.run()
    finally:
        flaky.pop_request()


def test_a_class_based_task_is_retried_too(app: Celeriac) -> None:
    class Flaky(app.Task):  # type: ignore[name-defined,misc]
        name = "flaky"
        autoretry_for = (ValueError,)
        default_retry_delay = 0

        def run(self) -> str:
            if not self.request.retries:
                raise ValueError
            return "done"

    task = app.register_task(Flaky())
    result = task.delay()
    Desk(app).run_all()

    assert result.get(timeout=1) == "done"
