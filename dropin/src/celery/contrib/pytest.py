"""Fixtures for tests of Celery programs: apps in memory, and workers in the test's process.

To be had with ``pytest_plugins = ("celery.contrib.pytest",)``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import pytest

from celery.contrib.testing import app as apps
from celery.contrib.testing import tasks as _tasks  # noqa: F401 - so that workers can be asked
from celery.contrib.testing.worker import start_worker

# Any in this module: settings, apps and workers

NO_WORKER: str | None = os.environ.get("NO_WORKER")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker ``celery``."""
    config.addinivalue_line("markers", "celery(**overrides): override celery configuration for a test case")


@contextmanager
def _app(
    logging: bool, trap: bool, parameters: Mapping[str, Any], config: Mapping[str, Any]
) -> Iterator[Any]:
    given = dict(parameters)
    app = apps.TestApp(set_as_current=False, enable_logging=logging, config=config, **given)
    try:
        with apps.setup_default_app(app, use_trap=trap):
            yield app
    finally:
        app.close()


def _worker(app: Any, includes: Sequence[str], pool: Any, parameters: Mapping[str, Any]) -> Any:
    block: AbstractContextManager[Any] = nullcontext()
    if not NO_WORKER:
        for module in includes:
            app.loader.import_task_module(module)
        block = start_worker(app, pool=pool, **parameters)
    return block


@pytest.fixture(scope="session")
def use_celery_app_trap() -> bool:
    """Whether tests fail that depend on a current app; to be overridden."""
    return False


@pytest.fixture(scope="session")
def celery_session_app(
    celery_config: Mapping[str, Any],
    celery_parameters: Mapping[str, Any],
    celery_enable_logging: bool,
    use_celery_app_trap: bool,
) -> Iterator[Any]:
    """An app for all tests."""
    with _app(celery_enable_logging, use_celery_app_trap, celery_parameters, celery_config) as app:
        if not use_celery_app_trap:
            app.set_default()
            app.set_current()
        yield app


@pytest.fixture(scope="session")
def celery_session_worker(
    celery_session_app: Any,
    celery_includes: Sequence[str],
    celery_class_tasks: Sequence[Any],
    celery_worker_pool: Any,
    celery_worker_parameters: Mapping[str, Any],
) -> Iterator[Any]:
    """A worker for all tests, of `celery_session_app`."""
    for task in celery_class_tasks:
        celery_session_app.register_task(task)
    with _worker(celery_session_app, celery_includes, celery_worker_pool, celery_worker_parameters) as worker:
        yield worker


@pytest.fixture(scope="session")
def celery_enable_logging() -> bool:
    """Whether workers set up the logs; to be overridden."""
    return False


@pytest.fixture(scope="session")
def celery_includes() -> Sequence[str]:
    """Modules that workers import; to be overridden."""
    return ()


@pytest.fixture(scope="session")
def celery_worker_pool() -> Any:
    """What runs the tasks of workers; to be overridden."""
    return "solo"


@pytest.fixture(scope="session")
def celery_config() -> Mapping[str, Any]:
    """Settings of the apps; to be overridden."""
    return {}


@pytest.fixture(scope="session")
def celery_parameters() -> Mapping[str, Any]:
    """Arguments of the apps' constructor; to be overridden."""
    return {}


@pytest.fixture(scope="session")
def celery_worker_parameters() -> Mapping[str, Any]:
    """Options of the workers; to be overridden."""
    return {}


@pytest.fixture(scope="session")
def celery_class_tasks() -> Sequence[Any]:
    """Tasks that are classes, for `celery_session_worker`; to be overridden."""
    return []


@pytest.fixture
def celery_app(
    request: pytest.FixtureRequest,
    celery_config: Mapping[str, Any],
    celery_parameters: Mapping[str, Any],
    celery_enable_logging: bool,
    use_celery_app_trap: bool,
) -> Iterator[Any]:
    """An app for one test, with the settings of its ``@pytest.mark.celery(…)``."""
    mark = request.node.get_closest_marker("celery")
    config = {**celery_config, **(mark.kwargs if mark else {})}
    with _app(celery_enable_logging, use_celery_app_trap, celery_parameters, config) as app:
        yield app


@pytest.fixture
def celery_worker(
    celery_app: Any,
    celery_includes: Sequence[str],
    celery_worker_pool: Any,
    celery_worker_parameters: Mapping[str, Any],
) -> Iterator[Any]:
    """A worker for one test, of `celery_app`."""
    with _worker(celery_app, celery_includes, celery_worker_pool, celery_worker_parameters) as worker:
        yield worker


@pytest.fixture
def depends_on_current_app(celery_app: Any) -> None:
    """Make `celery_app` the current app."""
    celery_app.set_current()
