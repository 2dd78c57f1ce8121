"""A worker that dies between completing a chord and starting its body: the body starts all the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from celeriac.backends import BackendSpec, connect
from celeriac.codecs import Codecs
from celeriac.message import Outcome
from celeriac.ports import ResultBackend
from servers import MemcachedServer


@pytest.fixture(params=["db+sqlite", "file", "cache+memcached"])
def backend(
    request: pytest.FixtureRequest, tmp_path: Path, memcached_server: MemcachedServer
) -> Iterator[ResultBackend]:
    """A backend of each kind that keeps chords in a way of its own."""
    urls = {
        "db+sqlite": f"db+sqlite:///{tmp_path}/results.sqlite3",
        "file": f"file://{tmp_path}",
        "cache+memcached": memcached_server.url,
    }
    found = connect(BackendSpec(url=urls[request.param], codecs=Codecs()))
    assert found is not None
    yield found
    found.close()


def test_the_task_that_completed_a_chord_gets_the_parts_again_until_it_is_ended(
    backend: ResultBackend, tmp_path: Path
) -> None:
    first, last = (Outcome(id=f"{tmp_path.name}-{n}", state="SUCCESS", result=n) for n in range(2))
    backend.start_chord(tmp_path.name, 2, [])
    assert backend.chord_part(tmp_path.name, 0, first) is None
    assert backend.chord_part(tmp_path.name, 1, last) is not None  # and here the worker died

    redelivered = backend.chord_part(tmp_path.name, 1, last)
    of_another = backend.chord_part(tmp_path.name, 0, first)
    backend.end_chord(tmp_path.name)
    too_late = backend.chord_part(tmp_path.name, 1, last)

    assert redelivered is not None
    assert [part.result for part in redelivered] == [0, 1]
    assert of_another is None
    assert too_late is None
