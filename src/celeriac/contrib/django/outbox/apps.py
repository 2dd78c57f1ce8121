"""The Django app."""

from __future__ import annotations

from django.apps import AppConfig


class OutboxConfig(AppConfig):  # type: ignore[misc]  # Django ships no types
    """What ``INSTALLED_APPS = [..., 'celeriac.contrib.django.outbox']`` brings: a table, and its use."""

    name = "celeriac.contrib.django.outbox"
    label = "celeriac_outbox"
    verbose_name = "Celeriac's outbox"
    default_auto_field = "django.db.models.BigAutoField"
