"""Settings: every one declared once (`table`), read from anywhere (`load`), kept in layers (`settings`)."""

from __future__ import annotations

from celeriac.settings.load import from_envvar, import_by_name, read_source
from celeriac.settings.model import Setting
from celeriac.settings.settings import Settings
from celeriac.settings.spelling import did_you_mean
from celeriac.settings.table import BY_NAME, BY_OLD, SETTINGS

__all__ = [
    "BY_NAME",
    "BY_OLD",
    "SETTINGS",
    "Setting",
    "Settings",
    "did_you_mean",
    "from_envvar",
    "import_by_name",
    "read_source",
]
