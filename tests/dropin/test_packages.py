"""django-celery-beat, django-celery-results and celery-redbeat, from their packages, unchanged."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import shutil
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from processes import Program, celery

_spec = importlib.util.spec_from_file_location("packages", Path(__file__).with_name("packages.py"))
assert _spec is not None
assert _spec.loader is not None
packages = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(packages)

SETTINGS = """
import os
SECRET_KEY = "only for this test"
INSTALLED_APPS = ["django.contrib.contenttypes", "django_celery_results", "django_celery_beat", "shop"]
USE_TZ = True
TIME_ZONE = "UTC"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASE_OPTIONS = {"timeout": 60, "init_command": "PRAGMA synchronous = OFF"}
DATABASES = {
    "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3", "OPTIONS": DATABASE_OPTIONS}
}
CACHES = {"default": {"BACKEND": "django.core.cache.backends.filebased.FileBasedCache", "LOCATION": "cache"}}
CELERY_BROKER_URL = "sqlite:///broker.db"
CELERY_RESULT_BACKEND = os.environ.get("RESULTS", "django-db")
CELERY_CACHE_BACKEND = "default"
CELERY_RESULT_EXTENDED = True
"""
APP = """
import os
from celery import Celery
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
app = Celery("project")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
"""
TASKS = """
from celery import shared_task

@shared_task
def add(x, y):
    return x + y

@shared_task
def total(numbers):
    return sum(numbers)

@shared_task
def fail():
    raise KeyError("nothing there")
"""


# One process of Django does all of it.
PREPARE = """
from django.core.management import call_command
call_command("check")
call_command("migrate", verbosity=0)
from django_celery_beat.models import IntervalSchedule, PeriodicTask
second = IntervalSchedule.objects.create(every=1, period="seconds")
PeriodicTask.objects.create(name="first", task="shop.tasks.add", args="[1, 2]", interval=second)
"""


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a Django project that has the packages among its apps, migrated, with a task every second.

    Whichever process of the test run comes first makes it, for all of them.
    """
    own = tmp_path_factory.getbasetemp()
    place = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    made = place / "project-with-packages"
    with (place / "project-with-packages.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            draft = place / "project-with-packages.draft"
            for name, text in {
                "project/__init__.py": "from .celery import app as celery_app\n",
                "project/settings.py": SETTINGS,
                "project/celery.py": APP,
                "shop/__init__.py": "",
                "shop/tasks.py": TASKS,
            }.items():
                path = draft / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            run(draft, PREPARE)
            draft.rename(made)
    return made


@pytest.fixture
def project(template: Path, tmp_path: Path) -> Path:
    """Return the folder of a copy of that project."""
    return shutil.copytree(template, tmp_path / "project")


def run(project: Path, code: str, **settings: str) -> str:
    """Run a program of the project, and return what it printed."""
    begin = "import django\ndjango.setup()\n"
    env = packages.environment(project, DJANGO_SETTINGS_MODULE="project.settings", **settings)
    command = [sys.executable, "-c", begin + textwrap.dedent(code)]
    done = subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_module_of_the_packages_can_be_imported(project: Path) -> None:
    printed = run(
        project,
        """
        import importlib, pkgutil
        for name in ("django_celery_beat", "django_celery_results", "redbeat"):
            package = importlib.import_module(name)
            found = [one.name for one in pkgutil.walk_packages(package.__path__, name + ".")]
            for one in found:
                if ".admin" not in one:  # these need Django's admin
                    importlib.import_module(one)
            print(name, len(found) > 2)
        """,
    )

    assert printed == "django_celery_beat True\ndjango_celery_results True\nredbeat True\n"


@pytest.mark.parametrize("results", ["django-db", "django-cache"])
def test_results_are_kept_by_django(project: Path, results: str) -> None:
    env = packages.environment(project, DJANGO_SETTINGS_MODULE="project.settings", RESULTS=results)
    command = celery("-A", "project", "worker", "-l", "info", "-c", "1")
    with Program(command, cwd=project, env=env) as worker:
        worker.wait_for(r" ready\.")

        printed = run(
            project,
            """
            from celery import chord, group
            from project.celery import app
            from shop.tasks import add, fail, total
            headers = {"periodic_task_name": "daily"}  # as django-celery-beat does
            one = add.apply_async((1, 2), headers=headers, argsrepr="(a secret,)")
            print(one.get(timeout=60), one.state)
            failed = fail.delay()
            print(repr(failed.get(timeout=60, propagate=False)), failed.state, "KeyError" in failed.traceback)
            many = group(add.s(i, i) for i in range(3)).apply_async()
            print(many.get(timeout=60))
            many.save()
            print(app.GroupResult.restore(many.id).results == many.results)
            print(chord([add.s(1, 1), add.s(2, 2)])(total.s()).get(timeout=60))
            from django_celery_results.models import TaskResult
            kept = TaskResult.objects.filter(task_id=one.id).first()
            names = ("task_name", "task_args", "worker", "periodic_task_name")
            print(kept and tuple(getattr(kept, name).split("@")[0] for name in names))
            one.forget()
            print(one.state)
            """,
            RESULTS=results,
        )

        assert worker.stop() == 0
    kept = "('shop.tasks.add', '\"(a secret,)\"', 'celery', 'daily')" if results == "django-db" else "None"
    assert printed.splitlines() == [
        "3 SUCCESS", "KeyError('nothing there') FAILURE True", "[0, 2, 4]", "True", "6", kept, "PENDING",
    ]  # fmt: skip


def test_the_schedule_in_the_database_is_followed_while_it_changes(project: Path) -> None:
    env = packages.environment(project, DJANGO_SETTINGS_MODULE="project.settings")
    command = celery("-A", "project", "beat", "-l", "info", "-S", "django", "--max-interval", "1")
    with Program(command, cwd=project, env=env) as beat:
        beat.wait_for(r"Sending due task first \(shop\.tasks\.add\)")

        run(
            project,
            """
            from django_celery_beat.models import IntervalSchedule, PeriodicTask
            second = IntervalSchedule.objects.get()
            PeriodicTask.objects.create(name="later", task="shop.tasks.fail", interval=second)
            """,
        )
        beat.wait_for(r"Sending due task later \(shop\.tasks\.fail\)")
        assert beat.stop() == 0

    with contextlib.closing(sqlite3.connect(project / "db.sqlite3")) as database:
        counts = database.execute(
            "SELECT total_run_count FROM django_celery_beat_periodictask WHERE name IN ('first', 'later')"
        ).fetchall()
    assert len(counts) == 2
    assert all(count > 0 for (count,) in counts)
    assert "Traceback" not in beat.output


def test_redbeat_keeps_its_schedule_in_redis(tmp_path: Path, redis_url: str) -> None:
    (tmp_path / "prog.py").write_text(
        "from celery import Celery\n"
        f"app = Celery('prog', broker='{redis_url}', redbeat_redis_url='{redis_url}')\n"
        "app.conf.beat_schedule = {'often': {'task': 'prog.often', 'schedule': 0.5}}\n"
    )
    command = celery(
        "-A", "prog", "beat", "-l", "info", "-S", "redbeat.RedBeatScheduler", "--max-interval", "1"
    )
    with Program(command, cwd=tmp_path, env=packages.environment(tmp_path)) as beat:
        beat.wait_for(r"Sending due task often \(prog\.often\)", count=2)
        assert beat.stop() == 0

    assert "Traceback" not in beat.output
