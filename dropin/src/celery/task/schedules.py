"""Schedules, by their name of Celery 2."""

from __future__ import annotations

from celery.schedules import crontab, schedule

__all__ = ["crontab", "schedule"]
