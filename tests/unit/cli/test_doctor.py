"""The doctor tells what is wrong and what to do, and says so with its exit code."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from celeriac.cli.main import run
from celeriac.ports import Vitals
from celeriac.transports.redis.transport import RedisTransport

PROGRAM = """
from celeriac import Celeriac
app = Celeriac("prog", set_as_current=False, **{settings!r})
"""
Show = pytest.CaptureFixture[str]
Diagnose = Callable[..., tuple[int, dict[str, list[str]]]]


@pytest.fixture
def diagnose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Show) -> Diagnose:
    """Return a function that examines an app with such settings: exit code, and what was found by subject."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    def examine(**settings: object) -> tuple[int, dict[str, list[str]]]:
        name = f"doctor_{tmp_path.name.replace('-', '_')}"
        (tmp_path / f"{name}.py").write_text(PROGRAM.format(settings=settings))
        code = run(["-A", name, "doctor", "--json"])
        found: dict[str, list[str]] = {}
        for line in capsys.readouterr().out.splitlines():
            fact = json.loads(line)
            found.setdefault(fact["about"], []).append(f"{fact['state']}: {fact['text']} {fact['advice']}")
        return code, found

    return examine


def test_a_program_that_needs_no_server_is_well_but_for_its_missing_worker(
    diagnose: Diagnose, tmp_path: Path
) -> None:
    code, found = diagnose(broker=f"sqlite:///{tmp_path}/broker.db")

    assert code == 0
    assert found["settings"] == ["ok: 1 set, all of them understood. "]
    assert found["broker"][0].startswith("ok: ")
    assert "broker.db answers in " in found["broker"][0]
    assert found["workers"][0].startswith("warning: none answered.")


def test_a_broker_that_is_not_there_is_an_error(diagnose: Diagnose) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        port = taken.getsockname()[1]

        code, found = diagnose(broker=f"redis://127.0.0.1:{port}/0", broker_connection_timeout=0.2)

    assert code == 1
    assert found["broker"][0].startswith("error: ")
    assert str(port) in found["broker"][0]


def test_settings_that_are_wrong_are_all_that_is_told(diagnose: Diagnose) -> None:
    code, found = diagnose(broker="memory://", worker_concurrency="many")

    assert code == 1
    assert list(found) == ["settings"]
    assert "worker_concurrency" in found["settings"][0]


def test_redis_is_asked_for_its_clock_and_what_it_does_when_full(
    diagnose: Diagnose, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, found = diagnose(broker=redis_url)

    assert code == 0
    assert found["clock"] == ["ok: the broker's and ours agree. "]
    assert found["memory"][0].startswith("ok: redis ")

    odd = Vitals(server="redis 7", clock=time.time() + 3600, evicts="allkeys-lru")
    monkeypatch.setattr(RedisTransport, "vitals", lambda self: odd)
    code, found = diagnose(broker=redis_url)

    assert code == 1
    assert re.match(r"warning: the broker's is \d+\.\d s ahead of ours\.", found["clock"][0])
    assert found["memory"][0].endswith("Set maxmemory-policy to noeviction.")
