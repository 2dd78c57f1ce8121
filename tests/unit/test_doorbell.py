"""Doorbells wake, tell what it is about, and never hold up the one who rings."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from celeriac.net.doorbell import Bell, Ringer


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "bells"


@pytest.fixture
def ringer(directory: Path) -> Iterator[Ringer]:
    ringer = Ringer(directory)
    yield ringer
    ringer.close()


@pytest.fixture
def bell(directory: Path) -> Iterator[Bell]:
    bell = Bell(directory, "q")
    yield bell
    bell.close()


def killed_owner(directory: Path) -> str:
    """Return the name of a bell whose owner is dead."""
    code = (
        "import os, sys, pathlib; from celeriac.net.doorbell import Bell\n"
        "print(Bell(pathlib.Path(sys.argv[1]), 'q').name, flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(directory)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip()


def test_a_ring_is_heard_with_its_news(bell: Bell, ringer: Ringer) -> None:
    ringer.ring("q", b"one")
    ringer.ring("q", b"two")

    assert bell.wait(5.0)
    assert bell.drain() == ([b"one", b"two"], False)
    assert not bell.wait(0.0)


def test_every_bell_of_the_kind_is_rung_and_no_other(directory: Path, bell: Bell, ringer: Ringer) -> None:
    second, other = Bell(directory, "q"), Bell(directory, "r")

    ringer.ring("q")

    heard = [each.wait(0.0) for each in (bell, second, other)]
    second.close()
    other.close()
    assert heard == [True, True, False]


def test_a_bell_that_is_hung_up_later_is_rung_too(directory: Path, ringer: Ringer) -> None:
    ringer.ring("q")
    late = Bell(directory, "q")

    ringer.ring("q")

    heard = late.wait(5.0)
    late.close()
    assert heard


def test_bells_hung_up_within_one_tick_of_the_file_systems_clock_are_all_rung(
    directory: Path, ringer: Ringer
) -> None:
    heard = []
    for _ in range(50):
        bell = Bell(directory, "q")
        ringer.ring("q")
        heard.append(bell.wait(0.0))
        bell.close()

    assert all(heard)


def test_ringing_where_nobody_has_ever_waited_does_nothing(ringer: Ringer) -> None:
    ringer.ring("q")


def test_a_full_bell_does_not_hold_up_the_ringer_and_says_that_some_may_be_missing(
    bell: Bell, ringer: Ringer
) -> None:
    for _ in range(2000):
        ringer.ring("q", b"news")

    news, some_missed = bell.drain()
    assert 0 < len(news) <= 2000
    assert some_missed


def test_news_too_long_for_a_datagram_still_ring(bell: Bell, ringer: Ringer) -> None:
    ringer.ring("q", b"x" * 1_000_000)

    assert bell.drain() == ([b""], False)


def test_the_bell_of_a_killed_owner_is_known_and_taken_down(directory: Path, ringer: Ringer) -> None:
    name = killed_owner(directory)
    assert (directory / name).exists()
    assert not ringer.hangs(name)

    ringer.ring("q")

    assert not (directory / name).exists()


def test_a_bell_whose_owner_lives_or_cannot_be_seen_counts_as_alive(bell: Bell, ringer: Ringer) -> None:
    assert ringer.hangs(bell.name)
    assert ringer.hangs("q-1-unknown")
    assert not bell.wait(0.0)  # asking does not ring


def test_a_closed_bell_is_gone(directory: Path, ringer: Ringer) -> None:
    bell = Bell(directory, "q")
    bell.close()

    ringer.ring("q")

    assert list(directory.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="long paths are reached through /proc")
def test_a_path_longer_than_a_socket_address_works(tmp_path: Path) -> None:
    directory = tmp_path / ("a" * 100) / ("b" * 100)
    directory.parent.mkdir(parents=True)
    bell, ringer = Bell(directory, "q"), Ringer(directory)

    ringer.ring("q", b"far")

    news = bell.drain()
    name = bell.name
    bell.close()
    gone = not (directory / name).exists()
    ringer.close()
    assert news == ([b"far"], False)
    assert gone


def test_a_bell_that_cannot_hang_there_leaves_nothing_open(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(OSError, match="file"):
        Bell(tmp_path / "file" / "bells", "q")
