"""``manage.py celery``."""

from __future__ import annotations

from celeriac.contrib.django.management.commands.celery import Command

__all__ = ["Command"]
