"""``celeriac check``: do the queues and the schedule hold tasks that the code does not have?"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Iterable, Iterator

import click

from celeriac import moving
from celeriac.app import Celeriac
from celeriac.cli.context import CLIContext
from celeriac.cli.tables import plain
from celeriac.settings.spelling import did_you_mean


@click.command("check")
@click.option("-Q", "--queues", metavar="NAMES", help="These queues instead of the configured ones: a,b.")
@click.option(
    "-n",
    "--limit",
    type=click.IntRange(min=1),
    default=1000,
    show_default=True,
    help="Messages to look at in each queue.",
)
@click.pass_obj
def command(obj: CLIContext, queues: str | None, limit: int) -> None:
    """Find tasks that are queued or scheduled but not in the code; exit code 1 when there are any.

    Made to be run before a deployment. It looks into the queues as `queue peek` does.
    """
    app = obj.app
    app.import_modules()
    app.finalize()
    names = [name.strip() for name in queues.split(",")] if queues else list(app.router.queues)
    problems = [
        f"{'One message' if count == 1 else f'{count} messages'} in queue {queue} for {plain(task)}, which "
        f"is not in the code.{_hint(app, task)}"
        for queue in names
        for task, count in sorted(Counter(_unknown(app, _queued(app, queue, limit))).items())
    ]
    problems += [
        f"Entry {entry} of beat_schedule sends {task}, which is not in the code.{_hint(app, task)}"
        for entry, task in _scheduled(app)
        if task not in app.tasks
    ]
    for problem in problems:
        obj.echo(problem)
    if problems:
        sys.exit(1)
    obj.say(f"Every task in {', '.join(names)} and in the schedule is in the code.")


def _queued(app: Celeriac, queue: str, limit: int) -> Iterator[str]:
    for delivery in asyncio.run(moving.peek(app.transport, app.router.find(queue), limit)):
        name = delivery.envelope.headers.get("task")
        if isinstance(name, str):
            yield name


def _scheduled(app: Celeriac) -> Iterator[tuple[str, str]]:
    for name, entry in (app.conf.beat_schedule or {}).items():
        task = entry.get("task") if isinstance(entry, dict) else getattr(entry, "task", None)
        if isinstance(task, str):
            yield name, task


def _unknown(app: Celeriac, names: Iterable[str]) -> Iterator[str]:
    return (name for name in names if name not in app.tasks)


def _hint(app: Celeriac, task: str) -> str:
    meant = did_you_mean(task, sorted(app.tasks))
    return f" Did you mean {meant}?" if meant else ""
