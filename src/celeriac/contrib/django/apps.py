"""The Django app: in every process of a project, the default app has the project's settings."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

from django.apps import AppConfig
from django.conf import settings

from celeriac.app import Celeriac

DEFAULT_APP = "default"  # the name of the app that is made where a project makes none


def take_settings(app: Celeriac) -> None:
    """Configure an app from the project's settings, unless it is one that the project made itself."""
    if app.main == DEFAULT_APP:
        app.config_from_object(settings)


class CeleriacConfig(AppConfig):  # type: ignore[misc]  # Django ships no types
    """What ``INSTALLED_APPS = [..., 'celeriac.contrib.django']`` brings.

    1. ``manage.py celery``; 2. tasks that name no app (``celery.decorators.task``, ``shared_task``) are sent
    as the project's settings say, from web processes and shells as well.
    """

    name = "celeriac.contrib.django"
    label = "celeriac"

    def ready(self) -> None:
        """Configure the app of tasks that name none, where the drop-in is installed."""
        points: tuple[EntryPoint, ...] = tuple(entry_points(group="celeriac.default_app"))
        for point in points:
            take_settings(point.load()())
