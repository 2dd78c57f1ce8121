"""The reference of all settings."""

from __future__ import annotations

from celeriac.settings.model import Setting
from celeriac.settings.table import SETTINGS


def page() -> str:
    """Return the settings by section."""
    lines = [
        "# Settings",
        "",
        "Every setting by its new name; the old upper-case name means the same.",
        "Those marked with a dagger (†) are known and kept, but this version does not act upon them yet.",
        "",
        "<!-- Made by `make docs` from src/celeriac/settings/table; do not edit. -->",
    ]
    for section in sorted({setting.section for setting in SETTINGS}):
        lines += [
            "",
            f"## {section or 'general'}",
            "",
            "| setting | old name | takes | default | what it does |",
        ]
        lines += ["|---|---|---|---|---|"]
        lines += [_row(setting) for setting in SETTINGS if setting.section == section]
    return "\n".join(lines) + "\n"


def _row(setting: Setting) -> str:
    cells = (
        f"`{setting.name}`{'' if setting.has_effect else ' †'}",
        f"`{setting.old}`",
        setting.kind,
        f"`{setting.default!r}`",
        setting.help,
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
