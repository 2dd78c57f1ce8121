"""The pools that run jobs in the node's own process: threads and solo."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from queue import SimpleQueue

import pytest

from celeriac.message import Finished, Job, Lost, Started
from celeriac.pools.base import PoolOptions
from celeriac.pools.limits import SoftLimit
from celeriac.pools.seats import SeatPool
from celeriac.pools.solo import SoloPool
from celeriac.pools.threads import ThreadPool
from pool_harness import CommandRunner, Reports, job

Make = Callable[..., Awaitable[tuple[SeatPool, Reports]]]


class SlowHands(SimpleQueue[Job | None]):
    """A queue whose reader is interrupted when it has the job in its hands."""

    def __init__(self) -> None:
        self.full = threading.Event()
        self.go = threading.Event()

    def get(self, block: bool = True, timeout: float | None = None) -> Job | None:
        job = super().get(block, timeout)
        if job is not None:
            self.full.set()
            self.go.wait()
        return job


@pytest.fixture
def runner(tmp_path: Path) -> CommandRunner:
    return CommandRunner(tmp_path)


@pytest.fixture(params=["threads", "solo"])
async def make(request: pytest.FixtureRequest, runner: CommandRunner) -> AsyncIterator[Make]:
    pools: list[SeatPool] = []
    threads: list[threading.Thread] = []

    async def make_pool(size: int = 1) -> tuple[SeatPool, Reports]:
        pool: SeatPool
        if request.param == "threads":
            pool = ThreadPool(PoolOptions(size=size), lambda: runner)
        else:
            pool = await serve_solo(threads)
        pools.append(pool)
        reports = Reports()
        pool.open()
        await pool.start(reports)
        return pool, reports

    async def serve_solo(threads: list[threading.Thread]) -> SoloPool:
        made: asyncio.Future[SoloPool] = asyncio.get_running_loop().create_future()
        loop = asyncio.get_running_loop()

        def serve() -> None:
            pool = SoloPool(PoolOptions(size=1), lambda: runner)
            loop.call_soon_threadsafe(made.set_result, pool)
            pool.serve_here()

        threads.append(threading.Thread(target=serve, daemon=True))
        threads[-1].start()
        return await made

    yield make_pool
    (runner.folder / "go").touch()
    for pool in pools:
        await pool.stop(graceful=False)
    for thread in threads:
        await asyncio.to_thread(thread.join, 5)


async def test_outcomes_come_back(make: Make) -> None:
    pool, reports = await make()
    echo = job("echo", 7)

    pool.submit([echo])
    await reports.ended(echo)

    report = reports.finished()[echo.number]
    assert report.record is not None
    assert report.record.payload == b"7"
    assert report.started_at <= time.time()


async def test_slow_jobs_are_taken_one_for_each_seat(make: Make, runner: CommandRunner) -> None:
    pool, reports = await make()
    slow = job("wait_for", "go")

    before = pool.free()
    pool.submit([slow])

    assert (before, pool.free()) == (1, 0)
    assert pool.free(short=True) > 0
    (runner.folder / "go").touch()
    await reports.ended(slow)
    assert pool.free() == 1


async def test_a_job_that_is_ended_before_its_code_begins_does_not_run_and_the_next_one_does(
    make: Make, runner: CommandRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = runner.run
    taken, go = threading.Event(), threading.Event()

    def run_slowly(job: Job, limit: SoftLimit | None) -> Finished:
        taken.set()
        go.wait()
        return run(job, limit)

    monkeypatch.setattr(runner, "run", run_slowly)
    pool, reports = await make()
    first, second = job("echo", 1), job("echo", 2)
    pool.submit([first])
    await asyncio.to_thread(taken.wait)

    assert pool.kill(first.number, signal.SIGTERM)
    go.set()
    await reports.ended(first)
    pool.submit([second])
    await reports.ended(second)

    assert [lost.number for lost in reports.of(Lost)] == [first.number]


async def test_every_job_of_a_flood_runs_once(make: Make, runner: CommandRunner) -> None:
    pool, reports = await make()
    jobs = [job("echo", i, short=True) for i in range(300)]
    left = list(jobs)

    while left:
        await reports.until(lambda: pool.free(short=True) > 0)
        for _ in range(min(pool.free(short=True), len(left))):
            pool.submit([left.pop()])
    await reports.ended(*jobs)

    assert [runner.times(each.id) for each in jobs] == [1] * len(jobs)


async def test_a_start_is_told_while_the_job_runs(make: Make, runner: CommandRunner) -> None:
    pool, reports = await make()
    slow = job("wait_for", "go")

    pool.submit([slow])
    await reports.until(lambda: bool(reports.of(Started)))

    assert [running.number for running in pool.running()] == [slow.number]
    (runner.folder / "go").touch()
    await reports.ended(slow)
    assert pool.running() == []
    assert len(reports.of(Started)) == 1


async def test_a_job_that_exits_is_lost_and_the_pool_goes_on(make: Make) -> None:
    pool, reports = await make()
    victim, after = job("exit", 3), job("echo", 1)

    pool.submit([victim])
    await reports.ended(victim)
    pool.submit([after])
    await reports.ended(after)

    assert [lost.reason for lost in reports.of(Lost)] == [
        f"Worker exited prematurely: exitcode 3 Job: {victim.number}."
    ]


async def test_jobs_that_were_not_taken_can_be_recalled(make: Make, runner: CommandRunner) -> None:
    pool, reports = await make()
    slow, waiting = job("wait_for", "go"), job("echo", 1, short=True)

    pool.submit([slow])
    await reports.until(lambda: bool(reports.of(Started)))
    pool.submit([waiting])
    recalled = pool.recall()
    (runner.folder / "go").touch()
    await reports.ended(slow)

    assert recalled == [waiting.number]
    assert runner.times(waiting.id) == 0


async def test_the_soft_limit_raises_inside_the_job(make: Make) -> None:
    pool, reports = await make()
    limited, after = job("sleep", 30, soft=0.2), job("sleep", 0.1, soft=5)

    pool.submit([limited])
    await reports.ended(limited)
    pool.submit([after])
    await reports.ended(after)

    assert reports.finished()[limited.number].exception_repr == "soft"
    assert reports.finished()[after.number].kind == "success"


async def test_a_graceful_stop_waits_for_the_running_job(make: Make, runner: CommandRunner) -> None:
    pool, reports = await make()
    slow = job("wait_for", "go")

    pool.submit([slow])
    await reports.until(lambda: bool(reports.of(Started)))
    stopping = asyncio.ensure_future(pool.stop(graceful=True))
    (runner.folder / "go").touch()
    await stopping
    await pool.stop(graceful=True)

    assert set(reports.finished()) == {slow.number}


async def test_stopping_at_once_tells_what_was_running_and_what_was_not(
    make: Make, runner: CommandRunner
) -> None:
    pool, reports = await make()
    slow, waiting = job("wait_for", "go"), job("echo", 1, short=True)

    pool.submit([slow])
    await reports.until(lambda: bool(reports.of(Started)))
    pool.submit([waiting])
    await pool.stop(graceful=False)

    assert {(lost.number, lost.started) for lost in reports.of(Lost)} == {
        (slow.number, True),
        (waiting.number, False),
    }
    assert runner.times(waiting.id) == 0


async def test_a_job_that_is_taken_in_the_moment_of_the_stop_does_not_run_as_well(
    runner: CommandRunner,
) -> None:
    """It had left the queue and was on nobody's account yet; it is handed back, so it must not begin."""
    pool = ThreadPool(PoolOptions(size=1), lambda: runner)
    pool._queue = hands = SlowHands()
    closed = threading.Event()
    runner.close = closed.set  # type: ignore[method-assign]
    reports = Reports()
    await pool.start(reports)
    taken = job("echo", 1)
    pool.submit([taken])
    await asyncio.to_thread(hands.full.wait)

    await pool.stop(graceful=False)
    hands.go.set()
    await asyncio.to_thread(closed.wait, 10)

    assert [(lost.number, lost.started) for lost in reports.of(Lost)] == [(taken.number, False)]
    assert runner.times(taken.id) == 0


