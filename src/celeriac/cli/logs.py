"""Logging of a worker process: Celery's formats, colours, and what tasks print.

Tools and people match these lines, so the formats are Celery's to the letter.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable
from typing import IO, Any, Final

import msgspec

from celeriac.app import Celeriac
from celeriac.context import current

PROCESS_FORMAT: Final = "[%(asctime)s: %(levelname)s/%(processName)s] %(message)s"
JSON: Final = "json"  # the format that is none of `%`'s: an object a line
TASK_FORMAT: Final = "[%(asctime)s: %(levelname)s/%(processName)s] %(task_name)s[%(task_id)s]: %(message)s"
_COLOURS: Final = {
    logging.DEBUG: "\x1b[1;34m",
    logging.WARNING: "\x1b[1;33m",
    logging.ERROR: "\x1b[1;31m",
    logging.CRITICAL: "\x1b[1;35m",
}
_RESET: Final = "\x1b[0m"


class LogOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a process shall log."""

    level: int = logging.WARNING
    file: str | None = None
    colour: bool | None = None  # None: when standard error is a terminal
    redirect_prints: bool = True
    redirect_level: int = logging.WARNING


class ColourFormatter(logging.Formatter):
    """Formats records, in colour where wanted; a format may have the running task's name and id in it.

    Args:
        fmt: A `%`-style format.
        colour: Whether to colour whole lines by level.
        datefmt: Format of the time; ISO 8601 with milliseconds when not given.
    """

    def __init__(self, fmt: str, *, colour: bool, datefmt: str | None = None) -> None:
        super().__init__(fmt, datefmt)
        self._colour = colour
        self._names_task = "(task_" in fmt

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        if self._names_task:
            _add_task(record)
        line = super().format(record)
        start = _COLOURS.get(record.levelno) if self._colour else None
        return f"{start}{line}{_RESET}" if start else line


class TaskFormatter(ColourFormatter):
    """Adds the running task's name and id; ``???`` outside of tasks."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        _add_task(record)
        return super().format(record)


def _add_task(record: logging.LogRecord) -> None:
    running = current()
    record.task_name = running.task.name if running is not None else "???"
    record.task_id = running.request.id if running is not None else "???"


class PrintedLines:
    """A text stream that logs what is written to it, a line a record.

    It stands in for standard output and error inside a worker. A handler that prints while it logs would
    call itself without end, so such writes go to the stream that was there before.

    Args:
        logger: Where the lines go.
        level: At which level.
        original: The stream it replaces.
    """

    encoding = "utf-8"
    errors = "strict"
    closed = False

    def __init__(self, logger: logging.Logger, level: int, original: IO[str] | None) -> None:
        self._logger = logger
        self._level = level
        self._original = original
        self._local = threading.local()

    def write(self, data: str) -> int:
        """Log the complete lines; keep the rest until its newline or a flush comes.

        Raises:
            TypeError: It is no text; libraries find out so that this is no stream of bytes.
        """
        if not isinstance(data, str):
            raise TypeError(f"write() argument must be str, not {type(data).__name__}")
        if getattr(self._local, "busy", False):
            if self._original is not None:
                self._original.write(data)
            return len(data)
        pending = getattr(self._local, "pending", "") + data
        *lines, self._local.pending = pending.split("\n")
        for line in lines:
            self._log(line)
        return len(data)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Log what has no newline yet."""
        pending, self._local.pending = getattr(self._local, "pending", ""), ""
        self._log(pending)

    def isatty(self) -> bool:
        """Return False: nobody reads colours here."""
        return False

    def writable(self) -> bool:
        """Return True."""
        return True

    def readable(self) -> bool:
        """Return False."""
        return False

    def close(self) -> None:
        """Stay open: code that closes standard output shall not silence the worker."""

    def _log(self, line: str) -> None:
        text = line.rstrip()
        if not text:
            return
        self._local.busy = True
        try:
            self._logger.log(self._level, "%s", text)
        finally:
            self._local.busy = False


