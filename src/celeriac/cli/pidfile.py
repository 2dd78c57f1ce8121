"""A file that says which process runs here, and keeps a second one away."""

from __future__ import annotations

import os
from pathlib import Path

EX_CANTCREAT = 73  # sysexits.h; Celery's exit code when the file is locked


class PidfileLocked(Exception):
    """Raised when the file names a process that is alive."""


class Pidfile:
    """The lock of one running worker.

    Args:
        path: The file; its directory must exist.
    """

    def __init__(self, path: str) -> None:
        self.path: Path = Path(path)
        self._ours = False

    def acquire(self) -> bool:
        """Write our pid into the file.

        Returns:
            Whether a stale file of a dead process was removed first.

        Raises:
            PidfileLocked: Another process that is alive holds it.
        """
        removed = False
        while True:
            try:
                fd = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            except FileExistsError:
                holder = self.holder()
                ours = holder == os.getpid()  # from before a restart in place, or of a container's last life
                if holder is not None and not ours and _alive(holder):
                    raise PidfileLocked(
                        f"ERROR: Pidfile ({self.path}) already exists.\n"
                        f"Seems we're already running? (pid: {holder})"
                    ) from None
                self.path.unlink(missing_ok=True)
                removed = not ours
                continue
            with os.fdopen(fd, "w") as file:
                file.write(f"{os.getpid()}\n")
            self._ours = True
            return removed

    def holder(self) -> int | None:
        """Return the pid in the file; None when there is none or the file is broken."""
        try:
            return int(self.path.read_text().strip())
        except (OSError, ValueError):
            return None

    def release(self) -> None:
        """Remove the file if it is still ours."""
        if self._ours and self.holder() == os.getpid():
            self.path.unlink(missing_ok=True)
        self._ours = False


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
