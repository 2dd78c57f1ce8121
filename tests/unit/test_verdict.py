"""The settlement table, every row of it."""

from __future__ import annotations

import itertools
from typing import get_args

import msgspec
import pytest

from celeriac.execute.verdict import Terms, fails, verdict
from celeriac.message import (
    Ack,
    DeadLetter,
    Finished,
    Lost,
    OutcomeKind,
    Reject,
    Requeue,
    Start,
    Started,
    Verdict,
)

KINDS: list[OutcomeKind] = [kind for kind in get_args(OutcomeKind) if kind != "invalid"]
ALL_TERMS = [
    Terms(acks_late=late, acks_on_failure=failure, acks_on_timeout=timeout, reject_on_worker_lost=lost)
    for late, failure, timeout, lost in itertools.product([False, True], repeat=4)
]
LATE = [terms for terms in ALL_TERMS if terms.acks_late]
EARLY = [terms for terms in ALL_TERMS if not terms.acks_late]


def finished(kind: OutcomeKind) -> Finished:
    return Finished(number=1, kind=kind, record=None)


def lost(*, started: bool = True, limit: float | None = None) -> Lost:
    return Lost(
        number=1,
        started=started,
        reason="Worker exited prematurely: signal 9 (SIGKILL) Job: 1.",
        limit_seconds=limit,
    )


@pytest.mark.parametrize("terms", EARLY)
@pytest.mark.parametrize("kind", KINDS)
def test_an_early_acknowledged_task_is_forgotten_whatever_it_ends_with(
    terms: Terms, kind: OutcomeKind
) -> None:
    assert verdict(terms, finished(kind)) == Ack()


@pytest.mark.parametrize("terms", LATE)
@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("success", Ack()),
        ("retry", Ack()),
        ("ignore", Ack()),
        ("revoked", Ack()),
        ("reject", Reject()),
        ("requeue", Requeue(willing=True)),
    ],
)
def test_a_late_acknowledged_task_is_settled_as_it_ended(
    terms: Terms, kind: OutcomeKind, expected: Verdict
) -> None:
    assert verdict(terms, finished(kind)) == expected


@pytest.mark.parametrize("terms", LATE)
def test_a_late_acknowledged_failure_is_refused_only_when_the_task_says_so(terms: Terms) -> None:
    expected: Verdict = Ack() if terms.acks_on_failure else Reject()

    assert verdict(terms, finished("failure")) == expected


@pytest.mark.parametrize("terms", ALL_TERMS)
def test_a_task_without_a_retry_left_is_kept_when_it_asks_for_that(terms: Terms) -> None:
    report = msgspec.structs.replace(finished("failure"), exhausted=True, exception_repr="KeyError('x')")
    asking = msgspec.structs.replace(terms, dead_letter=True)

    assert verdict(asking, report) == DeadLetter("Its last retry failed: KeyError('x')", "exhausted")
    assert verdict(terms, report) == verdict(terms, finished("failure"))
    assert verdict(asking, finished("failure")) == verdict(terms, finished("failure"))


@pytest.mark.parametrize("terms", ALL_TERMS)
def test_what_cannot_be_read_is_kept_with_the_reason(terms: Terms) -> None:
    report = Finished(number=1, kind="invalid", record=None, exception_repr="InvalidTaskError('2 elements')")

    assert verdict(terms, report) == DeadLetter("InvalidTaskError('2 elements')", "undecodable")


@pytest.mark.parametrize("terms", ALL_TERMS)
def test_beginning_gives_up_the_message_only_when_it_is_acknowledged_early(terms: Terms) -> None:
    decided = verdict(terms, Started(number=1, pid=1, at=0.0))

    assert decided == (None if terms.acks_late else Start())


@pytest.mark.parametrize("terms", ALL_TERMS)
@pytest.mark.parametrize("attempt", [1, 3, 99])
def test_a_job_lost_before_it_began_goes_back_as_if_untouched(terms: Terms, attempt: int) -> None:
    report = lost(started=False)

    decided = verdict(terms, report, attempt)

    assert decided == Requeue(untouched=True)
    assert not fails(report, decided)


@pytest.mark.parametrize("terms", EARLY)
@pytest.mark.parametrize("attempt", [1, 99])
def test_an_early_acknowledged_job_lost_while_running_fails_and_is_kept(terms: Terms, attempt: int) -> None:
    report = lost()

    decided = verdict(terms, report, attempt)

    assert decided == DeadLetter(report.reason, "lost")
    assert fails(report, decided)


@pytest.mark.parametrize("terms", LATE)
def test_a_late_acknowledged_job_lost_while_running_runs_again_when_the_task_says_so(terms: Terms) -> None:
    report = lost()

    decided = verdict(terms, report)

    if terms.reject_on_worker_lost:
        assert decided == Requeue()
        assert not fails(report, decided)
    else:
        assert decided == DeadLetter(report.reason, "lost")
        assert fails(report, decided)


@pytest.mark.parametrize("terms", [t for t in LATE if t.reject_on_worker_lost])
def test_a_job_that_keeps_killing_its_worker_ends_as_a_dead_letter(terms: Terms) -> None:
    report = lost()

    decisions = [verdict(terms, report, attempt) for attempt in (1, 2, 3)]

    assert decisions[:2] == [Requeue(), Requeue()]
    last = decisions[2]
    assert isinstance(last, DeadLetter)
    assert "3 times" in last.reason
    assert fails(report, last)


def test_deliveries_are_unlimited_when_the_limit_is_zero() -> None:
    terms = Terms(acks_late=True, reject_on_worker_lost=True, max_deliveries=0)

    assert verdict(terms, lost(), 1000) == Requeue()


@pytest.mark.parametrize("terms", ALL_TERMS)
@pytest.mark.parametrize("attempt", [1, 99])
def test_a_cold_shutdown_gives_late_tasks_back_and_keeps_early_ones(terms: Terms, attempt: int) -> None:
    report = Lost(number=1, started=True, reason="The worker was shut down.", stopped=True)

    decided = verdict(terms, report, attempt)

    if terms.acks_late:
        assert decided == Requeue(willing=True)
        assert not fails(report, decided)
    else:
        assert decided == DeadLetter(report.reason, "lost")
        assert fails(report, decided)


@pytest.mark.parametrize("terms", EARLY)
def test_the_hard_limit_of_an_early_acknowledged_task_is_a_failure_like_another(terms: Terms) -> None:
    report = lost(limit=2.0)

    decided = verdict(terms, report)

    assert decided == Ack()
    assert fails(report, decided)


@pytest.mark.parametrize("terms", LATE)
def test_the_hard_limit_of_a_late_acknowledged_task_follows_acks_on_timeout(terms: Terms) -> None:
    report = lost(limit=2.0)

    first, last = verdict(terms, report, 1), verdict(terms, report, 3)

    if terms.acks_on_timeout:
        assert (first, last) == (Ack(), Ack())
        assert fails(report, Ack())
    else:
        assert first == Requeue()
        assert isinstance(last, DeadLetter)
