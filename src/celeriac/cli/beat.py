"""``celery beat``: send periodic tasks when they are due."""

from __future__ import annotations

import datetime
import logging
import signal
import sys
from typing import Any

import click

from celeriac import addresses
from celeriac.beat import Service
from celeriac.cli import logs
from celeriac.cli.context import CLIContext
from celeriac.cli.pidfile import locked
from celeriac.cli.worker import LogLevel
from celeriac.errors import ConfigError
from celeriac.schedules.interval import humanize_seconds


@click.command("beat", context_settings={"auto_envvar_prefix": "CELERY_BEAT"})
@click.option("-s", "--schedule", help="File that keeps when entries were sent last.")
@click.option("-S", "--scheduler", help="Class of the scheduler, or the name of an installed one.")
@click.option("--max-interval", type=click.IntRange(min=1), help="Longest seconds between two looks.")
@click.option("-l", "--loglevel", type=LogLevel(), default="WARNING", show_default=True, help="What to log.")
@click.option("-f", "--logfile", help="Log to this file.")
@click.option("--pidfile", help="Keep the process id in this file, and a second scheduler away.")
@click.pass_obj
def command(obj: CLIContext, /, **options: Any) -> None:  # Any: click's values
    """Send periodic tasks when they are due, until told to stop."""
    app = obj.app
    lock = locked(obj, options["pidfile"] or app.conf.get("beat_pidfile"))
    try:
        level: int = options["loglevel"]
        logfile: str | None = options["logfile"] or app.conf.get("beat_log_file")
        colour = False if obj.no_color else None
        logs.setup(app, logs.LogOptions(level=level, file=logfile, colour=colour, redirect_prints=False))
        app.import_modules()
        app.finalize()
        service = Service(
            app,
            max_interval=options["max_interval"],
            schedule_filename=options["schedule"],
            scheduler_cls=options["scheduler"],
        )
        _show_banner(obj, service, logfile, level)
        _stop_on_signals(service)
        service.start()
    except ConfigError as exc:
        raise click.UsageError(str(exc)) from exc
    finally:
        if lock is not None:
            lock.release()


def _stop_on_signals(service: Service) -> None:
    def stop(signum: int, frame: object) -> None:
        service.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)


def _show_banner(obj: CLIContext, service: Service, logfile: str | None, level: int) -> None:
    if obj.quiet:
        return
    app, scheduler = service.app, service.scheduler
    now = datetime.datetime.now().astimezone()
    kind = type(scheduler)
    seconds = scheduler.max_interval
    lines = [
        f"celery beat v{obj.version} is starting.",
        f"LocalTime -> {now:%Y-%m-%d %H:%M:%S}",
        "Configuration ->",
        f"    . broker -> {addresses.of_messages(app)}",
        f"    . scheduler -> {kind.__module__}.{kind.__qualname__}",
        scheduler.info,
        f"    . logfile -> {logfile or '[stderr]'}@%{logging.getLevelName(level)}",
        f"    . maxinterval -> {humanize_seconds(seconds)} ({seconds:g}s)",
    ]
    obj.echo("\n".join(line for line in lines if line))
    sys.stdout.flush()
