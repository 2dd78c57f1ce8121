"""The file that keeps revoked tasks over a restart of a worker."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from celeriac.clock import LamportClock
from celeriac.errors import ConfigError
from celeriac.node.revoked import Revoked
from celeriac.node.statedb import StateDB
from celeriac.revocations import of_stamps, of_tasks


async def live(path: Path, revoked: Revoked, clock: LamportClock, ids: list[str]) -> None:
    """Be a worker for a moment, to which tasks are revoked."""
    statedb = StateDB(str(path), revoked, clock)
    await statedb.open()
    running = asyncio.create_task(statedb.run())
    await asyncio.sleep(0)
    revoked.add(of_tasks(ids))
    revoked.add(of_stamps({"customer": "acme"}))
    running.cancel()
    await asyncio.wait([running])


async def test_a_worker_knows_what_the_one_before_knew(tmp_path: Path) -> None:
    path, clock = tmp_path / "state", LamportClock(41)
    await live(path, Revoked(), clock, ["a", "b"])

    revoked, later = Revoked(), LamportClock()
    await live(path, revoked, later, ["c"])
    last = Revoked()
    await StateDB(str(path), last, LamportClock()).open()

    assert revoked.ids() == last.ids() == ["a", "b", "c"]
    assert [each.revocation.stamp for each in last.remembered()] == ["", "", "", "customer"]
    assert later.value > 41


async def test_a_file_of_celery_is_put_aside_and_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "state"
    path.write_bytes(b"\x13\x57\x9a\xce of a database")
    revoked = Revoked()

    await StateDB(str(path), revoked, LamportClock()).open()

    assert not revoked
    assert (tmp_path / "state.unread").read_bytes().startswith(b"\x13\x57")
    assert "no state file of ours" in caplog.text


async def test_a_file_that_cannot_be_written_is_an_error_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="state file"):
        await StateDB(str(tmp_path / "nowhere" / "state"), Revoked(), LamportClock()).open()
