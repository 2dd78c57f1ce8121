"""Tests of Celery programs run on the drop-in: fixtures, workers in threads, mocks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from processes import ROOT

INCLUDED = """
from celery import shared_task

@shared_task(name="included.neg")
def neg(x):
    return -x
"""
WITH_A_TRAP = """
import pytest
from celery import current_app, shared_task

pytest_plugins = ("celery.contrib.pytest",)

@pytest.fixture(scope="session")
def use_celery_app_trap():
    return True

def test_who_depends_on_a_current_app_fails(celery_app):
    with pytest.raises(RuntimeError, match="Test depends on current_app"):
        current_app.tasks

def test_no_worker_is_started(celery_app, celery_worker):
    assert celery_worker is None
"""


ON_EVERY_POOL = """
import pytest
from celery import shared_task

pytest_plugins = ("celery.contrib.pytest",)

@shared_task(name="shared.add")
def add(x, y):
    return x + y

@pytest.fixture(scope="session", params=["prefork", "asyncio", "threads", "solo"])
def celery_worker_pool(request):
    return request.param

@pytest.fixture(scope="session")
def celery_config():
    return {"broker_url": "sqlite:///q.db", "result_backend": "sqlite:///q.db"}

def test_shared(celery_app, celery_worker):
    assert add.delay(4, 4).get(timeout=10) == 8
"""


def run_pytest(folder: Path, name: str, **environment: str) -> str:
    """Run a file of tests as a user does, and return what is printed."""
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:randomly",
            "-p",
            "no:xdist",
            "-p",
            "no:cacheprovider",
            name,
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'dropin' / 'src'}", **environment},
        check=False,
    )
    return run.stdout + run.stderr


def test_a_program_is_tested_with_the_fixtures_of_celery(tmp_path: Path) -> None:
    program = Path(__file__).with_name("contrib_program.py").read_text()
    (tmp_path / "test_program.py").write_text(program)
    (tmp_path / "included_tasks.py").write_text(INCLUDED)

    said = run_pytest(tmp_path, "test_program.py")

    assert "13 passed" in said, said
    assert "failed" not in said


def test_fixtures_do_without_current_app_and_worker_where_that_is_wanted(tmp_path: Path) -> None:
    (tmp_path / "test_trap.py").write_text(WITH_A_TRAP)

    said = run_pytest(tmp_path, "test_trap.py", NO_WORKER="1")

    assert "2 passed" in said, said


def test_the_worker_of_the_fixtures_has_the_pool_that_is_wanted(tmp_path: Path) -> None:
    (tmp_path / "test_pools.py").write_text(ON_EVERY_POOL)

    said = run_pytest(tmp_path, "test_pools.py")

    assert "4 passed" in said, said
