"""``celery events``: what happens in the fleet, on the terminal, as lines, or for a camera."""

from __future__ import annotations

import importlib
import signal
import sys
from types import FrameType
from typing import Any

import click

from celeriac.cli import daemon, logs
from celeriac.cli.context import CLIContext
from celeriac.cli.detach import detach
from celeriac.cli.evdump import evdump
from celeriac.cli.pidfile import locked
from celeriac.cli.worker import LogLevel
from celeriac.events.snapshot import evcam
from celeriac.node.worker import own_program
from celeriac.settings.load import import_by_name


@click.command("events", context_settings={"auto_envvar_prefix": "CELERY_EVENTS"})
@click.option("-d", "--dump", is_flag=True, help="Write every event as a line.")
@click.option("-c", "--camera", help="Have a camera of this class look at what is known.")
@click.option(
    *("-F", "--frequency", "--freq"),
    type=float,
    default=1.0,
    show_default=True,
    help="Seconds between two looks of the camera.",
)
@click.option("-r", "--maxrate", help="Most looks of the camera, such as 10/m.")
@click.option("-l", "--loglevel", type=LogLevel(), default="INFO", show_default=True, help="What to log.")
@click.option("-f", "--logfile", help="Log to this file.")
@click.option("--pidfile", help="Keep the process id in this file, and a second camera away.")
@click.option("--detach", is_flag=True, help="With a camera: go on in the background, without a terminal.")
@daemon.options
@click.pass_obj
def command(
    obj: CLIContext,
    /,
    dump: bool,
    camera: str | None,
    frequency: float,
    maxrate: str | None,
    **common: Any,
) -> None:  # Any: click's values
    """Show what workers tell: on the terminal, as lines (--dump), or to a camera (--camera)."""
    if dump:
        _end_on_terminate()
        evdump(obj.app)
    elif camera is not None:
        _photograph(obj, camera, frequency, maxrate, common)
    else:
        importlib.import_module("celeriac.cli.evtop").evtop(obj.app)  # curses is not everywhere


def _photograph(
    obj: CLIContext, camera: str, frequency: float, maxrate: str | None, common: dict[str, Any]
) -> None:  # Any: click's values
    app = obj.app
    asked = daemon.taken(app, "events", common)
    asked.become()
    lock = locked(obj, asked.pidfile)
    if common["detach"]:
        if lock is not None:
            lock.release()  # it was to be had; who goes on takes it
        detach(own_program(), asked.executable)
        return
    try:
        level: int = common["loglevel"]
        logfile = asked.logfile
        colour = False if obj.no_color else None
        logs.setup(app, logs.LogOptions(level=level, file=logfile, colour=colour, redirect_prints=False))
        try:
            made = import_by_name(camera)
        except (ImportError, AttributeError, ValueError) as exc:
            raise click.UsageError(f"There is no camera {camera}: {exc}") from exc
        obj.echo(f"-> evcam: Taking snapshots with {camera} (every {frequency} secs.)")
        sys.stdout.flush()
        _end_on_terminate()
        evcam(app, made, freq=frequency, maxrate=maxrate)
    finally:
        if lock is not None:
            lock.release()


def _end_on_terminate() -> None:
    """End by an exception, so that what is open is closed."""

    def end(signum: int, frame: FrameType | None) -> None:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, end)