def level_of(name: str | int) -> int:
    """Return the number of a log level given by name (any case) or number.

    Raises:
        ValueError: There is no such level.
    """
    if isinstance(name, int) or name.isdigit():
        return int(name)
    level = logging.getLevelNamesMapping().get(name.upper())
    if level is None:
        raise ValueError(f"{name!r} is no log level; use DEBUG, INFO, WARNING, ERROR, CRITICAL or FATAL.")
    return level


def setup(app: Celeriac, options: LogOptions) -> None:
    """Configure logging for this process as the settings and options say.

    Receivers of the ``setup_logging`` signal take over entirely, as with Celery.

    Args:
        app: Whose settings (`worker_log_format`, …) and signals apply.
        options: Level, file, colour and redirection.
    """
    conf = app.conf
    colour = _wants_colour(options, conf.get("worker_log_color"))
    fmt = conf.get("worker_log_format") or PROCESS_FORMAT
    told: dict[str, Any] = {  # Any: the signal's open keyword form
        "loglevel": options.level,
        "logfile": options.file,
        "format": fmt,
        "colorize": colour,
    }
    logging.captureWarnings(True)
    if app.hooks.setup_logging.receivers:
        app.hooks.setup_logging.send(sender=None, **told)
    else:
        root = logging.getLogger()
        if conf.get("worker_hijack_root_logger", True):
            root.handlers[:] = []
        dates = conf.worker_log_datefmt
        plain = _json() if fmt == JSON else ColourFormatter(fmt, colour=colour, datefmt=dates)
        _attach(root, options, plain)
        app.hooks.after_setup_logger.send(sender=None, logger=root, **told)
        task_logger = logging.getLogger("celery.task")
        task_logger.handlers[:] = []
        task_format = conf.get("worker_task_log_format") or TASK_FORMAT
        dates = conf.worker_task_log_datefmt
        is_json = JSON in (fmt, task_format)
        own = _json() if is_json else TaskFormatter(task_format, colour=colour, datefmt=dates)
        _attach(task_logger, options, own)
        task_logger.propagate = False
        app.hooks.after_setup_task_logger.send(sender=None, logger=task_logger, **told)
    if options.redirect_prints and conf.get("worker_redirect_stdouts", True):
        redirect_prints(options.redirect_level)


def move(before: str, after: str) -> None:
    """Let this process log to another file from now on.

    Args:
        before: The file that `setup` was given.
        after: The one to use instead.
    """
    old = os.path.abspath(before)
    for logger in (logging.getLogger(), logging.getLogger("celery.task")):
        for place, handler in enumerate(logger.handlers):
            if isinstance(handler, logging.FileHandler) and handler.baseFilename == old:
                logger.handlers[place] = _handler(after, handler.formatter)
                handler.close()


def redirect_prints(level: int) -> Callable[[], None]:
    """Send what is printed to the log and return a call that undoes it."""
    before = sys.stdout, sys.stderr
    logger = logging.getLogger("celery.redirected")
    sys.stdout = PrintedLines(logger, level, sys.__stdout__)
    sys.stderr = PrintedLines(logger, level, sys.__stderr__)

    def restore() -> None:
        sys.stdout, sys.stderr = before

    return restore


def _wants_colour(options: LogOptions, configured: bool | None) -> bool:
    if options.colour is not None:
        return options.colour
    if configured is not None:
        return bool(configured)
    return options.file is None and "NO_COLOR" not in os.environ and sys.stderr.isatty()


def _json() -> logging.Formatter:
    made: logging.Formatter = importlib.import_module("celeriac.cli.jsonlines").JsonFormatter()
    return made


def _attach(logger: logging.Logger, options: LogOptions, formatter: logging.Formatter) -> None:
    logger.addHandler(_handler(options.file, formatter))
    logger.setLevel(options.level)


def _handler(file: str | None, formatter: logging.Formatter | None) -> logging.Handler:
    handler: logging.Handler
    if file:
        # Here, for with pickle and queue it takes 0.3 MB of every process.
        handlers = importlib.import_module("logging.handlers")
        handler = handlers.WatchedFileHandler(file, encoding="utf-8", errors="backslashreplace")
    else:
        handler = logging.StreamHandler(sys.__stderr__)
    handler.setFormatter(formatter)
    return handler
