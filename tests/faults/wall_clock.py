"""The wall clock of other programs, set forward and back by libfaketime; the monotonic one goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from servers import required

_PLACES = ("/usr/lib/*/faketime", "/usr/lib/faketime", "/usr/local/lib/faketime")


class WallClock:
    """What programs with `environment` read as the time of day.

    Args:
        folder: Where its file is kept.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self._library = _library()
        self.jump(0)

    def jump(self, seconds: int) -> None:
        """Set it to so many seconds after the true time, or before it."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{seconds:+d}\n")
        fresh.replace(self._file)

    @property
    def environment(self) -> dict[str, str]:
        """Variables for programs that shall live by this clock."""
        return {
            "LD_PRELOAD": str(self._library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }


def _library() -> Path:
    for pattern in _PLACES:
        for found in Path("/").glob(f"{pattern.removeprefix('/')}/libfaketimeMT.so.1"):
            return found
    text = "libfaketime is not installed (apt-get install libfaketime)"
    if required():
        pytest.fail(f"{text} (CI or CELERIAC_REQUIRE_SERVERS is set: it may not be missing)", pytrace=False)
    pytest.skip(text)
