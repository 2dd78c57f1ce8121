"""The prefork pool with real children."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from celeriac.message import Lost, Started
from celeriac.pools.base import PoolOptions
from celeriac.pools.prefork.pool import PreforkPool
from pool_harness import CommandRunner, Reports, job

Make = Callable[..., Awaitable[tuple[PreforkPool, Reports]]]


@pytest.fixture
def runner(tmp_path: Path) -> CommandRunner:
    return CommandRunner(tmp_path)


@pytest.fixture
async def make(runner: CommandRunner) -> AsyncIterator[Make]:
    pools = []

    async def make_pool(size: int = 2, **options: Any) -> tuple[PreforkPool, Reports]:
        pool = PreforkPool(PoolOptions(size=size, **options), lambda: runner)
        pools.append(pool)
        reports = Reports()
        pool.open()
        await pool.start(reports)
        return pool, reports

    yield make_pool
    for pool in pools:
        await pool.stop(graceful=False)


async def test_jobs_run_in_the_children_and_their_outcomes_come_back(make: Make) -> None:
    pool, reports = await make()
    jobs = [job("echo", i) for i in range(2)]

    for each in jobs:
        pool.submit([each])
    await reports.ended(*jobs)

    finished = reports.finished()
    assert [finished[each.number].record.payload for each in jobs] == [b"0", b"1"]  # type: ignore[union-attr]
    assert {finished[each.number].pid for each in jobs} == set(pool.pids())
    assert os.getpid() not in pool.pids()


async def test_slow_jobs_get_an_idle_child_each_and_no_more_are_taken(make: Make) -> None:
    pool, reports = await make(size=2)
    jobs = [job("sleep", 0.1) for _ in range(2)]

    before = pool.free()
    for each in jobs:
        pool.submit([each])

    assert (before, pool.free(), pool.free(short=True)) == (2, 0, 0)
    await reports.ended(*jobs)
    assert pool.free() == 2


async def test_several_short_jobs_wait_in_one_inbox(make: Make) -> None:
    pool, reports = await make(size=1)
    room = pool.free(short=True)
    jobs = [job("echo", i, short=True) for i in range(room)]

    for each in jobs:
        pool.submit([each])

    assert room > 1
    assert pool.free(short=True) == 0
    await reports.ended(*jobs)


async def test_every_job_runs_once_under_a_flood_of_short_ones(make: Make, runner: CommandRunner) -> None:
    pool, reports = await make(size=2)
    jobs = [job("echo", i, short=True) for i in range(400)]
    left = list(jobs)

    while left:
        await reports.until(lambda: pool.free(short=True) > 0)
        for _ in range(min(pool.free(short=True), len(left))):
            pool.submit([left.pop()])
    await reports.ended(*jobs)

    assert [runner.times(each.id) for each in jobs] == [1] * len(jobs)
    assert len(reports.finished()) == len(jobs)


async def test_a_start_is_told_while_the_job_runs(make: Make) -> None:
    pool, reports = await make(size=1)
    slow = job("sleep", 0.2)
    before = time.time()

    pool.submit([slow])
    await reports.until(lambda: bool(reports.of(Started)))

    (started,) = reports.of(Started)
    assert (started.number, started.pid) == (slow.number, pool.pids()[0])
    assert before <= started.at <= time.time()
    assert not reports.finished()
    assert [running.number for running in pool.running()] == [slow.number]


async def test_a_killed_child_loses_its_job_and_is_replaced(make: Make) -> None:
    pool, reports = await make(size=1)
    victim = job("kill", signal.SIGKILL)
    (old,) = pool.pids()

    pool.submit([victim])
    await reports.ended(victim)
    await reports.until(lambda: pool.free() == 1)

    (lost,) = reports.of(Lost)
    assert lost.started
    assert lost.reason == f"Worker exited prematurely: signal 9 (SIGKILL) Job: {victim.number}."
    assert lost.pid == old
    assert pool.pids() != [old]


async def test_a_job_that_exits_takes_its_child_along(make: Make, runner: CommandRunner) -> None:
    pool, reports = await make(size=1)
    (old,) = pool.pids()
    victim = job("exit", 1)

    pool.submit([victim])
    await reports.ended(victim)

    assert reports.of(Lost)[0].reason == f"Worker exited prematurely: exitcode 1 Job: {victim.number}."
    assert runner.times(f"end-{old}-1") == 1


@pytest.mark.parametrize(
    ("command", "argument", "told"),
    [
        ("kill", signal.SIGKILL, "signal 9 (SIGKILL)"),
        ("kill", signal.SIGSEGV, "signal 11 (SIGSEGV)"),
        ("kill", signal.SIGABRT, "signal 6 (SIGABRT)"),
        ("kill", signal.SIGTERM, "signal 15 (SIGTERM)"),
        ("leave", 0, "exitcode 0"),
        ("leave", 7, "exitcode 7"),
        ("exit", 3, "exitcode 3"),
    ],
)
async def test_a_child_that_ends_in_whatever_way_is_replaced_and_others_go_on(
    make: Make, runner: CommandRunner, command: str, argument: int, told: str
) -> None:
    pool, reports = await make(size=2)
    doomed, long = job(command, argument), job("wait_for", "all-done")
    others = [job("echo", n) for n in range(10)]
    pool.submit([long, doomed])
    await reports.ended(doomed)

    for other in others:  # the slot of the dead one runs them all: the other one is busy
        await reports.until(lambda: pool.free() > 0)
        pool.submit([other])
    await reports.ended(*others)
    runner.trace("all-done")
    await reports.ended(long)

    (lost,) = reports.of(Lost)
    assert lost.reason == f"Worker exited prematurely: {told} Job: {doomed.number}."
    assert len(reports.finished()) == 11
    assert len(pool.pids()) == 2


async def test_a_child_that_is_stopped_while_idle_keeps_no_job_from_others_and_is_replaced(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("celeriac.pools.prefork.pool._DEAD_LOOKS", 40)
    pool, reports = await make(size=2)
    stopped = pool.pids()[0]
    jobs = [job("echo", n) for n in range(2)]

    os.kill(stopped, signal.SIGSTOP)
    pool.submit(jobs)
    await reports.ended(*jobs)
    await reports.until(lambda: pool.free() == 2 and stopped not in pool.pids())

    assert not reports.of(Lost)
    assert {report.pid for report in reports.finished().values()}.isdisjoint({stopped})
    assert f"pid:{stopped} takes no jobs" in caplog.text


async def test_a_child_that_was_stopped_for_a_while_is_kept(
    make: Make, monkeypatch: pytest.MonkeyPatch, runner: CommandRunner
) -> None:
    monkeypatch.setattr("celeriac.pools.prefork.pool._DEAD_LOOKS", 1_000_000)
    pool, reports = await make(size=1)
    (stopped,) = pool.pids()
    late = job("echo", 1)

    os.kill(stopped, signal.SIGSTOP)
    pool.submit([late])
    await asyncio.sleep(0.3)  # it counts as deaf by then
    os.kill(stopped, signal.SIGCONT)
    await reports.ended(late)

    assert pool.pids() == [stopped]
    assert runner.times(late.id) == 1


async def test_a_child_that_does_not_get_ready_is_made_again_with_more_time(
    make: Make, runner: CommandRunner, caplog: pytest.LogCaptureFixture
) -> None:
    begin = runner.begin

    def hang_at_first() -> None:
        begin()
        if runner.times("hung") < 2:
            runner.trace("hung")
            time.sleep(60)

    runner.begin = hang_at_first  # type: ignore[method-assign]
    pool, reports = await make(size=1, start_timeout_seconds=0.3)
    await reports.until(lambda: pool.free() == 1)
    one = job("echo", 1)
    pool.submit([one])
    await reports.ended(one)

    assert runner.times("hung") == 2
    assert "Timed out waiting for UP message from 'ForkPoolWorker-1'" in caplog.text
    assert "after 0.3 seconds" in caplog.text
    assert "after 0.6 seconds" in caplog.text


async def test_a_place_that_is_given_up_and_wanted_again_while_its_child_is_to_be_made_has_one_child(
    make: Make, runner: CommandRunner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pause_seconds = 0.2
    monkeypatch.setattr("celeriac.pools.prefork.pool._FIRST_PAUSE_SECONDS", pause_seconds)
    begin, ill = runner.begin, tmp_path / "ill"

    def die_when_ill() -> None:
        begin()
        if ill.exists():
            runner.trace("died")
            os._exit(1)

    runner.begin = die_when_ill  # type: ignore[method-assign]
    pool, reports = await make(size=1)
    ill.touch()
    pool.resize(2)
    await reports.until(lambda: runner.times("died") == 1 and pool._children[1] is None)
    ill.unlink()

    pool.resize(1)
    pool.resize(2)
    await asyncio.sleep(pause_seconds)  # longer than the first one has still to wait
    await reports.until(lambda: pool.free() == 2)

    assert len(list(tmp_path.glob("begin-*"))) == 3


async def test_a_child_that_does_not_end_when_its_time_is_over_is_killed(
    make: Make, runner: CommandRunner, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("celeriac.pools.prefork.pool._END_SECONDS", 0.2)
    monkeypatch.setattr(runner, "end", lambda code: time.sleep(60))
    pool, reports = await make(size=1, max_tasks_per_child=1)
    (first,) = pool.pids()
    jobs = [job("echo", n) for n in range(2)]

    for each in jobs:
        await reports.until(lambda: pool.free() == 1)
        pool.submit([each])
    await reports.ended(*jobs)

    assert not reports.of(Lost)
    assert f"pid:{first} has not ended within 0.2 seconds" in caplog.text


async def test_unread_jobs_of_a_killed_child_run_elsewhere_and_none_twice(
    make: Make, runner: CommandRunner
) -> None:
    pool, reports = await make(size=2)
    victim = job("kill", signal.SIGKILL, short=True)
    behind = [job("echo", i, short=True) for i in range(pool.free(short=True) - 1)]

    pool.submit([victim])
    for each in behind:
        pool.submit([each])
    await reports.ended(victim, *behind)

    assert [lost.number for lost in reports.of(Lost)] == [victim.number]
    assert set(reports.finished()) == {each.number for each in behind}
    assert [runner.times(each.id) for each in behind] == [1] * len(behind)


@pytest.mark.parametrize("round_number", range(5))
async def test_accounts_are_exact_when_a_busy_child_is_killed_from_outside(
    make: Make, runner: CommandRunner, round_number: int
) -> None:
    pool, reports = await make(size=1)
    jobs = [job("echo", i, short=True) for i in range(200)]
    left = list(jobs)
    (victim,) = pool.pids()
    killed = False

    while left:
        await reports.until(lambda: pool.free(short=True) > 0)
        for _ in range(min(pool.free(short=True), len(left))):
            pool.submit([left.pop()])
        if not killed and len(reports.finished()) > 20 * round_number:
            os.kill(victim, signal.SIGKILL)
            killed = True
    await reports.ended(*jobs)

    # Whatever was reported as finished or lost was begun once, and nothing was begun twice.
    assert [runner.times(each.id) for each in jobs if each.number in reports.finished()] == [1] * len(
        reports.finished()
    )
    assert len(reports.of(Lost)) <= 1
    assert len(reports.finished()) + len(reports.of(Lost)) == len(jobs)
    assert max(runner.times(each.id) for each in jobs) == 1


async def test_what_waits_behind_a_stalled_job_is_given_to_others(make: Make, runner: CommandRunner) -> None:
    pool, reports = await make(size=2)
    stalled = [job("wait_for", "go", short=True)]
    quick = [job("echo", i, short=True) for i in range(pool.free(short=True) - 1)]

    pool.submit([stalled[0]])
    for each in quick:
        pool.submit([each])
    await reports.ended(*quick)

    assert stalled[0].number not in reports.finished()
    assert stalled[0].number in [started.number for started in reports.of(Started)]
    (runner.folder / "go").touch()
    await reports.ended(*stalled)


async def test_reports_of_short_jobs_are_not_held_up_by_a_long_one_behind_them(
    make: Make, runner: CommandRunner
) -> None:
    pool, reports = await make(size=1)
    quick, long = job("echo", 1, short=True), job("wait_for", "go", short=True)

    pool.submit([quick])
    pool.submit([long])
    await reports.ended(quick)

    assert long.number not in reports.finished()
    (runner.folder / "go").touch()
    await reports.ended(long)


async def test_unread_jobs_can_be_recalled(make: Make, runner: CommandRunner) -> None:
    pool, reports = await make(size=1)
    first, *others = [job("wait_for", "go", short=True) for _ in range(5)]

    for each in (first, *others):
        pool.submit([each])
    await reports.until(lambda: bool(pool.running()))
    recalled = pool.recall()
    (runner.folder / "go").touch()
    await reports.ended(first)

    assert sorted(recalled) == [each.number for each in others]
    assert sum(runner.times(each.id) for each in others) == 0


async def test_long_jobs_and_long_results_travel_too(make: Make) -> None:
    pool, reports = await make(size=1)
    there = job("size", body=b"x" * 3_000_000)
    back = [job("echo", "before", short=True), job("big", 2_000_000, short=True), job("echo", "after")]

    pool.submit([there])
    await reports.ended(there)
    for each in back:
        await reports.until(lambda: pool.free() > 0)
        pool.submit([each])
    await reports.ended(*back)

    finished = reports.finished()
    assert finished[there.number].record.payload == b"3000000"  # type: ignore[union-attr]
    assert len(finished[back[1].number].record.payload) == 2_000_000  # type: ignore[union-attr]
    assert reports.all == sorted(reports.all, key=lambda report: report.number)


@pytest.mark.parametrize("size", [2_000, 5_000, 20_000, 60_000])
async def test_more_than_an_inbox_holds_is_given_to_it_piece_by_piece(make: Make, size: int) -> None:
    pool, reports = await make(size=1)
    jobs = [job("size", body=b"x" * size, short=True) for _ in range(100)]

    pool.submit(jobs)

    await reports.until(lambda: len(reports.finished()) == len(jobs))
    assert pool.free(short=True) > 0


async def test_a_job_that_could_not_be_given_for_want_of_descriptors_is_given_later(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pool, reports = await make(size=1)
    refused: list[str] = []
    memfd_create = os.memfd_create

    def refuse_once(name: str, flags: int) -> int:
        if not refused:
            refused.append(name)
            raise OSError(errno.EMFILE, "Too many open files")
        return memfd_create(name, flags)

    monkeypatch.setattr(os, "memfd_create", refuse_once)
    long = job("size", body=b"x" * 100_000)

    pool.submit([long])

    await reports.until(lambda: long.number in reports.finished())
    assert f"Job {long.number} waits, for it cannot be given to a process: [Errno 24]" in caplog.text


async def test_many_results_that_fill_the_outbox_arrive_complete(make: Make) -> None:
    pool, reports = await make(size=1)
    jobs = [job("big", 30_000, short=True) for _ in range(16)]

    for each in jobs:
        pool.submit([each])
    await reports.ended(*jobs)

    sizes = [len(report.record.payload) for report in reports.finished().values() if report.record]
    assert sizes == [30_000] * 16


async def test_a_child_is_replaced_after_its_number_of_tasks(make: Make, runner: CommandRunner) -> None:
    pool, reports = await make(size=1, max_tasks_per_child=3)
    jobs = [job("echo", i, short=True) for i in range(7)]

    for each in jobs:
        await reports.until(lambda: pool.free(short=True) > 0)
        pool.submit([each])
    await reports.ended(*jobs)

    by_child: dict[int, int] = {}
    for report in reports.finished().values():
        by_child[report.pid] = by_child.get(report.pid, 0) + 1
    assert sorted(by_child.values()) == [1, 3, 3]
    assert not reports.of(Lost)


async def test_jobs_that_were_taken_back_do_not_count_against_a_child(make: Make) -> None:
    pool, reports = await make(size=1, max_tasks_per_child=3)

    for _ in range(8):  # what is looked at first, the number or the stall, differs from time to time
        await reports.until(lambda: pool.free(short=True) == 3)
        slow, *others = jobs = [job("sleep", 0.03, short=True), *(job("echo", n, short=True) for n in (1, 2))]
        pool.submit(jobs)
        await reports.ended(*jobs)  # the others were taken back, and given again

        finished = reports.finished()
        assert {finished[other.number].pid for other in others} == {finished[slow.number].pid}


async def test_a_child_that_has_grown_too_big_is_replaced_after_its_job(make: Make) -> None:
    own_kib = psutil.Process().memory_info().rss // 1024
    pool, reports = await make(size=1, max_memory_per_child_kib=own_kib + 60_000)
    (old,) = pool.pids()
    small, big = job("echo", 1), job("eat", 120_000_000)

    pool.submit([small])
    await reports.ended(small)
    same = pool.pids() == [old]
    pool.submit([big])
    await reports.ended(big)
    await reports.until(lambda: pool.free() == 1 and pool.pids() != [old])

    assert same
    assert not reports.of(Lost)


async def test_the_soft_limit_raises_inside_the_job(make: Make) -> None:
    pool, reports = await make(size=1)
    limited = job("sleep", 30, soft=0.2)

    pool.submit([limited])
    await reports.ended(limited)

    assert reports.finished()[limited.number].exception_repr == "soft"
    assert pool.free() == 1


async def test_the_soft_limit_spares_the_next_job(make: Make) -> None:
    pool, reports = await make(size=1)
    first, second = job("sleep", 0.15, soft=0.2), job("sleep", 0.3, soft=5)

    pool.submit([first])
    await reports.ended(first)
    pool.submit([second])
    await reports.ended(second)

    assert [report.kind for report in reports.finished().values()] == ["success", "success"]


async def test_the_hard_limit_kills_and_the_slot_is_refilled(make: Make) -> None:
    pool, reports = await make(size=1)
    limited = job("sleep", 30, hard=0.2)

    pool.submit([limited])
    await reports.ended(limited)
    await reports.until(lambda: pool.free() == 1)

    (lost,) = reports.of(Lost)
    assert (lost.number, lost.started, lost.limit_seconds) == (limited.number, True, 0.2)


async def test_a_running_job_can_be_terminated(make: Make) -> None:
    pool, reports = await make(size=1)
    slow = job("sleep", 30)

    pool.submit([slow])
    await reports.until(lambda: bool(reports.of(Started)))
    killed = pool.kill(slow.number, signal.SIGTERM)
    await reports.ended(slow)

    assert killed
    assert reports.of(Lost)[0].reason.startswith("Worker exited prematurely: signal 15 (SIGTERM)")
    assert not pool.kill(slow.number, signal.SIGTERM)


async def test_children_ignore_interrupts(make: Make) -> None:
    pool, reports = await make(size=1)
    slow = job("sleep", 0.3)

    pool.submit([slow])
    await reports.until(lambda: bool(reports.of(Started)))
    os.kill(pool.pids()[0], signal.SIGINT)
    await reports.ended(slow)

    assert not reports.of(Lost)


async def test_a_graceful_stop_waits_for_the_running_job(make: Make, runner: CommandRunner) -> None:
    pool, reports = await make(size=2)
    (pid, _) = pool.pids()
    slow = job("wait_for", "go")

    pool.submit([slow])
    await reports.until(lambda: bool(reports.of(Started)))
    stopping = asyncio.ensure_future(pool.stop(graceful=True))
    (runner.folder / "go").touch()
    await stopping

    assert set(reports.finished()) == {slow.number}
    assert runner.times(f"end-{pid}-0") == 1
    assert not psutil.pid_exists(pid)


async def test_stopping_at_once_tells_what_was_running(make: Make, runner: CommandRunner) -> None:
    pool, reports = await make(size=1)
    slow = job("sleep", 30)

    pool.submit([slow])
    await reports.until(lambda: bool(reports.of(Started)))
    await pool.stop(graceful=False)

    assert [(lost.number, lost.started) for lost in reports.of(Lost)] == [(slow.number, True)]


async def test_a_pool_that_never_started_can_be_stopped_twice() -> None:
    pool = PreforkPool(PoolOptions(size=1), lambda: CommandRunner(Path()))

    await pool.stop(graceful=True)
    await pool.stop(graceful=False)


async def test_the_death_of_the_forker_loses_what_ran_and_frees_nothing(make: Make) -> None:
    pool, reports = await make(size=1)
    slow = job("sleep", 30)
    child = psutil.Process(pool.pids()[0])

    pool.submit([slow])
    await reports.until(lambda: bool(reports.of(Started)))
    child.parent().kill()  # type: ignore[union-attr]
    await reports.ended(slow)

    assert pool.free() == 0
    psutil.wait_procs([child], timeout=5)
    assert not child.is_running()


PARENT = """
    import asyncio, os, sys
    from pathlib import Path
    sys.path[:0] = {path!r}
    from pool_harness import CommandRunner, Reports, job
    from celeriac.pools.base import PoolOptions
    from celeriac.pools.prefork.pool import PreforkPool

    async def main():
        pool = PreforkPool(PoolOptions(size=2), lambda: CommandRunner(Path({folder!r})))
        await pool.start(Reports())
        pool.submit([job("sleep", 60)])
        print(*pool.pids(), flush=True)
        await asyncio.sleep(60)

    asyncio.run(main())
"""


def test_nobody_survives_a_parent_that_is_killed(tmp_path: Path) -> None:
    program = textwrap.dedent(PARENT).format(path=sys.path, folder=str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        children = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
        forker = children[0].parent()
        assert forker is not None

        parent.kill()
        parent.wait()
        _, alive = psutil.wait_procs([*children, forker], timeout=5)

    assert len(children) == 2
    assert alive == []
