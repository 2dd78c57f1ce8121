"""Tasks that are sent when the database transaction is through."""

from __future__ import annotations

from celeriac.contrib.django.task import DjangoTask

__all__ = ("DjangoTask",)
