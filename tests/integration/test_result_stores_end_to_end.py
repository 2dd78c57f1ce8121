"""A worker and a client in processes of their own, with each result store that is not its broker's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from processes import Program, celery, run, user_environment
from servers import MemcachedServer, PostgresServer

APP = """
import time
from pathlib import Path
from celery import Celery, chord

GO = Path(__file__).with_name("go")
app = Celery("proj", broker="sqlite://", result_extended=True)

@app.task(bind=True)
def packs(self):
    self.update_progress(3, 12, "packing")
    while not GO.exists():
        time.sleep(0.01)
    return "packed"

@app.task
def add(x, y):
    return x + y

@app.task
def fail(text):
    raise ValueError(text, 42)

@app.task
def total(numbers):
    return sum(numbers)
"""

CLIENT = """
import time
from celery import chord, group
from proj import GO, add, app, fail, packs, total

assert add.delay(2, 3).get(timeout=20) == 5
result = fail.delay("boom")
try:
    result.get(timeout=20)
except ValueError as exc:
    assert exc.args == ("boom", 42), exc.args
else:
    raise AssertionError("no error")
assert result.state == "FAILURE" and "ValueError" in result.traceback
many = group(add.s(n, n) for n in range(8))()
assert many.get(timeout=20) == [2 * n for n in range(8)]
many.save()
again = app.GroupResult.restore(many.id)
assert again == many and again.join_native(timeout=20) == many.join() and again.completed_count() == 8
again.delete()
assert app.GroupResult.restore(many.id) is None
heard, packing = [], packs.delay()
while packing.progress is None:
    time.sleep(0.01)
assert (packing.state, packing.progress.fraction, packing.progress.message) == ("PROGRESS", 0.25, "packing")
GO.touch()
assert packing.get(timeout=20, on_message=heard.append) == "packed"
assert heard[-1]["status"] == "SUCCESS" and packing.progress is None
assert chord([add.s(n, n) for n in range(20)], total.s()).delay().get(timeout=20) == 380
known = add.delay(1, 1)
known.get(timeout=20)
assert (known.name, list(known.args), known.worker) == ("proj.add", [1, 1], "celery@here"), known.name
known.forget()
assert known.state == "PENDING"
print("all of it")
"""


@pytest.fixture(params=["db+sqlite", "db+postgresql", "cache+memcached", "file"])
def result_backend(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of each store."""
    if request.param == "db+postgresql":
        postgres: PostgresServer = request.getfixturevalue("postgres_server")
        return postgres.fresh_url("db+postgresql")
    if request.param == "cache+memcached":
        memcached: MemcachedServer = request.getfixturevalue("memcached_server")
        return memcached.url
    (tmp_path / "results").mkdir()
    return {
        "db+sqlite": f"db+sqlite:///{tmp_path}/results.sqlite3",
        "file": f"file://{tmp_path}/results",
    }[request.param]


@pytest.mark.postgres
@pytest.mark.memcached
def test_results_failures_groups_and_chords_come_back(result_backend: str, tmp_path: Path) -> None:
    (tmp_path / "proj.py").write_text(APP)
    environment = user_environment(tmp_path, CELERY_RESULT_BACKEND=result_backend)
    command = celery("-A", "proj", "worker", "-l", "info", "-c", "2", "-n", "celery@here")

    with Program(command, cwd=tmp_path, env=environment) as worker:
        worker.wait_for(r" ready\.")
        said = run(["python", "-c", CLIENT], cwd=tmp_path, env=environment)

        assert said.strip() == "all of it", worker.output
        assert worker.stop() == 0


def test_a_store_that_was_away_gets_the_results_when_it_is_back(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    (tmp_path / "proj.py").write_text(APP)
    url = postgres_server.fresh_url("db+postgresql")
    environment = user_environment(tmp_path, CELERY_RESULT_BACKEND=url)
    command = celery("-A", "proj", "worker", "-l", "info", "-c", "2")
    send = "from proj import add; print(add.delay({0}, {0}).id)"
    read = "from proj import app; print(app.AsyncResult('{}').get(timeout=20))"

    with Program(command, cwd=tmp_path, env=environment) as worker:
        worker.wait_for(r" ready\.")
        before = run(["python", "-c", send.format(1)], cwd=tmp_path, env=environment).strip()
        worker.wait_for(rf"{before}\] succeeded")
        postgres_server.kill()
        meanwhile = run(["python", "-c", send.format(2)], cwd=tmp_path, env=environment).strip()
        worker.wait_for(rf"{meanwhile}\] succeeded")

        postgres_server.start()

        assert run(["python", "-c", read.format(meanwhile)], cwd=tmp_path, env=environment).strip() == "4"
        assert worker.stop() == 0
