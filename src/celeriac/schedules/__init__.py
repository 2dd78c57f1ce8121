"""When periodic work is due: every so often, at times of a crontab, or by the sun."""

from __future__ import annotations

from celeriac.schedules.base import BaseSchedule, SchedulingApp, schedstate
from celeriac.schedules.cron import crontab
from celeriac.schedules.field import DAY_OF_MONTH, DAY_OF_WEEK, HOUR, MINUTE, MONTH_OF_YEAR, CronField
from celeriac.schedules.interval import maybe_schedule, schedule
from celeriac.schedules.missed import MissedPolicy, Owed, owed
from celeriac.schedules.sun import solar

__all__ = [
    "DAY_OF_MONTH",
    "DAY_OF_WEEK",
    "HOUR",
    "MINUTE",
    "MONTH_OF_YEAR",
    "BaseSchedule",
    "CronField",
    "MissedPolicy",
    "Owed",
    "SchedulingApp",
    "crontab",
    "maybe_schedule",
    "owed",
    "schedstate",
    "schedule",
    "solar",
]
