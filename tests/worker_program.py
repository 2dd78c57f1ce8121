"""A project in a folder and a worker of it in a process of its own, which tests stop and kill."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from processes import Program

TIMEOUT = 60.0

PROJECT = """
import json
import os
import signal
import time
from pathlib import Path
from celeriac.app import Celeriac

HERE = Path(__file__).parent
app = Celeriac("proj", broker="BROKER", backend="BACKEND", set_as_current=False)
app.conf.worker_lease_seconds = 1.5
app.conf.update(json.loads(os.environ.get("SETTINGS", "{}")))

def trace(name):
    with (HERE / name).open("a") as file:
        file.write("x")

@app.task(name="proj.add")
def add(x, y):
    return x + y

@app.task(name="proj.early")
def early(name):
    trace(f"{name}-begun")
    while not (HERE / "go").exists():
        time.sleep(0.01)
    trace(f"{name}-done")
    return name

@app.task(name="proj.nap")
def nap(seconds):
    time.sleep(seconds)
    return seconds

@app.task(name="proj.poison", acks_late=True)
def poison():
    trace("poison")
    os.kill(os.getpid(), signal.SIGKILL)

@app.task(name="proj.late", acks_late=True)
def late(name):
    return early.run(name)
"""

RUN = """
import logging, sys
from proj import app
from celeriac.node.options import NodeOptions
from celeriac.node.worker import Worker
logging.basicConfig(level=logging.INFO, format="[%(asctime)s: %(levelname)s/%(processName)s] %(message)s")
pool, concurrency, soft = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
app.conf.worker_soft_shutdown_timeout = soft
sys.exit(Worker(app, NodeOptions(hostname="w1@here", pool=pool, concurrency=concurrency)).run())
"""

Start = Callable[..., Program]


def until(look: Callable[[], Any], seconds: float = TIMEOUT) -> Any:
    """Return what is true at last, of what has no event of its own."""
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.01)
    return found


def begun(home: Path, name: str) -> None:
    until((home / f"{name}-begun").exists)


def runs(home: Path, name: str) -> int:
    path = home / f"{name}-begun"
    return len(path.read_text()) if path.exists() else 0
