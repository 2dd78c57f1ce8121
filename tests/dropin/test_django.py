"""Celery programs in Django projects, each in a process of its own: Django is set up once in a process."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

SETTINGS = """
SECRET_KEY = "only for this test"
INSTALLED_APPS = ["shop", "stock.apps.Stock"]
USE_TZ = True
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}}
CELERY_BROKER_URL = "memory://django"
CELERY_TASK_DEFAULT_QUEUE = "shop"
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
from shop import models
@shared_task
def sell(x):
    return models.Order.objects.count() + x
"""
APP_CONFIG = """
from django.apps import AppConfig
class Stock(AppConfig):
    name = "stock"
    label = "warehouse"
"""
STOCK_TASKS = """
from celery import shared_task
@shared_task
def count():
    pass
"""
MODELS = """
from django.db import models
class Order(models.Model):
    pass
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return the folder of a Django project with two apps, one of them by its AppConfig, that have tasks."""
    for name, text in {
        "project/__init__.py": "from .celery import app as celery_app\n",
        "project/settings.py": SETTINGS,
        "project/celery.py": APP,
        "shop/__init__.py": "",
        "shop/models.py": MODELS,
        "shop/tasks.py": TASKS,
        "stock/__init__.py": "",
        "stock/apps.py": APP_CONFIG,
        "stock/tasks.py": STOCK_TASKS,
    }.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return tmp_path


def run(project: Path, code: str, **environment: str) -> str:
    """Run a program in the project's folder and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        cwd=project,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(project), *sys.path]), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_tasks_of_installed_apps_are_found_and_django_is_set_up_for_them(project: Path) -> None:
    printed = run(
        project,
        """
        from project.celery import app
        app.import_modules()
        print(sorted(name for name in app.tasks if not name.startswith("celery.")))
        from shop.tasks import sell
        from django.core.management import call_command
        call_command("migrate", run_syncdb=True, verbosity=0)
        print(sell.apply((1,)).get(), sell.app is app, app.conf.timezone)
        """,
    )

    assert printed == "['shop.tasks.sell', 'stock.tasks.count']\n1 True America/Chicago\n"


def test_tasks_can_wait_for_the_commit(project: Path) -> None:
    printed = run(
        project,
        """
        from project.celery import app
        import django
        django.setup()
        from django.db import transaction
        from shop.tasks import sell
        with transaction.atomic():
            sell.delay_on_commit(1)
            sell.apply_async_on_commit((2,), queue="other")
            inside = app.transport.size("shop")
        print(inside, app.transport.size("shop"), app.transport.size("other"))
        try:
            with transaction.atomic():
                sell.delay_on_commit(1)
                raise KeyError
        except KeyError:
            print(app.transport.size("shop"))
        """,
    )

    assert printed == "0 1 1\n1\n"


def test_the_first_app_is_that_of_the_servers_threads(project: Path) -> None:
    printed = run(
        project,
        """
        import threading
        from project.celery import app
        from celery import Celery, current_app
        Celery("another")
        seen = []
        thread = threading.Thread(target=lambda: seen.append(current_app.main))
        thread.start()
        thread.join()
        print(seen, current_app.main)
        """,
    )

    assert printed == "['project'] another\n"


def test_settings_that_a_test_overrides_count(project: Path) -> None:
    printed = run(
        project,
        """
        from project.celery import app
        import django
        django.setup()
        from django.test import override_settings
        before = app.conf.task_always_eager
        with override_settings(CELERY_TASK_ALWAYS_EAGER=True):
            inside = app.conf.task_always_eager
        print(before, inside, app.conf.task_always_eager)
        """,
    )

    assert printed == "False True False\n"


def test_connections_are_closed_around_tasks_but_not_around_eager_ones(project: Path) -> None:
    printed = run(
        project,
        """
        from project.celery import app
        import django
        django.setup()
        from django.db import connection
        from celery import signals
        from celery.app.task import Context
        from celeriac import context
        from shop.tasks import sell
        for eager in (True, False):
            connection.ensure_connection()
            task = sell._get_current_object()
            context.push(task, Context(is_eager=eager, called_directly=False))
            signals.task_prerun.send(sender=task, task=task, task_id="1", args=(), kwargs={})
            context.pop()
            print(connection.connection is None)
        connection.ensure_connection()
        signals.worker_init.send(sender=None)
        print(connection.connection is None)
        """,
    )

    assert printed == "False\nTrue\nTrue\n"


