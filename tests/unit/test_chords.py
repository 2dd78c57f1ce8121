"""Chords whose parts end in every way, and whose workers die at the worst moment."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from celeriac import chain, chord, group, signature
from celeriac.app import Celeriac
from celeriac.backends.memory import MemoryBackend
from celeriac.backends.spec import BackendSpec
from celeriac.copies import COPY_HEADER
from celeriac.errors import (
    BackendUnreachable,
    ChordError,
    Ignore,
    PublishTimeout,
    Reject,
)
from celeriac.errors import TimeoutError as ResultTimeout
from celeriac.execute.executor import Executor
from celeriac.message import Delivery, Lost, Outcome
from celeriac.states import SUCCESS
from celeriac.testing.worker import start_worker
from job_factory import deliveries, job_of, memory_app

TIMEOUT = 20.0


class Died(BaseException):
    """Stands for kill -9: no code of ours gets to do anything about it."""


class Tasks:
    def __init__(self, app: Celeriac) -> None:
        self.ran: list[Any] = []
        ran = self.ran

        @app.task(name="give")
        def give(x: Any) -> Any:
            return x

        @app.task(name="total")
        def total(numbers: list[int]) -> int:
            ran.append(numbers)
            return sum(numbers)

        @app.task(name="fail")
        def fail(*args: Any) -> None:
            raise KeyError("x")

        @app.task(name="told", bind=True)
        def told(self: Any, task_id: str) -> None:
            ran.append(("told", task_id))

        @app.task(name="ignore")
        def ignore(*args: Any) -> None:
            raise Ignore("not today")

        @app.task(name="reject")
        def reject(*args: Any) -> None:
            raise Reject("not me")

        @app.task(name="requeue")
        def requeue(*args: Any) -> None:
            raise Reject("later", requeue=True)

        @app.task(name="late", acks_late=True)
        def late(*args: Any) -> None:
            raise Reject("later", requeue=True)

        @app.task(name="becomes", bind=True)
        def becomes(self: Any, sig: Any) -> None:
            self.replace(signature(sig, app=app))

        @app.task(name="flaky", bind=True, max_retries=2, default_retry_delay=0)
        def flaky(self: Any, often: int) -> int:
            if self.request.retries < often:
                raise self.retry(exc=KeyError("again"))
            return 1

        self.give, self.total, self.fail, self.told, self.ignore = give, total, fail, told, ignore
        self.reject, self.requeue, self.late, self.becomes, self.flaky = reject, requeue, late, becomes, flaky


@pytest.fixture
def app() -> Celeriac:
    return memory_app()


@pytest.fixture
def t(app: Celeriac) -> Tasks:
    return Tasks(app)


def executed(app: Celeriac, *taken: Delivery, **fields: Any) -> None:
    """Run deliveries one by one as a worker does, and store what is to be stored."""
    executor = Executor(app, "w1@here")
    for delivery in taken:
        finished = executor.run(job_of(delivery, **fields), None)
        if finished.record is not None:
            assert app.backend is not None
            app.backend.store([finished.record])


def run_all(app: Celeriac) -> None:
    """Run what waits, and what is sent meanwhile, until nothing waits."""
    while taken := deliveries(app):
        executed(app, *taken)


def dying(app: Celeriac, monkeypatch: pytest.MonkeyPatch, method: str, *, after: bool) -> None:
    """Have the next call of a method of the result store be the last thing that its worker does."""
    backend: Any = app.backend
    real = getattr(backend, method)

    def die(*args: Any) -> Any:
        monkeypatch.undo()
        if after:
            real(*args)
        raise Died

    monkeypatch.setattr(backend, method, die)


@pytest.mark.parametrize(
    ("method", "after"),
    [("chord_part", False), ("chord_part", True), ("end_chord", False), ("end_chord", True)],
    ids=[
        "before it counts",
        "before the body is sent",
        "after the body was sent",
        "after the chord has ended",
    ],
)
@pytest.mark.parametrize("then", ["again", "lost"])
def test_the_body_runs_once_whenever_the_worker_of_the_last_part_dies(
    app: Celeriac, t: Tasks, monkeypatch: pytest.MonkeyPatch, method: str, after: bool, then: str
) -> None:
    result = chord([t.give.s(1), t.give.s(2)])(t.total.s())
    first, last = deliveries(app)
    executed(app, first)
    dying(app, monkeypatch, method, after=after)
    with pytest.raises(Died):
        executed(app, last)

    lost = Lost(number=1, started=True, reason="killed")
    executed(app, last, **({"lost": lost} if then == "lost" else {}))
    run_all(app)

    assert result.get(timeout=1) == 3
    assert t.ran == [[1, 2]]
    assert [member.state for member in result.parent.results] == [SUCCESS, SUCCESS]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("then", ["again", "lost"])
def test_the_errback_runs_once_when_the_worker_of_the_last_part_dies(
    app: Celeriac, t: Tasks, monkeypatch: pytest.MonkeyPatch, after: bool, then: str
) -> None:
    result = chord([t.give.s(1), t.fail.s()])(t.total.s().on_error(t.told.s()))
    first, last = deliveries(app)
    executed(app, first)
    dying(app, monkeypatch, "end_chord", after=after)
    with pytest.raises(Died):
        executed(app, last)

    lost = Lost(number=1, started=True, reason="killed")
    executed(app, last, **({"lost": lost} if then == "lost" else {}))
    run_all(app)

    assert t.ran == [("told", result.id)]
    with pytest.raises(ChordError, match="raised KeyError"):
        result.get(timeout=1, follow_parents=False)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("then", ["again", "lost"])
def test_an_errback_that_is_called_is_never_lost_and_not_repeated_once_the_chord_has_ended(
    app: Celeriac, t: Tasks, monkeypatch: pytest.MonkeyPatch, after: bool, then: str
) -> None:
    @app.task(name="called")
    def called(request: Any, exc: BaseException, traceback: str) -> None:
        t.ran.append((request.id, type(exc)))

    result = chord([t.give.s(1), t.fail.s()])(t.total.s().on_error(called.s()))
    first, last = deliveries(app)
    executed(app, first)
    dying(app, monkeypatch, "end_chord", after=after)
    with pytest.raises(Died):
        executed(app, last)

    lost = Lost(number=1, started=True, reason="killed")
    executed(app, last, **({"lost": lost} if then == "lost" else {}))
    run_all(app)

    assert t.ran == [(result.id, ChordError)] * (1 if after else 2)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (lambda t: chain(t.total.s().set(headers={"mine": 1}), t.give.s()), 3),
        (lambda t: group(t.total.s(), t.total.s()), [3, 3]),
        (lambda t: chord([t.total.s(), t.total.s()], t.total.s()), 6),
    ],
    ids=["chain", "group", "chord"],
)
def test_a_body_of_several_tasks_runs_once_when_it_is_sent_twice(
    app: Celeriac,
    t: Tasks,
    monkeypatch: pytest.MonkeyPatch,
    body: Callable[[Tasks], Any],
    expected: Any,
) -> None:
    result = chord([t.give.s(1), t.give.s(2)])(body(t))
    first, last = deliveries(app)
    executed(app, first)
    dying(app, monkeypatch, "end_chord", after=False)
    with pytest.raises(Died):
        executed(app, last)

    executed(app, last)
    run_all(app)

    assert result.get(timeout=1) == expected
    totals = {"3": 1, "[3, 3]": 2, "6": 3}[str(expected)]
    assert len(t.ran) == totals


def test_a_body_that_is_delivered_again_may_run_again_and_one_that_was_lost_has_failed(
    app: Celeriac, t: Tasks
) -> None:
    result = chord([t.give.s(1)])(t.total.s())
    executed(app, *deliveries(app))
    (body,) = deliveries(app)
    assert body.envelope.headers[COPY_HEADER]

    executed(app, body, lost=Lost(number=1, started=True, reason="killed"))

    assert result.state == "FAILURE"


@pytest.mark.parametrize(
    ("instead", "expected"),
    [
        (lambda t: t.give.s(3), 3),
        (lambda t: group(t.give.s(3), t.give.s(4)), [3, 4]),
        (lambda t: chord([t.give.s(3), t.give.s(4)], t.total.s()), 7),
        (lambda t: t.becomes.si(chord([t.give.s(3)], t.becomes.si(group(t.give.s(4))))), [4]),
    ],
    ids=["a task", "a group", "a chord", "a chord whose body does, too"],
)
def test_a_body_may_replace_itself(
    app: Celeriac, t: Tasks, instead: Callable[[Tasks], Any], expected: Any
) -> None:
    result = chord([t.give.s(1), t.give.s(2)])(t.becomes.si(instead(t)))
    run_all(app)

    assert result.get(timeout=1) == expected


def test_a_copy_of_a_body_that_was_lost_tells_nobody(app: Celeriac, t: Tasks) -> None:
    result = chord([t.give.s(1)])(t.total.s())
    executed(app, *deliveries(app))
    (body,) = deliveries(app)
    executed(app, body)
    of_chord = body.envelope.headers[COPY_HEADER].partition("/")[0]
    body.envelope.headers[COPY_HEADER] = f"{of_chord}/another"

    executed(app, body, lost=Lost(number=1, started=True, reason="killed"))

    assert (result.state, t.ran) == ("SUCCESS", [[1]])


def test_a_body_whose_sending_timed_out_has_failed_or_run_but_never_both(
    app: Celeriac, t: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = chord([t.give.s(1)])(t.total.s().on_error(t.told.s()))
    part = deliveries(app)
    producer = app.transport.producer()
    real = producer.send

    def slow(batch: Any, *, deadline: float) -> None:
        monkeypatch.undo()
        real(batch, deadline=deadline)
        raise PublishTimeout("no answer")

    monkeypatch.setattr(
        type(producer), "send", lambda self, batch, *, deadline: slow(batch, deadline=deadline)
    )
    executed(app, *part)
    run_all(app)

    assert t.ran == [("told", result.id)]
    assert result.state == "FAILURE"


@pytest.mark.parametrize("part", ["ignore", "reject", "requeue"])
@pytest.mark.parametrize("place", ["alone", "first of a chain", "last of a chain", "replacement"])
def test_a_part_that_never_ends_ends_the_chord(app: Celeriac, t: Tasks, part: str, place: str) -> None:
    sig = getattr(t, part).s()
    member = {
        "alone": sig,
        "first of a chain": chain(sig, t.give.s()),
        "last of a chain": chain(t.give.s(1), sig),
        "replacement": t.becomes.s(sig),
    }[place]

    result = chord([t.give.s(1), member])(t.total.s().on_error(t.told.s()))
    run_all(app)

    assert result.state == "FAILURE"
    assert t.ran == [("told", result.id)]
    with pytest.raises(ChordError, match=r"Dependency .* raised (Ignore|reject)"):
        result.get(timeout=1, follow_parents=False)


def test_a_part_that_goes_back_to_its_queue_is_waited_for(app: Celeriac, t: Tasks) -> None:
    result = chord([t.late.s()])(t.total.s())
    (part,) = deliveries(app)

    executed(app, part)

    assert result.state == "PENDING"


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (lambda t: [t.flaky.s(2), t.give.s(1)], 2),
        (lambda t: [t.becomes.s(t.give.s(5)), t.give.s(1)], 6),
        (lambda t: [t.becomes.s(chain(t.give.s(5), t.give.s())), t.give.s(1)], 6),
        (lambda t: [t.becomes.s(t.becomes.s(t.give.s(7))), t.give.s(1)], 8),
        (lambda t: [t.becomes.s(chord([t.give.s(1)], chord([t.give.si(5)], t.total.s()))), t.give.s(1)], 6),
        (lambda t: [chord([t.give.s(1), t.give.s(2)], t.total.s()), t.give.s(1)], 4),
    ],
    ids=["retried", "replaced", "replaced by a chain", "replaced twice", "replaced by chords", "a chord"],
)
def test_a_part_that_goes_on_in_another_message_counts_when_that_ends(
    app: Celeriac, t: Tasks, parts: Callable[[Tasks], Any], expected: int
) -> None:
    result = chord(parts(t))(t.total.s())
    run_all(app)

    assert result.get(timeout=1) == expected


@pytest.mark.parametrize(
    "body",
    [
        lambda t: chord([t.give.s()], t.total.s()),
        lambda t: chain(t.give.s(), t.total.s()),
        lambda t: chord([t.give.s()], chain(t.give.s(), chord([t.give.s()], t.total.s()))),
    ],
    ids=["a chord", "a chain", "all of them"],
)
def test_a_part_that_was_replaced_by_a_chord_that_fails_ends_the_chord(
    app: Celeriac, t: Tasks, body: Callable[[Tasks], Any]
) -> None:
    instead = chord([t.fail.s()], body(t))

    result = chord([t.becomes.s(instead), t.give.s(1)])(t.total.s().on_error(t.told.s()))
    run_all(app)

    assert result.state == "FAILURE"
    assert t.ran == [("told", result.id)]


@pytest.mark.parametrize(
    "step",
    [
        lambda t: chord([t.give.s(1)], group(t.fail.s(), t.give.s())),
        lambda t: chord([t.give.s(1)], chord([t.give.s()], group(t.fail.s(), t.give.s()))),
        lambda t: chord([t.give.s(1)], chain(t.give.s(), group(t.fail.s(), t.give.s()))),
        lambda t: chord([t.give.s(1)], chain(t.fail.s(), group(t.give.s(), t.give.s()))),
        lambda t: chord([t.fail.s()], group(t.give.s(), t.give.s())),
    ],
    ids=["in the group", "in a deep group", "in a group of a chain", "before the group", "in the header"],
)
def test_the_errback_of_a_chain_runs_once_when_a_chord_in_it_ends_in_a_group(
    app: Celeriac, t: Tasks, step: Callable[[Tasks], Any]
) -> None:
    steps = chain(step(t), chord([], chord([t.give.s()], t.give.s())), t.give.s())
    steps.link_error(t.told.s())

    (steps | t.give.s()).apply_async()
    run_all(app)

    assert len(t.ran) == 1


def test_a_part_without_retries_left_ends_the_chord(app: Celeriac, t: Tasks) -> None:
    result = chord([t.flaky.s(9), t.give.s(1)])(t.total.s())
    run_all(app)

    with pytest.raises(ChordError, match="again"):
        result.get(timeout=1, follow_parents=False)


def test_every_member_of_a_group_as_the_body_is_told_of_a_failure(app: Celeriac, t: Tasks) -> None:
    result = chord([t.fail.s(), t.give.s(1)])(group(t.total.s(), t.give.s()))
    run_all(app)

    assert [member.state for member in result.results] == ["FAILURE", "FAILURE"]


@pytest.mark.parametrize("place", ["alone", "first of a chain"])
@pytest.mark.parametrize("why", ["expired", "unregistered"])
def test_a_part_that_no_worker_takes_ends_the_chord(app: Celeriac, t: Tasks, why: str, place: str) -> None:
    sig = t.give.s(1).set(expires=0.001) if why == "expired" else signature("nobody.knows", app=app)
    member = sig if place == "alone" else chain(sig, t.give.s())
    result = chord([member, t.give.s(1)])(t.total.s().on_error(t.told.s()))
    time.sleep(0.01)

    expected = pytest.raises(ChordError, match="expired" if why == "expired" else "nobody")
    with start_worker(app, pool="threads"), expected:
        result.get(timeout=TIMEOUT, follow_parents=False)
    run_all(app)

    assert t.ran == [("told", result.id)]
    assert result.parent.results[0].state == ("REVOKED" if why == "expired" else "FAILURE")


def test_a_part_is_counted_when_the_result_store_is_back(
    app: Celeriac, t: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = chord([t.give.s(1), t.give.s(2)])(t.total.s())
    backend: Any = app.backend
    real = backend.chord_part
    failures = iter([BackendUnreachable("away")] * 2)

    def unreliable(*args: Any) -> Any:
        for error in failures:
            raise error
        return real(*args)

    monkeypatch.setattr("celeriac.patience.time.sleep", lambda seconds: None)
    monkeypatch.setattr(backend, "chord_part", unreliable)
    run_all(app)

    assert result.get(timeout=1) == 3


@pytest.mark.parametrize("width", [2, 300])
def test_a_message_of_the_header_is_small_however_wide_the_chord(app: Celeriac, t: Tasks, width: int) -> None:
    chord([t.give.s(number) for number in range(width)])(t.total.s().on_error(t.told.s()))

    bodies = [len(delivery.envelope.body) for delivery in deliveries(app)]

    assert len(bodies) == width
    assert max(bodies) < 1000


class PollOnly(MemoryBackend):
    """A store that can keep results and no more."""

    joins_chords = False

    def start_chord(self, chord_id: str, size: int, members: Any) -> None:
        raise AssertionError("it cannot do that")

    def chord_part(self, chord_id: str, index: int | None, outcome: Outcome) -> list[Outcome] | None:
        raise AssertionError("it cannot do that")


@pytest.fixture
def polling() -> Celeriac:
    app = memory_app(result_chord_retry_interval=0.05)
    app.backend = PollOnly(BackendSpec(url=f"memory://{id(app)}", codecs=app.codecs))
    return app


def test_a_store_that_cannot_count_is_polled(polling: Celeriac) -> None:
    t = Tasks(polling)

    @polling.task(ignore_result=True)
    def quiet() -> int:
        return 4

    with start_worker(polling, pool="threads"):
        nested = chord([t.give.s(1), chord([t.give.s(2)], t.total.s())], t.total.s())
        assert nested.delay().get(timeout=TIMEOUT) == 3
        assert chord([quiet.s(), t.flaky.s(1)])(t.total.s()).get(timeout=TIMEOUT) == 5


def test_the_results_of_a_polled_header_are_waited_for_as_long_as_the_setting_says(
    polling: Celeriac, monkeypatch: pytest.MonkeyPatch
) -> None:
    t = Tasks(polling)
    polling.conf.result_chord_join_timeout = 7
    waited: list[Any] = []

    def join(self: Any, timeout: float | None = None, **options: Any) -> list[Any]:
        waited.append(timeout)
        raise ResultTimeout("gone meanwhile")

    monkeypatch.setattr("celeriac.polling.GroupResult.join", join)
    result = chord([t.give.s(1)])(t.total.s())
    with start_worker(polling, pool="threads"), pytest.raises(ChordError, match="gone meanwhile"):
        result.get(timeout=TIMEOUT, follow_parents=False)

    assert waited == [7]


@pytest.mark.parametrize("part", ["fail", "ignore"])
def test_a_polled_chord_fails_with_its_part(polling: Celeriac, part: str) -> None:
    t = Tasks(polling)

    with start_worker(polling, pool="threads"):
        result = chord([t.give.s(1), getattr(t, part).s()])(t.total.s().on_error(t.told.s()))
        with pytest.raises(ChordError, match=r"Dependency .* raised"):
            result.get(timeout=TIMEOUT, follow_parents=False)


def test_a_group_after_a_polled_chord_fails_with_the_error_of_the_part(polling: Celeriac) -> None:
    t = Tasks(polling)

    with start_worker(polling, pool="threads"):
        result = chord([t.give.s(1), t.fail.s()])(group(t.give.s(), t.total.s()))
        with pytest.raises(KeyError, match="x"):
            result.get(timeout=TIMEOUT)


def test_polling_ends_when_results_would_be_gone(polling: Celeriac) -> None:
    t = Tasks(polling)
    polling.conf.result_expires = 0.2

    with start_worker(polling, pool="threads"):
        lost = t.give.s(1).set(queue="nobody-listens")
        result = chord([t.give.s(1), lost])(t.total.s())
        with pytest.raises(ChordError, match="has not ended in time"):
            result.get(timeout=TIMEOUT, follow_parents=False)


class Growing(Tasks):
    """Tasks that add parts to their chord."""

    def __init__(self, app: Celeriac) -> None:
        super().__init__(app)

        @app.task(name="collect")
        def collect(values: list[Any]) -> list[Any]:
            return sorted(values)

        @app.task(name="grow", bind=True)
        def grow(self: Any, *added: Any) -> int:
            for sig in added:
                self.add_to_chord(signature(sig, app=app))
            return 0

        @app.task(name="grow_later", bind=True)
        def grow_later(self: Any, sig: Any) -> int:
            self.add_to_chord(signature(sig, app=app), lazy=True).delay()
            return 0

        @app.task(name="grow_twice", bind=True, default_retry_delay=0)
        def grow_twice(self: Any) -> int:
            self.add_to_chord(self.app.tasks["give"].s(10 + self.request.retries))
            if not self.request.retries:
                raise self.retry()
            return 0

        self.collect, self.grow, self.grow_later, self.grow_twice = collect, grow, grow_later, grow_twice


@pytest.fixture
def growing(app: Celeriac) -> Growing:
    return Growing(app)


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (lambda t: t.grow.s(t.give.s(5)), [0, 1, 5]),
        (lambda t: t.grow.s(t.give.s(5), t.give.s(6), t.give.s(7)), [0, 1, 5, 6, 7]),
        (lambda t: t.grow_later.s(t.give.s(5)), [0, 1, 5]),
        (lambda t: t.grow.s(t.give.s(5) | t.give.s()), [0, 1, 5]),
        (lambda t: t.grow.s(group(t.give.s(5), t.give.s(6))), [0, 1, 5, 6]),
        (lambda t: t.grow.s(t.give.s(5) | group(t.give.s(), t.give.s())), [0, 1, 5, 5]),
        (lambda t: t.grow.s(chord([t.give.s(5), t.give.s(6)], t.total.s())), [0, 1, 11]),
        (lambda t: t.grow.s(t.becomes.si(t.give.s(5))), [0, 1, 5]),
        (lambda t: t.grow.s(t.grow.s(t.give.s(5))), [0, 0, 1, 5]),
        (lambda t: t.grow_twice.s(), [0, 1, 10, 11]),
        (lambda t: t.give.s(t.give.s(5)) | t.grow.s(), [0, 1, 5]),
    ],
    ids=[
        *("one", "three", "lazily", "a chain", "a group", "a chain that ends in a group", "a chord"),
        *("what replaces itself", "what adds more", "in each try", "at the end of a chain"),
    ],
)
def test_a_part_adds_parts_and_the_body_waits_for_them(
    app: Celeriac, growing: Growing, part: Callable[[Growing], Any], expected: list[int]
) -> None:
    result = chord([part(growing), growing.give.s(1)])(growing.collect.s())
    run_all(app)

    assert result.get(timeout=1) == expected


def test_an_added_part_that_fails_fails_the_chord(app: Celeriac, growing: Growing) -> None:
    result = chord([growing.grow.s(growing.fail.s())])(growing.collect.s().on_error(growing.told.s()))
    run_all(app)

    with pytest.raises(ChordError, match="raised KeyError"):
        result.get(timeout=1, follow_parents=False)
    assert growing.ran == [("told", result.id)]


def test_a_part_that_is_run_again_adds_its_parts_once(app: Celeriac, growing: Growing) -> None:
    result = chord([growing.grow.s(growing.give.s(5)), growing.give.s(1)])(growing.collect.s())
    first, other = deliveries(app)
    executed(app, first, first, other)
    run_all(app)

    assert result.get(timeout=1) == [0, 1, 5]


def test_who_is_no_part_of_a_chord_cannot_add_to_it(app: Celeriac, growing: Growing) -> None:
    refused = [
        growing.grow.delay(growing.give.s(1)),
        chord([growing.grow.s(growing.give.s(1)) | growing.give.s()])(growing.collect.s()).parent[0].parent,
    ]
    run_all(app)

    for result in (*refused, growing.grow.apply((growing.give.s(1),))):
        with pytest.raises(ValueError, match="is not member of any chord"):
            result.get(timeout=1)


def test_a_store_that_cannot_let_a_chord_grow_says_so(
    app: Celeriac, growing: Growing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(MemoryBackend, "grow_chord")
    result = chord([growing.grow.s(growing.give.s(1))])(growing.collect.s())
    run_all(app)

    with pytest.raises(NotImplementedError, match="cannot let a chord grow"):
        result.parent[0].get(timeout=1)
