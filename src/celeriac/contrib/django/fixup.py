"""Fits an app into a Django project."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import django
from django.apps import apps
from django.core.cache import caches
from django.core.signals import setting_changed
from django.db import close_old_connections, connections

from celeriac.app import Celeriac
from celeriac.contrib.django.task import DjangoTask
from celeriac.task import Task


class DjangoFixup:
    """Does for an app in a Django project what a web server does for its views.

    1. Sets Django up before the modules with tasks are imported.
    2. Names the packages in which ``app.autodiscover_tasks()`` looks: the installed apps.
    3. Closes broken and too old database connections, and the caches, before and after each task.
    4. Lets go of database connections before a worker forks, so that no two processes share one.
    5. Reads the app's settings again when a test overrides one of the project's.
    6. Gives tasks ``delay_on_commit`` and ``apply_async_on_commit``.

    Args:
        app: The app; it is changed at once.
    """

    def __init__(self, app: Celeriac) -> None:
        self._app = app
        hooks = app.hooks
        hooks.import_modules.connect(self.set_up, sender=app)
        hooks.worker_init.connect(self.let_go)
        hooks.task_prerun.connect(self.refresh_connections)
        hooks.task_postrun.connect(self.refresh_connections)
        setting_changed.connect(self.reread_settings)
        if app.task_cls is Task:
            app.task_cls = DjangoTask

    def autodiscover_tasks(self) -> Sequence[str]:
        """Return the packages of the installed apps."""
        return [config.name for config in apps.get_app_configs()]

    def set_up(self, **_: Any) -> None:
        """Make Django ready, unless it is."""
        if not apps.ready:
            django.setup()

    def let_go(self, **_: Any) -> None:
        """Close all database connections of this process."""
        connections.close_all()

    def refresh_connections(self, task: Any = None, **_: Any) -> None:  # Any: a Task
        """Close database connections that are broken or too old, and the caches; not around eager tasks.

        Those run inside the caller's own transaction.
        """
        if task is not None and not task.request.is_eager:
            close_old_connections()
            caches.close_all()

    def reread_settings(self, **_: Any) -> None:
        """Take in what a test has changed (``override_settings``, pytest-django's ``settings``)."""
        if self._app.configured:
            self._app.conf.refresh()


def fixup(app: Celeriac) -> DjangoFixup:
    """Fit an app into the project that ``DJANGO_SETTINGS_MODULE`` names: ``Celeriac(fixups=[...])``."""
    return DjangoFixup(app)