def test_connections_serve_as_many_tasks_as_the_settings_say(project: Path) -> None:
    with (project / "project" / "settings.py").open("a") as file:
        file.write("CELERY_DB_REUSE_MAX = 2\n")

    printed = run(
        project,
        """
        from project.celery import app
        import django
        django.setup()
        from django.db import connection
        from celery import signals
        from celery.app.task import Context
        from celeriac import context
        from shop.tasks import sell
        task = sell._get_current_object()
        connection.ensure_connection()
        for number in (1, 2):
            context.push(task, Context(is_eager=False, called_directly=False))
            for signal in (signals.task_prerun, signals.task_postrun):
                signal.send(sender=task, task=task, task_id="1", args=(), kwargs={})
                print(connection.connection is None)
            context.pop()
        """,
    )

    assert printed == "False\nFalse\nFalse\nTrue\n"


@pytest.mark.parametrize(("skip", "told"), [("", "True"), ("1", "False")])
def test_what_djangos_checks_find_wrong_is_told_when_tasks_are_imported(
    project: Path, skip: str, told: str
) -> None:
    printed = run(
        project,
        """
        import logging
        from django.core.checks import Error, register
        from project.celery import app
        @register
        def look(**_):
            return [Error("the shop has no door")]
        said = []
        class Keep(logging.Handler):
            def emit(self, record):
                said.append(record.getMessage())
        logging.getLogger("celeriac").addHandler(Keep())
        app.import_modules()
        print(any("the shop has no door" in line for line in said))
        """,
        CELERY_SKIP_CHECKS=skip,
    )

    assert printed == f"{told}\n"


def test_a_forked_child_leaves_its_parents_connections_alone(project: Path) -> None:
    printed = run(
        project,
        """
        import os
        from project.celery import app
        import django
        django.setup()
        from django.db import connection
        from celery import signals
        connection.ensure_connection()
        opened = connection.connection
        signals.worker_process_init.send(sender=None)
        print(connection.connection is opened)
        child = os.fork()
        if child == 0:
            signals.worker_process_init.send(sender=None)
            forgotten = connection.connection is None
            opened.execute("SELECT 1")  # it was not closed, which the server would take for the parent's wish
            connection.ensure_connection()
            os._exit(0 if forgotten and connection.connection is not opened else 1)
        print(os.waitpid(child, 0)[1], connection.connection is opened)
        """,
    )

    assert printed == "True\n0 True\n"


def test_pools_of_connections_are_closed_before_a_worker_or_its_scheduler_forks(project: Path) -> None:
    printed = run(
        project,
        """
        from project.celery import app
        import django
        django.setup()
        from django.db import connection
        from celery import signals
        closed = []
        connection.close_pool = lambda: closed.append("pool")
        for signal in (signals.worker_init, signals.beat_embedded_init):
            connection.ensure_connection()
            signal.send(sender=None)
            print(connection.connection is None, len(closed))
        """,
    )

    assert printed == "True 1\nTrue 2\n"


def test_a_task_class_of_ones_own_is_kept(project: Path) -> None:
    printed = run(
        project,
        """
        from celery import Celery, Task
        class Mine(Task):
            pass
        app = Celery("own", task_cls=Mine)
        print(issubclass(app.Task, Mine), hasattr(app.Task, "delay_on_commit"))
        print(Celery("x", fixups=[]).Task.__mro__[1])
        """,
        DJANGO_SETTINGS_MODULE="project.settings",
    )

    assert printed == "True False\n<class 'celeriac.task.Task'>\n"


def test_a_missing_django_is_a_warning(tmp_path: Path) -> None:
    printed = run(
        tmp_path,
        """
        import sys, warnings
        sys.modules["django"] = None
        from celery import Celery
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            Celery("x")
        print([type(w.message).__name__ for w in caught])
        """,
        DJANGO_SETTINGS_MODULE="project.settings",
    )

    assert printed == "['FixupWarning']\n"


def test_manage_celery_works_with_djcelery_installed(project: Path) -> None:
    settings = project / "project" / "settings.py"
    settings.write_text(settings.read_text().replace('["shop", ', '["djcelery", "shop", '))

    printed = run(
        project,
        """
        import sys
        from django.core.management import execute_from_command_line
        try:
            execute_from_command_line(["manage.py", "celery", "--version"])
        except SystemExit as exc:
            print(exc.code)
        import djcelery
        djcelery.setup_loader()
        """,
        DJANGO_SETTINGS_MODULE="project.settings",
    )

    assert printed.splitlines()[-1] == "0"
