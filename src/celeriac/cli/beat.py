"""``celery beat``: send periodic tasks when they are due."""

from __future__ import annotations

import datetime
import json
import logging
import signal
import sys
from collections.abc import Mapping
from typing import Any

import click
import msgspec

from celeriac import addresses
from celeriac.beat import Service
from celeriac.cli import daemon, logs
from celeriac.cli.context import CLIContext
from celeriac.cli.detach import detach
from celeriac.cli.pidfile import locked
from celeriac.cli.worker import LogLevel
from celeriac.errors import ConfigError
from celeriac.node.worker import own_program
from celeriac.schedules.interval import humanize_seconds


@click.group("beat", invoke_without_command=True, context_settings={"auto_envvar_prefix": "CELERY_BEAT"})
@click.option("-s", "--schedule", help="File that keeps when entries were sent, instead of the broker.")
@click.option("-S", "--scheduler", help="Class of the scheduler, or the name of an installed one.")
@click.option("--max-interval", type=click.IntRange(min=1), help="Longest seconds between two looks.")
@click.option("-l", "--loglevel", type=LogLevel(), default="WARNING", show_default=True, help="What to log.")
@click.option("-f", "--logfile", help="Log to this file.")
@click.option("--pidfile", help="Keep the process id in this file, and a second scheduler away.")
@click.option("-D", "--detach", is_flag=True, help="Go on in the background, without a terminal.")
@daemon.options
@click.pass_context
def command(context: click.Context, /, **options: Any) -> None:  # Any: click's values
    """Send periodic tasks when they are due, until told to stop.

    Any number of schedulers may run: one of them sends, and the others take over when it is gone.
    """
    if context.invoked_subcommand is None:
        try:
            run(context.obj, options)
        except ConfigError as exc:
            raise click.UsageError(str(exc)) from exc


@command.command("status")
@click.option("--json", "as_json", is_flag=True, help="A JSON object, for machines.")
@click.pass_context
def status(context: click.Context, as_json: bool) -> None:
    """Say who sends, and how late that is; exit code 1 when nobody does, or calls are overdue."""
    obj: CLIContext = context.obj
    filename = None if context.parent is None else context.parent.params["schedule"]
    if filename is not None:
        obj.app.conf.beat_schedule_filename = filename
    obj.app.finalize()
    found = obj.app.schedules.status()
    if as_json:
        obj.echo(json.dumps({**msgspec.to_builtins(found), "sends": found.sends}))
    else:
        last = "" if found.leader is None else f"{found.leader}, renewed {_clock(found.renewed)}"
        leader = last if found.leads else f"nobody; the last was {last}" if last else "nobody"
        lines = {
            "store": found.store,
            "leader": leader,
            "entries": str(found.entries),
            "lag": f"{found.lag_seconds:.1f} s",
            "last run": _clock(found.last_run),
            "next run": _clock(found.next_run),
        }
        for name, text in lines.items():
            obj.echo(f"{name:<10}{text}")
    if not found.sends:
        sys.exit(1)


def _clock(moment: datetime.datetime | None) -> str:
    return "-" if moment is None else f"{moment.astimezone():%Y-%m-%d %H:%M:%S}"


def run(obj: CLIContext, options: Mapping[str, Any]) -> None:  # Any: click's values
    """Run a scheduler in this process until it is told to stop.

    Args:
        obj: The app, and how to speak to the person.
        options: Those of the command, all of them.

    Raises:
        ConfigError: A setting or an option makes no sense.
    """
    app = obj.app
    asked = daemon.taken(app, "beat", dict(options))
    asked.become()
    lock = locked(obj, asked.pidfile)
    if options["detach"]:
        if lock is not None:
            lock.release()  # it was to be had; who goes on takes it
        detach(own_program(), asked.executable)
        return
    try:
        level: int = options["loglevel"]
        logfile = asked.logfile
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
