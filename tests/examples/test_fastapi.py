"""FastAPI: results are awaited, and progress is followed as server-sent events."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import requests

from mission import OpenShell
from processes import celery
from servers.ports import free_port

STEPS = [f"event: progress\ndata: {json.dumps({'done': n, 'total': 3})}" for n in range(3)]


def test_results_are_awaited_and_progress_is_told(open_shell: OpenShell) -> None:
    shell = open_shell("fastapi")
    port = free_port()
    server = shell.start("python", "-m", "uvicorn", "main:api", "--port", str(port))
    server.wait_for(r"Uvicorn running")
    url = f"http://127.0.0.1:{port}"

    report = requests.post(f"{url}/reports?pages=3", timeout=30)
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(requests.get, f"{url}/sum?x={n}&y=1", timeout=60) for n in range(7)]
        events = pool.submit(requests.get, f"{url}/reports/{report.json()['id']}/events", timeout=60)
        worker = shell.start(*celery("-A", "tasks", "worker", "-l", "info", "-c", "1"))

    told = events.result()
    *steps, end = told.text.strip().split("\n\n")
    assert [one.result().json() for one in asked] == [{"sum": n + 1} for n in range(7)]
    assert report.status_code == 202
    assert told.headers["content-type"].startswith("text/event-stream")
    assert steps, "at least one step is seen, however busy the machine is"
    assert [step for step in STEPS if step in steps] == steps
    assert end == 'event: success\ndata: "a report of 3 pages"'
    assert worker.stop() == 0
    server.stop()
