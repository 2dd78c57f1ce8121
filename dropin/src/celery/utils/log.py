"""Loggers of tasks and of Celery's own parts."""

from __future__ import annotations

import importlib
import logging
import multiprocessing
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

__all__ = (
    "LOG_LEVELS",
    "ColorFormatter",  # noqa: F822 - see `__getattr__`
    "LoggingProxy",
    "base_logger",
    "get_logger",
    "get_multiprocessing_logger",
    "get_task_logger",
    "in_sighandler",
    "mlevel",
    "reset_multiprocessing_logger",
    "set_in_sighandler",
    "task_logger",
    "worker_logger",
)

base_logger: Final = logging.getLogger("celery")
task_logger: Final = logging.getLogger("celery.task")
worker_logger: Final = logging.getLogger("celery.worker")

LOG_LEVELS: Final[dict[str | int, str | int]] = {}
for _name, _number in logging.getLevelNamesMapping().items():
    LOG_LEVELS[_name] = _number
    LOG_LEVELS[_number] = _name
LOG_LEVELS["FATAL"] = logging.FATAL
LOG_LEVELS[logging.FATAL] = "FATAL"

RESERVED_LOGGER_NAMES: Final = frozenset({"celery", "celery.task"})


def get_logger(name: str) -> logging.Logger:
    """Return a logger; one that stands alone is put below ``celery``, so that a worker's handlers get it."""
    logger = logging.getLogger(name)
    if logger.parent is logging.root and logger is not base_logger:
        logger.parent = base_logger
    return logger


def get_task_logger(name: str) -> logging.Logger:
    """Return a logger for tasks, whose lines bear the name and id of the running task.

    Args:
        name: Usually ``__name__``.

    Raises:
        RuntimeError: The name is one of Celery's own.
    """
    if name in RESERVED_LOGGER_NAMES:
        raise RuntimeError(f"Logger name {name!r} is reserved!")
    logger = logging.getLogger(name)
    above: logging.Logger | None = logger
    while above is not None and above is not task_logger:
        above = above.parent
    if above is None:
        logger.parent = task_logger
    return logger


def mlevel(level: str | int | None) -> str | int | None:
    """Return the number of a log level given by name; anything else as it is."""
    if level and not isinstance(level, int):
        return LOG_LEVELS[level.upper()]
    return level


class _Process:
    in_sighandler = False


def set_in_sighandler(value: bool) -> None:
    """Say whether a signal handler runs: then a `LoggingProxy` writes to stderr, for logging takes locks."""
    _Process.in_sighandler = value


@contextmanager
def in_sighandler() -> Iterator[None]:
    """Say that a signal handler runs meanwhile."""
    set_in_sighandler(True)
    try:
        yield
    finally:
        set_in_sighandler(False)


def logger_isa(l: logging.Logger, p: logging.Logger, max: int = 1000) -> bool:  # noqa: E741 - Celery's name
    """Return whether a logger is below another one, or is it."""
    this: logging.Logger | None = l
    for _ in range(max):
        if this is None or this is p:
            return this is not None
        this = this.parent
    raise RuntimeError(f"Logger hierarchy exceeds {max}")


class LoggingProxy:
    """Stands for a file, and logs what is written to it.

    Args:
        logger: Where to.
        loglevel: Name or number of the level; the logger's, or ERROR, without.
    """

    mode = "w"
    name: str | None = None
    closed: bool = False
    loglevel: int = logging.ERROR

    def __init__(self, logger: logging.Logger, loglevel: str | int | None = None) -> None:
        self.logger = logger
        self.loglevel = int(mlevel(loglevel or logger.level or self.loglevel) or self.loglevel)
        self._writing = threading.local()

    def write(self, data: Any) -> int:
        """Log a text, without the end of its line; return its length."""
        text = str(data).rstrip("\n")
        if not text or self.closed:
            return 0
        if _Process.in_sighandler:
            print(text, file=sys.__stderr__)
            return len(text)
        if getattr(self._writing, "now", False):  # a handler that writes to this again would never end
            return 0
        self._writing.now = True
        try:
            self.logger.log(self.loglevel, "%s", text)
        finally:
            self._writing.now = False
        return len(text)

    def writelines(self, sequence: Iterable[str]) -> None:
        """Log several texts."""
        for part in sequence:
            self.write(part)

    def flush(self) -> None:
        """Do nothing: what is written is logged at once."""

    def close(self) -> None:
        """Log nothing more."""
        self.closed = True

    def isatty(self) -> bool:
        """Return False: it is no terminal."""
        return False


def get_multiprocessing_logger() -> logging.Logger:
    """Return the logger of multiprocessing."""
    return multiprocessing.get_logger()


def reset_multiprocessing_logger() -> None:
    """Take the handlers off the logger of multiprocessing."""
    logger = get_multiprocessing_logger()
    for handler in list(logger.handlers):
        logger.removeHandler(handler)


def current_process() -> Any:  # Any: multiprocessing's process
    """Return the current process."""
    return multiprocessing.current_process()


def current_process_index(base: int = 1) -> int | None:
    """Return the number of this child of a pool; None in a process that has none."""
    index = getattr(current_process(), "index", None)
    return index + base if index is not None else None


def iter_open_logger_fds() -> Iterator[Any]:  # Any: files
    """Yield the files that the handlers of all loggers write to."""
    seen: set[int] = set()
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    for handler in (one for logger in loggers for one in getattr(logger, "handlers", ())):
        stream = getattr(handler, "stream", None)
        if stream is not None and id(stream) not in seen:
            seen.add(id(stream))
            yield stream


def __getattr__(name: str) -> Any:  # Any: a class
    if name == "ColorFormatter":  # few want it, and it brings the logging of workers along
        return importlib.import_module("celery.app.log").ColorFormatter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
