"""A Django project in which people buy, and are killed while they do.

`write_project` makes it, with the outbox among its apps. `BUYERS` is a program of that project: it forks one
process after the other, each of which buys as fast as it can until it is killed.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from celeriac.transports.blob import unpack
from celeriac.wire.task import RESENT_HEADER
from processes import run, user_environment

_FILES = {
    "project/__init__.py": "from .tasks_app import app as celery_app\n",
    "project/settings.py": """
import os
SECRET_KEY = "only for this test"
INSTALLED_APPS = ["celeriac.contrib.django", "celeriac.contrib.django.outbox", "market"]
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASE_OPTIONS = {"timeout": 60, "transaction_mode": "IMMEDIATE"}
DATABASES = {
    "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3", "OPTIONS": DATABASE_OPTIONS}
}
CELERY_BROKER_URL = os.environ.get("BROKER", "sqlite:///broker.db")
CELERY_PUBLISH_TIMEOUT_SECONDS = float(os.environ.get("PUBLISH_TIMEOUT", 5))
""",
    "project/tasks_app.py": """
from celeriac import Celeriac
app = Celeriac("project", fixups=["celeriac.contrib.django.fixup:fixup"])
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
""",
    "market/__init__.py": "",
    "market/models.py": """
from django.db import models

class Order(models.Model):
    key = models.CharField(max_length=50)
""",
    "market/tasks.py": """
from project.tasks_app import app

@app.task
def deliver(key):
    print("delivered", key)

@app.task(unique="until_done")
def bill(key):
    print("billed", key)
""",
}

# Arguments: a JSON list with, for each process, how it is killed: "before" or "after" its message is sent, or
# a number of seconds after which it is.
BUYERS = """
import json, os, random, signal, sys, time
import django
django.setup()
from django.db import transaction
from market.models import Order
from market.tasks import deliver
from project.tasks_app import app

class Regret(Exception):
    pass

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def deadly(moment):
    real = app.client.publish
    def publish(messages):
        if moment == "before":
            die()
        real(messages)
        die()
    app.client.publish = publish

def buy(number, seed):
    dice = random.Random(seed)
    for turn in range(1_000_000):
        key = f"{number}-{turn}"
        try:
            with transaction.atomic():
                Order.objects.create(key=key)
                deliver.delay_on_commit(key)
                if dice.random() < 0.3:
                    raise Regret
        except Regret:
            pass

for number, death in enumerate(json.loads(sys.argv[1])):
    child = os.fork()
    if not child:
        if isinstance(death, str):
            deadly(death)
        buy(number, seed=number)
    if not isinstance(death, str):
        time.sleep(death)
        os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
"""


class Market:
    """The project, in a folder of its own.

    Args:
        folder: Empty.
    """

    def __init__(self, folder: Path) -> None:
        for name, text in _FILES.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.folder = folder
        self.environment = user_environment(folder, DJANGO_SETTINGS_MODULE="project.settings")
        self.environment["PYTHONPATH"] = os.pathsep.join([str(folder), self.environment["PYTHONPATH"]])
        self.manage("migrate", "--run-syncdb", "-v", "0")

    def manage(self, *arguments: str, **settings: str) -> str:
        """Run a command of Django's and return what it printed."""
        return self._run("-m", "django", *arguments, **settings)

    def python(self, code: str, **settings: str) -> str:
        """Run a program and return what it printed."""
        return self._run("-c", code, **settings)

    def kill(self, deaths: Sequence[str | float]) -> None:
        """Run buyers, one after the other, each of whom dies as said in `BUYERS`."""
        self._run("-c", BUYERS, json.dumps(list(deaths)))

    def sweep(self) -> str:
        """Send what stayed in the outbox, and return what the command said."""
        return self.manage("celeriac_outbox", "-A", "project.tasks_app", "--everything")

    def orders(self) -> set[str]:
        """Return what was bought, by the database."""
        return {key for (key,) in self._read("db.sqlite3", "SELECT key FROM market_order")}

    def outbox(self) -> int:
        """Return how many messages are in the outbox."""
        count: int = self._read("db.sqlite3", "SELECT count(*) FROM celeriac_outbox_outboxmessage")[0][0]
        return count

    def sent(self, task: str = "deliver") -> tuple[Counter[str], Counter[str]]:
        """Return how often the call of a task for each order is at the broker: as sent first, and again."""
        first: Counter[str] = Counter()
        again: Counter[str] = Counter()
        for (blob,) in self._read("broker.db", "SELECT blob FROM messages"):
            envelope = unpack(blob)
            if envelope.headers["task"] != f"market.tasks.{task}":
                continue
            [key] = json.loads(envelope.body)[0]
            (again if RESENT_HEADER in envelope.headers else first)[key] += 1
        return first, again

    def _read(self, file: str, query: str) -> list[Any]:
        with closing(sqlite3.connect(self.folder / file)) as database:
            return database.execute(query).fetchall()

    def _run(self, *arguments: str, **settings: str) -> str:
        command = [sys.executable, *arguments]
        return run(command, cwd=self.folder, env={**self.environment, **settings}, timeout=600)
