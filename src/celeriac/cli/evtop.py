"""``celery events``: workers and tasks on the terminal, as events tell of them."""

from __future__ import annotations

import curses
import threading
import time
from collections.abc import Iterator
from typing import Any, Final

from celeriac.events.snapshot import watch

_LOOK_SECONDS: Final = 1.0
_HELP: Final = "j/k: select   i: info   r: result   t: traceback   c: revoke   x: clear   q: quit"
_COLUMNS: Final = ("UUID", "TASK", "WORKER", "TIME", "STATE")


class CursesMonitor:
    """Shows a state on the terminal, and obeys keys.

    Args:
        state: A `celeriac.events.state.State`.
        app: The app; a Celeriac.
        screen: What curses has given.
    """

    def __init__(self, state: Any, app: Any, screen: Any) -> None:
        self.state = state
        self.app = app
        self._screen = screen
        self._selected: str | None = None
        self._detail: str | None = None  # info, result or traceback of the selected task
        self._keys = {
            **dict.fromkeys((ord("j"), ord("J"), curses.KEY_DOWN), lambda: self._move(1)),
            **dict.fromkeys((ord("k"), ord("K"), curses.KEY_UP), lambda: self._move(-1)),
            **dict.fromkeys((ord("i"), ord("I")), lambda: self._show("info")),
            **dict.fromkeys((ord("r"), ord("R")), lambda: self._show("result")),
            **dict.fromkeys((ord("t"), ord("T")), lambda: self._show("traceback")),
            **dict.fromkeys((ord("c"), ord("C")), self._revoke),
            **dict.fromkeys((ord("x"), ord("X")), self.state.clear_tasks),
        }

    def run(self, stopped: threading.Event) -> None:
        """Show and obey until somebody quits."""
        curses.use_default_colors()
        curses.curs_set(0)
        self._screen.timeout(int(_LOOK_SECONDS * 1000))
        while not stopped.is_set():
            self.draw()
            key = self._screen.getch()
            if key in (ord("q"), ord("Q"), 27):
                return
            act = self._keys.get(key)
            if act is not None:
                act()

    def draw(self) -> None:
        """Show what is known now."""
        height, width = self._screen.getmaxyx()
        self._screen.erase()
        lines = self._lines(height - 1, width)
        for row, (text, attribute) in enumerate(lines):
            self._screen.addnstr(row, 0, text.ljust(width - 1), width - 1, attribute)
        self._screen.refresh()

    def _lines(self, height: int, width: int) -> list[tuple[str, int]]:
        workers = [f"{worker.hostname} {worker.status_string}" for worker in self.state.workers.values()]
        state = self.state
        head = [
            (f"celery events  {state.event_count} events, {state.task_count} tasks", curses.A_BOLD),
            ("workers: " + (", ".join(workers) or "none heard of"), curses.A_NORMAL),
            (self._row(_COLUMNS, width), curses.A_REVERSE),
        ]
        below = self._details() if self._detail is not None else []
        room = max(height - len(head) - len(below) - 1, 1)
        rows = [
            (self._row(values, width), curses.A_STANDOUT if uuid == self._selected else curses.A_NORMAL)
            for uuid, values in self._tasks(room)
        ]
        foot = [(_HELP, curses.A_DIM)]
        return [*head, *rows, *[(line, curses.A_NORMAL) for line in below], *foot][:height]

    def _tasks(self, limit: int) -> Iterator[tuple[str, tuple[str, ...]]]:
        for uuid, task in self.state.tasks_by_time(limit=limit):
            at = time.strftime("%H:%M:%S", time.localtime(task.timestamp or 0))
            worker = task.worker.hostname if task.worker is not None else "-"
            yield uuid, (uuid, str(task.name or "-"), worker, at, task.state)

    def _row(self, values: tuple[str, ...], width: int) -> str:
        uuid, name, worker, at, state = values
        rest = max(width - 37 - 9 - 9, 20)
        half = rest // 2
        cut = f"{uuid:<36.36} {name:<{half}.{half}} {worker:<{half - 2}.{half - 2}}"
        return f"{cut} {at:<8} {state:<8}"

    def _details(self) -> list[str]:
        task = self.state.tasks.get(self._selected)
        if task is None:
            return []
        if self._detail == "traceback":
            return (task.traceback or "no traceback").splitlines()
        if self._detail == "result":
            return [f"result: {task.result if task.exception is None else task.exception}"]
        return [f"{name}: {value}" for name, value in task.info(extra=("state",)).items()]

    def _move(self, by: int) -> None:
        uuids = [uuid for uuid, _ in self.state.tasks_by_time(limit=self._screen.getmaxyx()[0])]
        if uuids:
            place = uuids.index(self._selected) + by if self._selected in uuids else 0
            self._selected = uuids[max(0, min(place, len(uuids) - 1))]

    def _show(self, detail: str) -> None:
        self._detail = None if self._detail == detail else detail

    def _revoke(self) -> None:
        if self._selected is not None:
            self.app.control.revoke(self._selected)


def evtop(app: Any) -> None:
    """Show workers and tasks on the terminal until somebody quits.

    Args:
        app: The app; a Celeriac.
    """
    state, stopped = app.events.State(), threading.Event()
    listening = threading.Thread(
        target=watch, args=(app, {"*": state.event}, stopped), name="celeriac-events", daemon=True
    )
    listening.start()
    try:
        curses.wrapper(lambda screen: CursesMonitor(state, app, screen).run(stopped))
    except KeyboardInterrupt:
        return
    finally:
        stopped.set()
        listening.join(timeout=2)
