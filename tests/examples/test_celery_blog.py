"""Getting started with Celery and Redis: a slow script made fast, then spread over modules and packages."""

from __future__ import annotations

import re

from internet import Internet
from mission import OpenShell
from processes import celery
from servers import RedisServer

READY = r" ready\."
TWO = ["https://google.com", "https://facebook.com"]
WORKER = ("worker", "-A", "celery_config", "-l", "info", "-c", "5")  # -A after the sub-command, as it was


def test_without_celery_the_pages_are_fetched_one_after_another(
    open_shell: OpenShell, internet: Internet
) -> None:
    shell = open_shell("celery_blog/without_celery", **internet.settings)

    said = shell.run("python", "celery_blog.py")

    took = re.search(r"It took ([\d.]+) seconds", said)
    assert said.splitlines()[:5] == ["200"] * 5
    assert took is not None
    assert float(took[1]) >= sum(internet.delays.values())
    assert internet.most_at_once == 1


def test_a_single_file_fetches_them_at_once(
    open_shell: OpenShell, internet: Internet, redis_server: RedisServer
) -> None:
    shell = open_shell(
        "celery_blog/single_file", **internet.settings, CELERY_BROKER_URL=redis_server.fresh_url()
    )
    worker = shell.start(*celery("worker", "-A", "celery_blog", "-l", "info", "-c", "5"))
    worker.wait_for(r"\. celery_blog\.fetch_url")
    worker.wait_for(READY)

    said = shell.run("python", "celery_blog.py")

    worker.wait_for(r"WARNING/ForkPoolWorker-[1-5]\] 200", count=5)
    worker.wait_for(r"Task celery_blog\.fetch_url\[.*\] succeeded in [\d.e-]+s: None", count=5)
    assert said == ""
    assert internet.most_at_once == 5
    assert worker.stop() == 0


def test_configuration_and_tasks_in_different_files(
    open_shell: OpenShell, internet: Internet, redis_server: RedisServer
) -> None:
    shell = open_shell(
        "celery_blog/config_module", CELERY_BROKER_URL=redis_server.fresh_url(), **internet.settings
    )
    worker = shell.start(*celery(*WORKER))
    worker.wait_for(READY)

    shell.python(f"from celery_blog import func; func({TWO!r})")

    worker.wait_for(r"Task celery_blog\.fetch_url\[.*\] succeeded in [\d.e-]+s: None", count=2)
    assert sorted(internet.visited) == ["facebook.com", "google.com"]
    assert worker.stop() == 0


def test_tasks_of_two_modules(open_shell: OpenShell, internet: Internet, redis_server: RedisServer) -> None:
    shell = open_shell(
        "celery_blog/two_modules", CELERY_BROKER_URL=redis_server.fresh_url(), **internet.settings
    )
    worker = shell.start(*celery(*WORKER))
    worker.wait_for(r"\. celery_add\.add")
    worker.wait_for(r"\. celery_blog\.fetch_url")
    worker.wait_for(READY)

    shell.python("from celery_add import add; add.delay(4, 5)")
    shell.python(f"from celery_blog import func; func({TWO[:1]!r})")

    worker.wait_for(r"INFO/MainProcess\] Task celery_add\.add\[.*\] received")
    worker.wait_for(r"Task celery_add\.add\[.*\] succeeded in [\d.e-]+s: 9")
    worker.wait_for(r"Task celery_blog\.fetch_url\[.*\] succeeded in [\d.e-]+s: None")
    assert worker.stop() == 0


def test_tasks_of_a_package(open_shell: OpenShell, internet: Internet, redis_server: RedisServer) -> None:
    shell = open_shell("celery_blog/package", CELERY_BROKER_URL=redis_server.fresh_url(), **internet.settings)
    worker = shell.start(*celery(*WORKER))
    worker.wait_for(r"^\[tasks\]")
    worker.wait_for(r"^  \. pack\.celery_fetch\.fetch_url")
    worker.wait_for(READY)

    shell.python(f"from pack.celery_fetch import func; func({TWO!r})")

    worker.wait_for(r"Task pack\.celery_fetch\.fetch_url\[.*\] succeeded in [\d.e-]+s: None", count=2)
    assert worker.stop() == 0


def test_the_gotcha_leaves_the_worker_working(
    open_shell: OpenShell, internet: Internet, redis_server: RedisServer
) -> None:
    shell = open_shell("celery_blog/gotcha", CELERY_BROKER_URL=redis_server.fresh_url(), **internet.settings)
    worker = shell.start(*celery("-A", "celery_blog", "worker", "-l", "info"))
    worker.wait_for(r"\. celery_blog\.fetch_url")
    worker.wait_for(READY)

    shell.run("python", "celery_blog.py")  # the app is called celery_blo, and this module __main__
    worker.wait_for(r"ERROR/MainProcess\] Received unregistered task of type 'celery_blo\.fetch_url'\.")
    worker.wait_for(r"KeyError: 'celery_blo\.fetch_url'")
    shell.python(f"from celery_blog import func; func({TWO[:1]!r})")

    worker.wait_for(r"Task celery_blog\.fetch_url\[.*\] succeeded in [\d.e-]+s: None")
    assert internet.visited == ["google.com"]
    assert worker.stop() == 0
