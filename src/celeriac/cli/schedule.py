"""``celery schedule``: periodic tasks, seen and changed while schedulers run."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

import click
import msgspec

from celeriac.cli.context import CLIContext
from celeriac.cli.tables import draw
from celeriac.errors import ScheduleError
from celeriac.schedules import crontab, schedule, solar
from celeriac.schedules.base import BaseSchedule

F = TypeVar("F", bound=Callable[..., Any])

_WHEN = (
    click.option("--every", type=float, metavar="SECONDS", help="Due every so often."),
    click.option("--crontab", "cron", metavar="'M H DM MY DW'", help="Due at times of a crontab."),
    click.option("--solar", "sun", metavar="EVENT,LAT,LON", help="Due by the sun, such as sunset,52.5,13.4."),
    click.option("--tz", help="Time zone of the crontab; the app's without."),
)
_CALL = (
    click.option("-a", "--args", "arguments", metavar="JSON", help="Positional arguments: a list."),
    click.option("-k", "--kwargs", "keywords", metavar="JSON", help="Keyword arguments: an object."),
    click.option("--options", metavar="JSON", help="Options of apply_async: an object."),
    click.option("-Q", "--queue", help="The queue to send to."),
    click.option(
        "--missed", type=click.Choice(["skip", "once", "all"]), help="What becomes of runs that were missed."
    ),
)


def _with(options: tuple[Callable[[F], F], ...]) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


@click.group("schedule")
@click.option("-s", "--schedule", help="The file that the schedulers were given with -s.")
@click.pass_obj
def command(obj: CLIContext, schedule: str | None) -> None:
    """See and change periodic tasks; what is changed counts in all schedulers within two seconds."""
    if schedule is not None:
        obj.app.conf.beat_schedule_filename = schedule


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, for machines.")
@click.pass_obj
def listing(obj: CLIContext, as_json: bool) -> None:
    """List the periodic tasks: when they ran last, when they are next."""
    obj.app.finalize()
    infos = obj.app.schedules.list()
    if as_json:
        for info in infos:
            obj.echo(json.dumps(msgspec.to_builtins(info)))
    elif infos:
        titles = ("name", "task", "schedule", "last run", "next run", "times", "state")
        draw(obj, titles, [_row(info) for info in infos])
    else:
        obj.say("No scheduler has led with this app yet, and nothing was added.")


@command.command("add")
@click.argument("name")
@click.option("-t", "--task", required=True, help="The task's name.")
@_with(_WHEN)
@_with(_CALL)
@click.pass_obj
def adding(obj: CLIContext, /, name: str, task: str, **options: Any) -> None:  # Any: click's values
    """Add a periodic task."""
    obj.app.finalize()
    when = _when(options)
    if when is None:
        raise click.UsageError(
            "Say when: --every SECONDS, --crontab 'M H DM MY DW' or --solar EVENT,LAT,LON."
        )
    _carry_out(lambda: obj.app.schedules.add(name, task, when, **_call(options)))
    _say(obj, f"{name} is added.")


@command.command("update")
@click.argument("name")
@click.option("-t", "--task", help="Another task's name.")
@_with(_WHEN)
@_with(_CALL)
@click.pass_obj
def updating(obj: CLIContext, /, name: str, task: str | None, **options: Any) -> None:  # Any: as above
    """Change a periodic task; what is not said stays."""
    obj.app.finalize()
    _carry_out(lambda: obj.app.schedules.update(name, task=task, schedule=_when(options), **_call(options)))
    _say(obj, f"{name} is changed.")


@command.command("pause")
@click.argument("name")
@click.pass_obj
def pausing(obj: CLIContext, name: str) -> None:
    """Have a periodic task not sent until it is resumed."""
    _change(obj, "pause", name, "is paused")


@command.command("resume")
@click.argument("name")
@click.pass_obj
def resuming(obj: CLIContext, name: str) -> None:
    """Have a paused periodic task sent again, from now on."""
    _change(obj, "resume", name, "is resumed")


@command.command("remove")
@click.argument("name")
@click.pass_obj
def removing(obj: CLIContext, name: str) -> None:
    """Remove a periodic task that was added; of one in the code, what was changed."""
    _change(obj, "remove", name, "is removed")


@command.command("run-now")
@click.argument("name")
@click.pass_obj
def running(obj: CLIContext, name: str) -> None:
    """Have a periodic task sent once more, now."""
    _change(obj, "run_now", name, "is sent by the leading scheduler in a moment")


def _change(obj: CLIContext, method: str, name: str, done: str) -> None:
    obj.app.finalize()
    _carry_out(lambda: getattr(obj.app.schedules, method)(name))
    _say(obj, f"{name} {done}.")


def _say(obj: CLIContext, done: str) -> None:
    """Say what was done, and when it does not count yet."""
    obj.say(done)
    status = obj.app.schedules.status()
    if not status.leads:
        obj.error(
            f"No scheduler leads at {status.store}: it counts once one does. Schedulers that run with -s "
            "FILE agree in that file: give -s FILE here, too."
        )


def _carry_out(change: Callable[[], None]) -> None:
    try:
        change()
    except ScheduleError as exc:
        raise click.UsageError(str(exc)) from exc


def _when(options: dict[str, Any]) -> BaseSchedule | None:
    every, cron, sun, tz = (options[name] for name in ("every", "cron", "sun", "tz"))
    if sum(one is not None for one in (every, cron, sun)) > 1:
        raise click.UsageError("--every, --crontab and --solar are three ways to say when: take one.")
    try:
        if cron is not None:
            return crontab.from_string(cron, tz=tz)
        if tz is not None:
            raise click.UsageError("--tz is the time zone of a --crontab.")
        if sun is not None:
            event, _, place = sun.partition(",")
            latitude, _, longitude = place.partition(",")
            return solar(event, float(latitude), float(longitude))
        return None if every is None else schedule(every)
    except ValueError as exc:
        raise click.UsageError(str(exc)) from exc


def _call(options: dict[str, Any]) -> dict[str, Any]:
    found = {
        "args": _json(options["arguments"], "--args", list),
        "kwargs": _json(options["keywords"], "--kwargs", dict),
        "options": _json(options["options"], "--options", dict),
        "missed": options["missed"],
    }
    if options["queue"] is not None:
        found["options"] = {**(found["options"] or {}), "queue": options["queue"]}
    return {name: value for name, value in found.items() if value is not None}


def _json(text: str | None, option: str, kind: type[Any]) -> Any:
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError as exc:
        raise click.UsageError(f"{option} is no JSON: {exc}") from exc
    if not isinstance(value, kind):
        raise click.UsageError(f"{option} is {'a list' if kind is list else 'an object'} in JSON, not {text}")
    return value


def _row(info: Any) -> tuple[str, ...]:
    state = [info.origin, *(["paused"] if info.paused else []), f"missed={info.missed}"]
    if info.lag_seconds >= 1:
        state.append(f"late by {info.lag_seconds:.0f} s")
    moments = (info.last_run, info.next_run)
    shown = ["-" if one is None else f"{one.astimezone():%Y-%m-%d %H:%M:%S}" for one in moments]
    return (info.name, info.task, info.schedule, *shown, str(info.times), ", ".join(state))
