"""The Django app ``djcelery``."""

from __future__ import annotations

from django.apps import AppConfig

from celeriac.contrib.django.apps import take_settings
from celery._state import get_current_app


class DjceleryConfig(AppConfig):  # type: ignore[misc]  # Django ships no types
    """What ``INSTALLED_APPS = [..., 'djcelery']`` brings: see `celeriac.contrib.django.apps`."""

    name = "djcelery"

    def ready(self) -> None:
        """Let tasks that name no app be sent as the project's settings say."""
        take_settings(get_current_app())
