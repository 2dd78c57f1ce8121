"""How SQL for SQLite names its values."""

from __future__ import annotations

import re
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / "src" / "celeriac"


def test_placeholders_have_no_numbers() -> None:
    # Python 3.12.0 to 3.12.3 (Ubuntu 24.04 has the last of them) warn of `?1` with a tuple of values.
    numbered = [
        f"{path.relative_to(SOURCE)}: {line.strip()}"
        for path in SOURCE.rglob("*.py")
        for line in path.read_text().splitlines()
        if re.search(r"\?\d", line)
    ]

    assert numbered == []
