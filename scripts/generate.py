"""Writes the pages that are made from code, or checks (``--check``) that they are what the code says now."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable
from pathlib import Path

from pages import api, cli, settings

ROOT = Path(__file__).resolve().parents[1]

PAGES: dict[str, Callable[[], str]] = {
    "docs/reference/api.md": api.page,
    "docs/reference/cli.md": cli.page,
    "docs/reference/settings.md": settings.page,
}


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
