"""The app of workers and client: the tasks of random workflows, which note in files what happens."""

from __future__ import annotations

import os
from typing import Any

from celeriac.app import Celeriac
from workflows.tasks import Tasks

LEASE_SECONDS = 2.0  # what a killed worker held comes back after so long


class Notes:
    """A file of this process's own; what is in it outlives a kill.

    Args:
        folder: Where the files of all processes are.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._pid = 0
        self._file = -1

    def add(self, line: str) -> None:
        """Add a line."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            path = os.path.join(self._folder, f"{self._pid}.notes")
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(self._file, f"{line}\n".encode())


def make(url: str, folder: str, *, late: bool) -> tuple[Celeriac, Tasks]:
    """Return the app and its tasks.

    Args:
        url: Of the broker, which keeps the results too.
        folder: Where notes go.
        late: Whether tasks are acknowledged when they have ended, and run again when their worker dies.
    """
    app = Celeriac("soak", broker=url, backend=url, set_as_current=False)
    app.conf.update(
        task_acks_late=late,
        task_reject_on_worker_lost=late,
        task_max_deliveries=0,  # the killer hits blindly: nothing here is poison
        worker_lease_seconds=LEASE_SECONDS,
    )
    notes = Notes(folder)

    def note(key: str, what: str, label: str) -> None:
        task: Any = app.current_worker_task
        copy = getattr(task.request, "celeriac_copy", None) or ""
        notes.add(f"{key}\t{what}\t{label}\t{task.request.id}\t{copy}")

    return app, Tasks(app, note)


def from_environment() -> tuple[Celeriac, Tasks]:
    """Return what the variables of the environment say."""
    return make(os.environ["SOAK_URL"], os.environ["SOAK_FOLDER"], late=os.environ["SOAK_LATE"] == "1")
