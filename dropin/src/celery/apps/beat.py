"""The scheduler that ``celery beat`` runs, for programs that run one themselves."""

from __future__ import annotations

from typing import Any

from celeriac.cli.beat import run
from celeriac.cli.context import CLIContext
from celeriac.cli.logs import level_of
from celery import VERSION_BANNER
from celery._state import app_or_default

__all__ = ("Beat",)


class Beat:
    """A scheduler in this process, with what ``celery beat`` has around it: a banner, logs, signals.

    Args:
        max_interval: The longest time between two looks at the schedule, in seconds.
        app: The app; the current one when not given.
        socket_timeout: Taken, and without a meaning.
        pidfile: A file that says which process runs, and keeps a second one away.
        no_color: Whether logs are without colours.
        loglevel: What is logged, by name or number.
        logfile: Where; standard error when not given.
        schedule: The file that keeps when entries were sent.
        scheduler: Class or name of the scheduler.
        scheduler_cls: The same.
        redirect_stdouts: Taken, and without a meaning: what is printed is printed.
        redirect_stdouts_level: Likewise.
        quiet: Whether there is no banner.
        **kwargs: Taken, and without a meaning.
    """

    app: Any = None  # Any: a Celeriac; a subclass may have one

    def __init__(
        self,
        max_interval: float | None = None,
        app: Any = None,
        socket_timeout: float = 30,
        pidfile: str | None = None,
        no_color: bool | None = None,
        loglevel: str | int = "WARN",
        logfile: str | None = None,
        schedule: str | None = None,
        scheduler: Any = None,  # Any: a class or its name
        scheduler_cls: Any = None,  # Any: as above
        redirect_stdouts: bool | None = None,
        redirect_stdouts_level: str | int | None = None,
        quiet: bool = False,
        **kwargs: Any,
    ) -> None:
        self.app = app or self.app or app_or_default()
        self.max_interval = max_interval
        self.socket_timeout = socket_timeout
        self.pidfile = pidfile
        self.no_color: bool = bool(no_color)
        self.loglevel: int = level_of(loglevel)
        self.logfile = logfile
        self.schedule = schedule
        self.scheduler_cls: Any = scheduler or scheduler_cls
        self.quiet = quiet

    def run(self) -> None:
        """Send what is due until the process is told to stop.

        Raises:
            ConfigError: A setting makes no sense.
        """
        person = CLIContext(
            None, lambda: self.app, version=VERSION_BANNER, no_color=self.no_color, quiet=self.quiet
        )
        options = {
            "max_interval": self.max_interval,
            "schedule": self.schedule,
            "scheduler": self.scheduler_cls,
            "loglevel": self.loglevel,
            "logfile": self.logfile,
            "pidfile": self.pidfile,
            "detach": False,
            "executable": None,
        }
        run(person, options)
