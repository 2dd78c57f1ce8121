"""Hosts of many jobs, and what the node says to them."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from celeriac.execute.coroutines import CoroutineLimit
from celeriac.message import Finished, Job, Lost
from celeriac.pools.hosted.aio import AsyncioHost
from celeriac.pools.hosted.line import HostEnd, NodeEnd, Order
from pool_harness import CommandRunner, job


class AsyncCommandRunner(CommandRunner):
    """Runs coroutines that take some turns of the loop, and tells its node to end the host after each."""

    def __init__(self, folder: Path, node: NodeEnd) -> None:
        super().__init__(folder)
        self.node = node

    def awaits(self, job: Job) -> bool:
        return True

    async def run_async(self, job: Job, limit: CoroutineLimit) -> Finished:
        async def body() -> None:
            await asyncio.sleep(0)
            self.trace("ran")

        try:
            await limit.drive(body())
        finally:
            self.node.stop()
        return Finished(number=job.number, kind="success", record=None)


@pytest.fixture
def node() -> Iterator[NodeEnd]:
    node = NodeEnd()
    yield node
    node.close()


def test_a_job_that_is_told_to_end_before_it_has_begun_does_not_run(node: NodeEnd, tmp_path: Path) -> None:
    runner = AsyncCommandRunner(tmp_path, node)
    host = AsyncioHost(HostEnd(node.far), lambda: runner)
    revoked = job("any")
    node.give(revoked)
    node.order(Order(revoked.number, signal.SIGTERM))

    host.serve()
    host.line._far.close()

    reports = []
    while (answer := node.read()) is not None:
        reports += answer if isinstance(answer, list) else []
    assert [type(report) for report in reports if report.number == revoked.number][-1] is Lost
    assert runner.times("ran") == 0
