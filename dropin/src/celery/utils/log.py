"""Loggers of tasks and of Celery's own parts."""

from __future__ import annotations

import importlib
import logging
from typing import Any, Final

__all__ = (
    "LOG_LEVELS",
    "ColorFormatter",  # noqa: F822 - see `__getattr__`
    "base_logger",
    "get_logger",
    "get_task_logger",
    "mlevel",
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


def __getattr__(name: str) -> Any:  # Any: a class
    if name == "ColorFormatter":  # few want it, and it brings the logging of workers along
        return importlib.import_module("celery.app.log").ColorFormatter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
