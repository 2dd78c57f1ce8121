"""Writes the pages that are made from code, or checks (``--check``) that they are what the code says now."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable
from pathlib import Path

from celeriac.settings.model import Setting
from celeriac.settings.table import SETTINGS

ROOT = Path(__file__).resolve().parents[1]


def settings_page() -> str:
    """Return the reference of all settings, by section."""
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


PAGES: dict[str, Callable[[], str]] = {"docs/reference/settings.md": settings_page}


def main(arguments: list[str]) -> int:
    """Write the pages, or say how they differ; returns the exit code."""
    stale = 0
    for name, make in PAGES.items():
        path, wanted = ROOT / name, make()
        there = path.read_text() if path.exists() else ""
        if there == wanted:
            continue
        if "--check" not in arguments:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted)
            print(f"wrote {name}")
            continue
        stale += 1
        sys.stdout.writelines(
            difflib.unified_diff(
                there.splitlines(True), wanted.splitlines(True), name, "as the code says", n=0
            )
        )
        print(f"{name} is stale: run `make docs` and commit it")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