async def test_a_start_is_told_although_the_clock_was_set_back(
    make: Make, runner: CommandRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, loops = time.time, threading.get_ident()
    pool, reports = await make()
    slow = job("wait_for", "go", short=True)

    # What the seat has read is an hour ahead of what the loop reads.
    monkeypatch.setattr(time, "time", lambda: real() - 3600 * (threading.get_ident() == loops))
    pool.submit([slow])
    await reports.until(lambda: bool(reports.of(Started)), 5)

    (runner.folder / "go").touch()
    await reports.ended(slow)


async def test_a_thread_past_its_hard_limit_is_replaced(runner: CommandRunner) -> None:
    pool = ThreadPool(PoolOptions(size=1), lambda: runner)
    reports = Reports()
    await pool.start(reports)
    stuck, after = job("wait_for", "go", hard=0.1), job("echo", 1)

    pool.submit([stuck])
    await reports.ended(stuck)
    pool.submit([after])
    await reports.ended(after)
    (runner.folder / "go").touch()
    await pool.stop(graceful=True)

    assert [(lost.number, lost.limit_seconds) for lost in reports.of(Lost)] == [(stuck.number, 0.1)]
    assert set(reports.finished()) == {after.number}


class Sleeper(CommandRunner):
    """Sleeps in one piece, so that only a signal can wake it."""

    def run(self, job: Job, limit: SoftLimit | None) -> Finished:
        assert limit is not None
        try:
            with limit:
                time.sleep(30)
        except BaseException as exc:
            return Finished(number=job.number, kind="failure", record=None, exception_repr=type(exc).__name__)
        return Finished(number=job.number, kind="success", record=None)


@pytest.mark.parametrize(("soft", "hard"), [(0.1, None), (None, 0.1)])
def test_limits_interrupt_a_sleep_in_the_main_thread(
    tmp_path: Path, soft: float | None, hard: float | None
) -> None:
    pool = SoloPool(PoolOptions(size=1), lambda: Sleeper(tmp_path))
    ended: list[Finished | Lost] = []

    async def scenario() -> None:
        reports = Reports()
        await pool.start(reports)
        limited = job("any", soft=soft, hard=hard)
        pool.submit([limited])
        await reports.ended(limited)
        await reports.until(lambda: pool.free() == 1)
        ended.extend(reports.of(Finished) or reports.of(Lost))
        await pool.stop(graceful=True)

    node = threading.Thread(target=asyncio.run, args=(scenario(),))
    node.start()
    pool.serve_here()
    node.join()

    (report,) = ended
    if soft is not None:
        assert isinstance(report, Finished)
        assert report.exception_repr == "SoftTimeLimitExceeded"
    else:
        assert isinstance(report, Lost)
        assert report.limit_seconds == hard
    assert signal.getsignal(signal.SIGRTMIN + 3) == signal.SIG_DFL


def test_a_signal_that_does_not_wake_the_waiting_main_thread_is_heeded_all_the_same(tmp_path: Path) -> None:
    pool = SoloPool(PoolOptions(size=1), lambda: CommandRunner(tmp_path))
    heeded = threading.Event()
    before = signal.signal(signal.SIGUSR2, lambda number, frame: heeded.set())
    seen: list[bool] = []

    async def scenario() -> None:
        reports = Reports()
        await pool.start(reports)
        first = job("echo", 1)
        pool.submit([first])
        await reports.ended(first)
        signal.pthread_kill(
            threading.get_ident(), signal.SIGUSR2
        )  # to this thread: it is as if it came too early
        seen.append(await asyncio.to_thread(heeded.wait, 10))
        await pool.stop(graceful=True)

    node = threading.Thread(target=asyncio.run, args=(scenario(),))
    node.start()
    pool.serve_here()
    node.join()
    signal.signal(signal.SIGUSR2, before)

    assert seen == [True]
