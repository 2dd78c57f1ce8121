"""Ends what the tests have started when they are gone, however that came about."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

PATIENCE_SECONDS = 120.0  # removing the folders of a whole run takes as long as a busy disk takes

_WATCHDOG = """
import os, shutil, signal, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
groups, folders = set(), []
for line in sys.stdin:
    verb, _, what = line.rstrip("\\n").partition(" ")
    if verb == "group":
        groups.add(int(what))
    elif verb == "ended":
        groups.discard(int(what))
    elif verb == "folder":
        folders.append(what)
    elif verb == "end":
        break
for group in groups:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass
patience = time.monotonic() + 5
for folder in folders:  # who dies in it may still be writing
    while os.path.exists(folder) and time.monotonic() < patience:
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.02)
"""


class Watchdog:
    """A process that outlives the tests by a moment, to end what they started.

    Duties: 1. remember process groups and temporary folders; 2. when this process is gone, however that came
    about, kill the groups and remove the folders.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def tell(self, verb: str, what: object) -> None:
        """Pass on one line: ``group`` or ``ended`` with a process group's id, ``folder`` with a path."""
        with self._lock:
            if self._process is None:
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-c", _WATCHDOG],
                    stdin=subprocess.PIPE,
                    text=True,
                    start_new_session=True,
                )
            assert self._process.stdin is not None
            self._process.stdin.write(f"{verb} {what}\n")
            self._process.stdin.flush()

    def close(self) -> None:
        """Let it do its work now and wait until it has."""
        with self._lock:
            process, self._process = self._process, None
        if process is not None:
            process.communicate("end\n", timeout=PATIENCE_SECONDS)


watchdog = Watchdog()


def temporary_folder(prefix: str, owner: str | None = None) -> Path:
    """Return a new folder that is removed when the test run ends; ``owner`` is a user's name."""
    folder = Path(tempfile.mkdtemp(prefix=f"celeriac-{prefix}-"))
    watchdog.tell("folder", folder)
    if owner is not None:
        shutil.chown(folder, owner)
    return folder
