"""Log records as JSON, an object a line: for those who gather logs."""

from __future__ import annotations

import datetime
import json
import logging
from typing import Any

from celeriac.context import current


class JsonFormatter(logging.Formatter):
    """Formats each record as a JSON object.

    Its keys are ``time`` (ISO 8601, UTC), ``level``, ``logger``, ``process``, ``pid`` and ``message``, with
    ``task_name`` and ``task_id`` where it is of a task, and ``exception`` where it has a traceback.
    """

    def __init__(self) -> None:
        super().__init__()

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        moment = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        line: dict[str, Any] = {  # Any: JSON
            "time": moment.isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "process": record.processName,
            "pid": record.process,
            "message": record.getMessage(),
        }
        name, task_id = _task(record)
        if task_id is not None:
            line |= {"task_name": name, "task_id": task_id}
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def _task(record: logging.LogRecord) -> tuple[str | None, str | None]:
    """Return name and id of the task that a record was written in, or that it tells of."""
    running = current()
    if running is not None:
        return running.task.name, running.request.id
    data = getattr(record, "data", None)  # what the worker's own lines are about
    if isinstance(data, dict) and data.get("id") is not None:
        return data.get("name"), data["id"]
    return None, None
