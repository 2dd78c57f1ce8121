"""Signals of one's own."""

from __future__ import annotations

from celery.utils.dispatch.signal import Signal

__all__ = ("Signal",)
