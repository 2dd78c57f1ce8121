"""Signatures, by their name of Celery 3."""

from __future__ import annotations

from celery.canvas import maybe_signature as maybe_subtask
from celery.canvas import subtask

__all__ = ["maybe_subtask", "subtask"]
