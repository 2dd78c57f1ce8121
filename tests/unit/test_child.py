"""The child's loop, run in this very process: what it reads, writes and rings."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator

import msgspec
import pytest

from celeriac.message import Finished, Job, Record
from celeriac.pools.limits import SoftLimit
from celeriac.pools.prefork.board import Board
from celeriac.pools.prefork.child import RING_AFTER_REPORTS, Child
from celeriac.pools.prefork.inbox import Inbox
from pool_harness import job


class Runner:
    """Ends each job at once, or as a function says."""

    def __init__(self, during: Callable[[Job], None] = lambda job: None) -> None:
        self.during = during
        self.calls: list[str] = []

    def begin(self) -> None:
        self.calls.append("begin")

    def run(self, job: Job, limit: SoftLimit | None) -> Finished:
        self.calls.append(job.task)
        self.during(job)
        return Finished(
            number=job.number, kind="success", record=Record(id=job.id, state="SUCCESS", payload=b"1")
        )

    def end(self, exitcode: int) -> None:
        self.calls.append(f"end {exitcode}")

    def close(self) -> None:
        self.calls.append("close")


class Desk:
    """A board and an inbox with the parent's view on both."""

    def __init__(self) -> None:
        self.board = Board(1)
        self.slot = self.board.slot(0)
        self.inbox = Inbox()

    def child(self, runner: Runner) -> Child:
        return Child(self.board, 0, self.inbox.far, runner)

    def rings(self) -> list[int]:
        """Return the tails that the child has told, its readiness excluded."""
        tails = []
        while (message := self.inbox.read()) is not None:
            tails.append(message[0] or 0)
        return tails[1:]

    def reports(self) -> list[int]:
        """Return the numbers of the reports in the outbox."""
        return [msgspec.msgpack.decode(data, type=Finished).number for data in self.slot.take()]


@pytest.fixture
def desk() -> Iterator[Desk]:
    before = signal.getsignal(signal.SIGUSR1)
    desk = Desk()
    yield desk
    signal.signal(signal.SIGUSR1, before)
    desk.inbox.close()


def test_short_jobs_that_wait_together_are_reported_with_one_ring(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("celeriac.pools.prefork.child.RING_AFTER_SECONDS", 60.0)
    jobs = [job("t", short=True) for _ in range(10)]
    for each in jobs:
        desk.inbox.put(each)
    desk.inbox.put_stop()

    desk.child(Runner()).run()

    assert desk.rings() == [desk.slot.tail]
    assert desk.reports() == [each.number for each in jobs]


def test_a_child_that_was_promised_more_does_not_ring_before(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("celeriac.pools.prefork.child.RING_AFTER_SECONDS", 60.0)
    first, second = job("first", short=True), job("second", short=True)
    first.more = True
    rung: list[int] = []

    def look(job: Job) -> None:
        if job.number == first.number:
            desk.inbox.put(second)
        else:
            rung.extend(desk.rings())
            desk.inbox.put_stop()

    desk.inbox.put(first)
    desk.child(Runner(look)).run()

    assert rung == []
    assert desk.reports() == [first.number, second.number]


def test_a_child_does_not_wait_for_ever_for_what_it_was_promised(desk: Desk) -> None:
    promising = job("t", short=True)
    promising.more = True
    rung: list[int | None] = []

    def wait_for_a_ring() -> None:
        end = time.monotonic() + 20
        while len(rung) < 2 and time.monotonic() < end:  # the first says that the child is ready
            message = desk.inbox.read()
            rung.extend([] if message is None else message[:1])
        desk.inbox.put_stop()

    desk.inbox.put(promising)
    parent = threading.Thread(target=wait_for_a_ring)
    parent.start()
    desk.child(Runner()).run()
    parent.join()

    assert rung == [0, desk.slot.tail]
    assert desk.reports() == [promising.number]


def test_a_recall_makes_up_for_a_broken_promise(desk: Desk) -> None:
    first, second = job("t", short=True), job("t", short=True)
    first.more = True
    recalled: list[int] = []
    rung: list[int] = []

    def recall(job: Job) -> None:
        desk.inbox.put(second)
        recalled.extend(desk.inbox.recall())

    def look_and_stop() -> None:
        rung.extend(desk.rings())
        desk.inbox.put_stop()

    desk.inbox.put(first)
    timer = threading.Timer(0.2, look_and_stop)
    timer.start()
    desk.child(Runner(recall)).run()
    timer.join()

    assert recalled == [second.number]
    assert len(rung) == 1


def test_a_full_batch_rings_before_the_inbox_is_empty(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("celeriac.pools.prefork.child.RING_AFTER_SECONDS", 60.0)
    for _ in range(RING_AFTER_REPORTS + 1):
        desk.inbox.put(job("t", short=True))
    desk.inbox.put_stop()

    desk.child(Runner()).run()

    assert len(desk.rings()) == 2


def test_reports_do_not_wait_for_a_job_that_may_take_long(desk: Desk) -> None:
    rung_before_long: list[int] = []

    def during(job: Job) -> None:
        if job.task == "long":
            rung_before_long.extend(desk.rings())

    for each in (job("quick", short=True), job("long")):
        desk.inbox.put(each)
    desk.inbox.put_stop()

    desk.child(Runner(during)).run()

    assert len(rung_before_long) == 1


def test_reports_wait_for_company_two_milliseconds_at_most(desk: Desk) -> None:
    for _ in range(3):
        desk.inbox.put(job("t", short=True))
    desk.inbox.put_stop()

    desk.child(Runner(lambda job: time.sleep(0.003))).run()

    assert len(desk.rings()) >= 2


def test_the_board_says_which_job_was_begun_last(desk: Desk) -> None:
    seen: list[int] = []
    jobs = [job("t", short=True) for _ in range(3)]
    for each in jobs:
        desk.inbox.put(each)
    desk.inbox.put_stop()

    desk.child(Runner(lambda job: seen.append(desk.slot.job))).run()

    assert seen == [each.number for each in jobs]


def test_a_job_that_exits_ends_the_child_with_its_code(desk: Desk) -> None:
    def leave(job: Job) -> None:
        raise SystemExit(3)

    runner = Runner(leave)
    victim = job("t")
    desk.inbox.put(victim)

    code = desk.child(runner).run()

    assert code == 3
    assert runner.calls == ["begin", "t", "end 3", "close"]
    assert desk.slot.job == victim.number
    assert desk.reports() == []


def test_jobs_behind_the_one_that_exits_are_left_to_be_recalled(desk: Desk) -> None:
    def leave(job: Job) -> None:
        raise SystemExit(0)

    victim, left = job("t", short=True), job("t", short=True)
    desk.inbox.put(victim)
    desk.inbox.put(left)

    desk.child(Runner(leave)).run()

    assert desk.inbox.recall() == [left.number]
