"""Every setting, declared once.

All 194 of Celery 5.6 are here under both of their names, with Celery's defaults, and those of 5.7; a setting
that this version does not act upon says so (``has_effect=False``). The package is longer than the rest
because it is a table: one entry per setting, in one file per subject.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from celeriac.settings.model import Setting
from celeriac.settings.table.beat import BEAT
from celeriac.settings.table.broker import BROKER
from celeriac.settings.table.general import GENERAL
from celeriac.settings.table.own import NEWER, OWN, UNDECLARED
from celeriac.settings.table.result import RESULT
from celeriac.settings.table.security import SECURITY
from celeriac.settings.table.stores import STORES
from celeriac.settings.table.task import TASK
from celeriac.settings.table.worker import WORKER

CELERY: Final = GENERAL + BROKER + TASK + WORKER + BEAT + RESULT + STORES + SECURITY
SETTINGS: Final = CELERY + NEWER + UNDECLARED + OWN
BY_NAME: Final = MappingProxyType({setting.name: setting for setting in SETTINGS})
BY_OLD: Final = MappingProxyType(
    {
        **{setting.old: setting for setting in SETTINGS},
        "CELERY_ENABLE_UTC": BY_NAME["enable_utc"],  # what Celery 3 called it
    }
)

__all__ = ["BY_NAME", "BY_OLD", "CELERY", "NEWER", "OWN", "SETTINGS", "UNDECLARED", "Setting"]
