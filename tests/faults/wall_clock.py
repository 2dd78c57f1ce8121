"""The wall clock of other programs, set forward and back by libfaketime; the monotonic one goes on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from processes import user_environment
from servers import required

# libfaketime refuses to sleep until a moment of the monotonic clock (EINVAL), even where that clock is not to
# be faked, and this is how `time.sleep` sleeps. Who waits for a locked file would fail with it.
_SLEEP = """
import select
import time


def sleep(seconds):
    select.select([], [], [], seconds)


time.sleep = sleep
"""
_PLACES = ("/usr/lib/*/faketime", "/usr/lib/faketime", "/usr/local/lib/faketime")


class WallClock:
    """What programs with `environment` read as the time of day.

    Args:
        folder: Where its files are kept.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self._modules = folder / "modules of the clock"
        self._modules.mkdir()
        (self._modules / "sitecustomize.py").write_text(_SLEEP)
        self._library = _library()
        self.jump(0)

    def jump(self, seconds: int) -> None:
        """Set it to so many seconds after the true time, or before it."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{seconds:+d}\n")
        fresh.replace(self._file)

    def environment(self, home: Path) -> dict[str, str]:
        """Return the environment of programs that shall live by this clock; see `user_environment`."""
        usual = user_environment(home)
        return {**usual, **self.additions(usual["PYTHONPATH"])}

    def additions(self, path: str) -> dict[str, str]:
        """Return what an environment with this PYTHONPATH needs for it."""
        return {
            "PYTHONPATH": os.pathsep.join([str(self._modules), path]),
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
