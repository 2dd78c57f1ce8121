"""``manage.py celery worker``: the command line inside a Django project, as django-celery had it.

The app is the one that ``-A`` names, else the default app, configured from the project's settings
(``BROKER_URL``, ``CELERY_RESULT_BACKEND``, ``CELERY_IMPORTS``, …); the tasks are those of the ``tasks``
modules of all installed apps.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.management.base import BaseCommand

from celeriac.app import Celeriac
from celeriac.cli.main import run


def _new_app() -> Celeriac:
    return Celeriac("default")


def _app_maker() -> Callable[[], Celeriac]:
    """Return what makes the default app: the drop-in's current app where the drop-in is installed."""
    points: tuple[EntryPoint, ...] = tuple(entry_points(group="celeriac.default_app"))
    return points[0].load() if points else _new_app


def project_app() -> Celeriac:
    """Return the default app, configured by Django's settings."""
    app = _app_maker()()
    app.config_from_object(settings)
    app.autodiscover_tasks([config.name for config in apps.get_app_configs()])
    return app


class Command(BaseCommand):  # type: ignore[misc]  # Django ships no types
    """Hands everything behind ``celery`` to the command line."""

    help = "Run and watch a distributed task queue; see `manage.py celery help`."
    requires_system_checks: list[str] = []  # noqa: RUF012 - Django's own annotation
    requires_migrations_checks = False

    def run_from_argv(self, argv: list[str]) -> None:
        """Run with the arguments as they are; Django's parser would refuse ours."""
        sys.exit(run(argv[2:], program=f"{argv[0]} {argv[1]}", default_app=project_app))

    def handle(self, *args: Any, **options: Any) -> None:  # Any: Django's open form
        """Run through ``call_command('celery', 'worker', …)``."""
        sys.exit(run(args, program="manage.py celery", default_app=project_app))
