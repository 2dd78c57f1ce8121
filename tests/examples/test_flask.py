"""Flask: tasks run with the application's context."""

from __future__ import annotations

import requests

from mission import OpenShell
from processes import celery
from servers.ports import free_port


def test_a_task_knows_what_the_application_is_configured_with(open_shell: OpenShell) -> None:
    shell = open_shell("flask", FLASK_GREETING="Good morning")
    port = free_port()
    server = shell.start("python", "-m", "flask", "--app", "shop", "run", "--port", str(port))
    worker = shell.start(*celery("-A", "shop", "worker", "-l", "info", "-c", "1"))
    server.wait_for(r"Running on")
    url = f"http://127.0.0.1:{port}/greetings"

    begun = requests.post(url, {"name": "Ada"}, timeout=30)
    worker.wait_for(r"Task shop\.greet\[.*\] succeeded")
    stopped = worker.stop()  # now all results are written down
    seen = requests.get(f"{url}/{begun.json()['result_id']}", timeout=30)

    assert begun.status_code == 202
    assert seen.json() == {"ready": True, "value": "Good morning, Ada!"}
    assert stopped == 0
