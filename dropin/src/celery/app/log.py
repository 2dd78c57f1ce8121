"""How lines of the log are formatted."""

from __future__ import annotations

from celeriac.cli import logs

__all__ = ("ColorFormatter", "TaskFormatter")


class ColorFormatter(logs.ColourFormatter):
    """Formats records, in colour by level.

    Args:
        fmt: A `%`-style format; the bare message when not given.
        use_color: Whether to colour at all.
    """

    def __init__(self, fmt: str | None = None, use_color: bool = True) -> None:
        super().__init__(fmt or "%(message)s", colour=use_color)


class TaskFormatter(logs.TaskFormatter):
    """Adds ``task_name`` and ``task_id`` of the running task to log records; ``???`` outside of tasks.

    Args:
        fmt: A `%`-style format; the bare message when not given.
        use_color: Whether to colour whole lines by level.
    """

    def __init__(self, fmt: str | None = None, use_color: bool = True) -> None:
        super().__init__(fmt or "%(message)s", colour=use_color)
