"""celery-batches, from its package, unchanged: calls of a task are run together."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from celeriac import Celeriac
from processes import Program, celery

_spec = importlib.util.spec_from_file_location("packages", Path(__file__).with_name("packages.py"))
assert _spec is not None
assert _spec.loader is not None
packages = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(packages)

TIMEOUT = 60.0


class Place:
    """A folder with a queue, for workers that batch."""

    def __init__(self, folder: Path, pool: str) -> None:
        self.pool = pool
        self._folder = folder
        self._done = folder / "done.jsonl"
        self._url = f"sqlite:///{folder / 'queue.db'}"
        self.app = Celeriac("batches", broker=self._url, backend=self._url)

    def worker(self) -> Program:
        """Begin a worker."""
        env = packages.environment(
            Path(__file__).parent,
            packages="batches",
            HOME=str(self._folder),
            BROKER=self._url,
            RESULTS=self._url,
            DONE=str(self._done),
        )
        command = celery("-A", "batches_program", "worker", "-P", self.pool, "-c", "1", "-l", "info")
        program = Program(command, cwd=self._folder, env=env)
        program.wait_for("ready")
        return program

    def send(self, name: str, *values: Any) -> list[Any]:
        """Call a task with each of these."""
        return [self.app.send_task(f"batches_program.{name}", (value,)) for value in values]

    def batches(self, name: str, count: int) -> list[list[Any]]:
        """Return the batches of a task as soon as there are so many."""
        deadline = time.monotonic() + TIMEOUT
        while True:
            text = self._done.read_text() if self._done.exists() else ""
            found = [line for line in map(json.loads, text.splitlines()) if line["batch"] == name]
            if len(found) >= count:
                return [line["args"] for line in found]
            assert time.monotonic() < deadline, text
            time.sleep(0.01)


@pytest.fixture(params=["prefork", "solo"])
def place(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Place]:
    made = Place(tmp_path, request.param)
    with contextlib.closing(made.app):
        yield made


def test_calls_are_run_together_and_acknowledged_with_their_batch(place: Place) -> None:
    with place.worker() as worker:
        # When there are as many calls as make a batch, and one more
        results = place.send("by_count", 1, 2, 3, 4)
        place.send("by_count", 5)
        # Then they are run together, with the result of each, while the last one waits for others
        assert [one.get(timeout=TIMEOUT) for one in results] == [2, 4, 6, 8]
        assert place.batches("by_count", 1) == [[1, 2, 3, 4]]

        # When fewer come, and time passes: they are run all the same, beside what is not batched
        place.send("by_interval", "a", "b")
        assert place.send("alone", 7)[0].get(timeout=TIMEOUT) == 7
        assert place.batches("by_interval", 1) == [["a", "b"]]

        # When a batch fails: that is told, and it is done
        place.send("late", "fails", 1)
        assert place.batches("late", 1) == [["fails", 1]]
        worker.wait_for(r"Error: ValueError\('of the batch'\)")
        place.send("late", 2, 3)
        assert place.batches("late", 2)[1] == [2, 3]
        assert worker.stop() == 0

    # Then what was in no batch yet went back, and nothing else: another worker has it first of all
    with place.worker() as worker:
        place.send("by_count", 6, 7, 8)
        assert place.batches("by_count", 2) == [[1, 2, 3, 4], [5, 6, 7, 8]]
        assert worker.stop() == 0
    assert len(place.batches("late", 2)) == 2
    assert "Traceback" not in worker.output


def test_a_batch_that_dies_with_its_process_runs_again(tmp_path: Path) -> None:
    place = Place(tmp_path, "prefork")
    with contextlib.closing(place.app), place.worker() as worker:
        # When the process that runs a batch dies every time, though it is acknowledged late
        results = place.send("late", "dies", 1)

        # Then its messages come again, until they have done so often enough
        assert place.batches("late", 3)[:3] == [["dies", 1]] * 3
        assert [one.get(timeout=TIMEOUT, propagate=False) is None for one in results] == [False, False]
        assert [one.state for one in results] == ["FAILURE", "FAILURE"]
        place.send("late", 2, 3)
        assert place.batches("late", 4)[3] == [2, 3]
        assert worker.stop() == 0
