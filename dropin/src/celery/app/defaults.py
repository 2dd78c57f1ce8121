"""The settings: their names and defaults, made from Celeriac's own table."""

from __future__ import annotations

from typing import Any

from celeriac.settings import BY_NAME, SETTINGS, Setting

__all__ = ("DEFAULTS", "NAMESPACES", "SETTING_KEYS", "Option", "find", "flatten")

Option = Setting
DEFAULT_PROCESS_LOG_FMT: str = BY_NAME["worker_log_format"].default
DEFAULT_TASK_LOG_FMT: str = BY_NAME["worker_task_log_format"].default

DEFAULTS: dict[str, Any] = {setting.name: setting.default for setting in SETTINGS}
SETTING_KEYS = set(DEFAULTS)
_TO_OLD_KEY = {setting.name: setting.old for setting in SETTINGS}
_TO_NEW_KEY = {setting.old: setting.name for setting in SETTINGS}
_OLD_SETTING_KEYS = set(_TO_NEW_KEY)

NAMESPACES: dict[str, Any] = {}
for _setting in SETTINGS:
    _section = _setting.section
    if _section:
        NAMESPACES.setdefault(_section, {})[_setting.name[len(_section) + 1 :]] = _setting
    else:
        NAMESPACES[_setting.name] = _setting
del _setting, _section


def flatten(d: dict[str, Any], root: str = "") -> list[tuple[str, Any]]:
    """Return the pairs of full name and declaration of a nested dict of settings."""
    pairs: list[tuple[str, Any]] = []
    for key, value in d.items():
        name = f"{root}_{key}" if root else key
        pairs += flatten(value, name) if isinstance(value, dict) else [(name, value)]
    return pairs


def find(name: str, namespace: str = "celery") -> tuple[str, str, Setting]:
    """Return section, rest of the name and declaration of a setting that is named without its section.

    Raises:
        KeyError: No section has such a setting.
    """
    for section in (namespace, "", *(key for key, value in NAMESPACES.items() if isinstance(value, dict))):
        setting = BY_NAME.get(f"{section}_{name}" if section else name)
        if setting is not None:
            head = setting.section
            return head, setting.name[len(head) + 1 :] if head else setting.name, setting
    raise KeyError(name)
