"""Fits an app into a Django project."""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Sequence
from typing import Any

import django
from django.apps import apps
from django.core import checks
from django.core.cache import caches
from django.core.signals import setting_changed
from django.db import close_old_connections, connections

from celeriac.app import Celeriac
from celeriac.contrib.django.task import OUTBOX, DjangoTask
from celeriac.task import Task

logger: logging.Logger = logging.getLogger(__name__)


class DjangoFixup:
    """Does for an app in a Django project what a web server does for its views.

    1. Sets Django up before the modules with tasks are imported, and tells what its checks find wrong, unless
       ``CELERY_SKIP_CHECKS`` (``celery --skip-checks``) is set.
    2. Names the packages in which ``app.autodiscover_tasks()`` looks: the installed apps.
    3. Closes broken and too old database connections, and the caches, before and after each task; the
       connections only once in ``CELERY_DB_REUSE_MAX`` tasks, where the settings have that.
    4. Lets go of database connections before a worker forks, so that no two processes share one.
    5. Reads the app's settings again when a test overrides one of the project's.
    6. Gives tasks ``delay_on_commit`` and ``apply_async_on_commit``.
    7. Has workers send what stayed in the outbox, where `celeriac.contrib.django.outbox` is installed.

    Args:
        app: The app; it is changed at once.
    """

    def __init__(self, app: Celeriac) -> None:
        self._app = app
        self._tasks_run = 0
        self._pid = os.getpid()
        self._inherited: list[Any] = []  # Any: connections of database drivers
        self._relay: Any = None  # Any: a Relay, whose module has a table that not every project wants
        hooks = app.hooks
        hooks.import_modules.connect(self.set_up, sender=app)
        hooks.worker_init.connect(self.let_go)
        hooks.beat_embedded_init.connect(self.let_go)
        hooks.worker_process_init.connect(self.leave_to_the_parent)
        hooks.worker_ready.connect(self.begin_relay)
        hooks.worker_shutdown.connect(self.end_relay)
        hooks.task_prerun.connect(self.refresh_connections)
        hooks.task_postrun.connect(self.refresh_connections)
        setting_changed.connect(self.reread_settings)
        if app.task_cls is Task:
            app.task_cls = DjangoTask

    def autodiscover_tasks(self) -> Sequence[str]:
        """Return the packages of the installed apps."""
        return [config.name for config in apps.get_app_configs()]

    def set_up(self, **_: Any) -> None:
        """Make Django ready, unless it is, and say what its checks find wrong."""
        if not apps.ready:
            django.setup()
        if os.environ.get("CELERY_SKIP_CHECKS"):
            return
        for message in checks.run_checks():
            if message.is_serious() and not message.is_silenced():
                logger.error("Django's checks: %s", message)

    def let_go(self, **_: Any) -> None:
        """Close all database connections of this process, and the pools of them."""
        self._pid = os.getpid()
        connections.close_all()
        for connection in connections.all(initialized_only=True):
            if hasattr(connection, "close_pool"):  # Django 5.1
                connection.close_pool()

    def leave_to_the_parent(self, **_: Any) -> None:
        """In a forked child, use no connection that was opened before the fork, and do not end it either."""
        if os.getpid() != self._pid:
            for connection in connections.all(initialized_only=True):
                if connection.connection is not None:
                    self._inherited.append(connection.connection)  # a driver says good-bye for what it frees
                    connection.connection = None

    def refresh_connections(self, task: Any = None, **_: Any) -> None:  # Any: a Task
        """Close database connections that are broken or too old, and the caches; not around eager tasks.

        Those run inside the caller's own transaction.
        """
        if task is None or task.request.is_eager:
            return
        most = self._app.conf.get("CELERY_DB_REUSE_MAX")
        if most:
            self._tasks_run += 1
        if not most or self._tasks_run >= most * 2:  # before and after each task
            self._tasks_run = 0
            close_old_connections()
        caches.close_all()

    def begin_relay(self, **_: Any) -> None:
        """Send what stayed in the outbox now and then, while the worker runs."""
        if apps.is_installed(OUTBOX) and self._relay is None:
            self._relay = importlib.import_module(f"{OUTBOX}.relay").Relay(self._app)
            self._relay.start()

    def end_relay(self, **_: Any) -> None:
        """Stop that."""
        relay, self._relay = self._relay, None
        if relay is not None:
            relay.stop()

    def reread_settings(self, **_: Any) -> None:
        """Take in what a test has changed (``override_settings``, pytest-django's ``settings``)."""
        if self._app.configured:
            self._app.conf.refresh()


def fixup(app: Celeriac) -> DjangoFixup:
    """Fit an app into the project that ``DJANGO_SETTINGS_MODULE`` names: ``Celeriac(fixups=[...])``."""
    return DjangoFixup(app)
