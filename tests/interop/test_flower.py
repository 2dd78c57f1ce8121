"""Flower, the real one, on our drop-in and on real Celery: it sees and steers our workers."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from fleet import ANSWER_SECONDS, MARKS, Side, Site
from servers import free_port

pytestmark = pytest.mark.timeout(500)  # the first test waits for two environments to be made

NODE = "w1@box"
LOOK_SECONDS = 0.1


class Flower:
    """A running Flower with a worker of ours to watch.

    Args:
        site: Where both run.
        python: The interpreter of the environment with Flower.
        side: Whose Celery Flower runs on.
    """

    def __init__(self, site: Site, python: Path, side: Side) -> None:
        self.site = site
        port = free_port()
        self._url = f"http://127.0.0.1:{port}"
        self.worker = site.start("ours", "-n", NODE, "-c", "3", "-E", quiet=False)
        self.worker.wait_for(r" ready\.$")
        monitor = site.monitor(side, python, "flower", f"--port={port}", "--address=127.0.0.1")
        monitor.wait_for("Visit me at")
        self.until(lambda: self.get("/healthcheck")[0] == 200)
        self.until(lambda: NODE in self.json("/api/workers?refresh=1"))

    def get(self, path: str) -> tuple[int, str]:
        """Return the status and the text of a page; the status is 0 when there is no answer."""
        return self._ask(urllib.request.Request(self._url + path))

    def json(self, path: str) -> Any:
        """Return what the API answers."""
        status, text = self.get(path)
        return json.loads(text) if status == 200 else {}

    def post(self, path: str, form: Mapping[str, object] | None = None) -> tuple[int, str]:
        """Send a form."""
        data = urlencode(form or {}).encode()
        return self._ask(urllib.request.Request(self._url + path, data=data))

    def call(self, task: str, *args: object) -> str:
        """Have Flower send a task, and return its id."""
        request = urllib.request.Request(
            f"{self._url}/api/task/send-task/{task}",
            data=json.dumps({"args": args}).encode(),
            headers={"Content-Type": "application/json"},
        )
        status, text = self._ask(request)
        assert status == 200, text
        return str(json.loads(text)["task-id"])

    def task(self, task_id: str, state: str) -> dict[str, Any]:
        """Return what Flower knows of a task, once it is in a state."""
        found: dict[str, Any] = self.until(
            lambda: (info := self.json(f"/api/task/info/{task_id}")).get("state") == state and info
        )
        return found

    def until(self, look: Callable[[], Any]) -> Any:
        """Return what is true at last."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while not (found := look()):
            assert time.monotonic() < deadline, "it does not come true"
            time.sleep(LOOK_SECONDS)
        return found

    def _ask(self, request: urllib.request.Request) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as exc:
            return exc.code, exc.read().decode()
        except OSError:
            return 0, ""


def on(side: Side, broker: str) -> Any:
    return pytest.param(
        (side, broker),
        marks=[*MARKS[broker], pytest.mark.together(f"flower on {side} with {broker}")],
        id=f"{side}-{broker}",
    )


@pytest.fixture(scope="module")
def flowers() -> dict[tuple[Side, str], Flower]:
    return {}


@pytest.fixture(params=[on("ours", "redis"), on("real", "redis"), on("ours", "rabbitmq")])
def flower(
    request: pytest.FixtureRequest,
    make_site: Callable[[str], Site],
    sites: dict[tuple[str, ...], Site],
    flowers: dict[tuple[Side, str], Flower],
    flower_python: Callable[[Side], Path],
) -> Flower:
    side, broker = request.param
    if request.param not in flowers:
        python = flower_python(side)
        site = sites[(side, broker)] = make_site(broker)
        flowers[request.param] = Flower(site, python, side)
    return flowers[request.param]


def test_it_shows_a_worker_with_all_that_it_says_of_itself(flower: Flower) -> None:
    told = flower.json("/api/workers?refresh=1")[NODE]

    assert "program.add" in told["registered"]
    assert "celery" in [queue["name"] for queue in told["active_queues"]]
    assert told["stats"]["pool"]["max-concurrency"] >= 2
    assert flower.get(f"/worker/{NODE}")[0] == 200
    assert NODE in flower.get("/workers")[1]
    assert flower.json("/api/workers?status=1")[NODE] is True


def test_it_follows_tasks_to_every_end(flower: Flower) -> None:
    done, failed = flower.call("program.add", 2, 3), flower.call("program.fail", "why")
    again = flower.call("program.flaky", 1)

    success = flower.task(done, "SUCCESS")
    assert (success["name"], success["args"], success["result"]) == ("program.add", "[2, 3]", "5")
    assert success["worker"] == NODE
    assert None not in (success["received"], success["started"], success["runtime"])
    assert "CustomError" in flower.task(failed, "FAILURE")["exception"]
    assert flower.task(again, "SUCCESS")["retries"] == 1
    for task_id in (done, failed):
        assert task_id in flower.get(f"/task/{task_id}")[1]
    assert {"program.add", "program.fail"} <= set(flower.json("/api/task/types")["task-types"])


def test_it_shows_tasks_queues_and_figures(flower: Flower) -> None:
    flower.task(flower.call("program.add", 1, 1), "SUCCESS")

    assert [flower.get(page)[0] for page in ("/", "/tasks", "/broker")] == [200, 200, 200]
    assert 'type="task-succeeded"' in flower.get("/metrics")[1]
    assert flower.json("/api/tasks?limit=1")


def test_it_ends_a_running_task(flower: Flower) -> None:
    task_id = flower.call("program.give_time", 600)
    flower.task(task_id, "STARTED")

    assert flower.post(f"/api/task/revoke/{task_id}?terminate=true")[0] == 200

    assert flower.task(task_id, "REVOKED")["worker"] == NODE


@pytest.mark.parametrize(
    ("path", "form", "answer"),
    [
        ("/api/worker/pool/grow/{node}?n=1", {}, "Growing"),
        ("/api/worker/pool/shrink/{node}?n=1", {}, "Shrinking"),
        ("/api/worker/queue/add-consumer/{node}?queue=extra", {}, "add consumer extra"),
        ("/api/worker/queue/cancel-consumer/{node}?queue=extra", {}, "no longer consuming from extra"),
        (
            "/api/task/rate-limit/program.mul",
            {"workername": NODE, "ratelimit": "100/s"},
            "new rate limit set",
        ),
        ("/api/task/timeout/program.mul", {"workername": NODE, "hard": 60, "soft": 50}, "time limits set"),
    ],
)
def test_it_steers_a_worker(flower: Flower, path: str, form: dict[str, object], answer: str) -> None:
    status, text = flower.post(path.format(node=NODE), form)

    assert (status, answer in text) == (200, True), text


def test_it_says_why_a_worker_does_not_obey(flower: Flower) -> None:
    status, text = flower.post(f"/api/worker/pool/autoscale/{NODE}?min=1&max=3")

    assert status == 403
    assert "Autoscale not enabled" in text


def test_it_shuts_a_worker_down(flower: Flower) -> None:
    other = flower.site.start("ours", "-n", "w2@box", "-Q", "ours", quiet=False)
    flower.until(lambda: "w2@box" in flower.json("/api/workers?refresh=1"))

    assert flower.post("/api/worker/shutdown/w2@box")[0] == 200

    assert other.finish() == 0
    flower.until(lambda: not flower.json("/api/workers?status=1").get("w2@box"))
