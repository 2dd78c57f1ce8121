"""A Django project of Celery 3's time: celery.decorators, ``manage.py celery``, old settings, supervisor."""

from __future__ import annotations

import pytest

from mission import OpenShell, Shell
from processes import celery
from servers import RedisServer

GET = "from tasks import add; result = add.delay(4, 4); print(result.get(timeout=20), result.ready())"


@pytest.fixture
def shell(open_shell: OpenShell, redis_server: RedisServer) -> Shell:
    """A shell of that project on the private Redis."""
    url = redis_server.fresh_url()
    return open_shell("django_tasks", CELERY_BROKER_URL=url, CELERY_RESULT_BACKEND=url)


def test_the_worker_runs_under_manage_py(shell: Shell) -> None:
    worker = shell.start("python", "manage.py", "celery", "worker", "--loglevel=info")
    worker.wait_for(r"\. tasks\.add")
    worker.wait_for(r" ready\.")

    said = shell.run("python", "manage.py", "shell", "-c", GET)

    assert "8 True" in said
    worker.wait_for(r"Task tasks\.add\[.*\] succeeded in [\d.e-]+s: 8")
    assert worker.stop() == 0


def test_a_task_is_routed_by_the_bare_name_of_a_queue(
    open_shell: OpenShell, redis_server: RedisServer
) -> None:
    url = redis_server.fresh_url()
    shell = open_shell(
        "django_tasks", CELERY_BROKER_URL=url, CELERY_RESULT_BACKEND=url, ROUTE_TO_LOW_PRIORITY="1"
    )
    worker = shell.start("python", "manage.py", "celery", "worker", "-l", "info", "-Q", "low-priority")
    worker.wait_for(r"\. tasks\.add")
    worker.wait_for(r" ready\.")

    said = shell.run("python", "manage.py", "shell", "-c", GET)

    assert "8 True" in said
    worker.wait_for(r"low-priority +exchange=low-priority")
    assert worker.stop() == 0


def test_supervisor_runs_the_worker(shell: Shell) -> None:
    log = shell.folder / "celeryd.log"
    section = (shell.folder / "celeryd.conf").read_text().replace("/path/to/your/logs/celeryd.log", str(log))
    settings = shell.run("echo_supervisord_conf").replace("/tmp/", f"{shell.folder}/")
    (shell.folder / "supervisord.conf").write_text(f"{settings}\n{section}")
    log.touch()
    reader = shell.start("tail", "-n", "+1", "-f", str(log))

    supervisor = shell.start("supervisord", "-n", "-c", "supervisord.conf")
    reader.wait_for(r" ready\.")
    said = shell.run("python", "manage.py", "shell", "-c", GET)

    assert "8 True" in said
    reader.wait_for(r"Task tasks\.add\[.*\] succeeded in [\d.e-]+s: 8")
    supervisor.stop()
    reader.wait_for(r"worker: Warm shutdown \(MainProcess\)")
    supervisor.wait_for(r"stopped: celeryd \(exit status 0\)")


def test_celery_without_app_reads_celeryconfig_of_the_folder(
    open_shell: OpenShell, redis_server: RedisServer
) -> None:
    shell = open_shell("hello")
    url = redis_server.fresh_url()
    (shell.folder / "celeryconfig.py").write_text(
        f"BROKER_URL = {url!r}\nCELERY_IMPORTS = ('tasks',)\nCELERY_RESULT_BACKEND = {url!r}\n"
        "CELERY_ROUTES = {'tasks.add': 'low-priority'}\n"
    )
    (shell.folder / "tasks.py").write_text(
        "from celery.decorators import task\n@task\ndef add(x, y):\n    return x + y\n"
    )
    worker = shell.start(*celery("worker", "-l", "info", "-Q", "low-priority"))
    worker.wait_for(r"\. tasks\.add")
    worker.wait_for(r" ready\.")

    said = shell.python(GET)

    assert said.split() == ["8", "True"]
    assert worker.stop() == 0
