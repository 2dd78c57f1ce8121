"""``celeriac retry-preview``: how long a task that fails waits before each retry."""

from __future__ import annotations

import itertools
import json

import click

from celeriac.cli.context import CLIContext
from celeriac.cli.tables import draw
from celeriac.retry import delays
from celeriac.settings.spelling import did_you_mean


@click.command("retry-preview")
@click.argument("task")
@click.option(
    "-n",
    "--limit",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="Retries to show of a task that has many, or never gives up.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, for machines.")
@click.pass_obj
def command(obj: CLIContext, task: str, limit: int, as_json: bool) -> None:
    """Print how long TASK waits before each retry, in seconds.

    That is what its declaration says: with autoretry_for, or for self.retry() without arguments. With jitter
    each delay is chosen between 0 and the number shown, so that tasks that failed together do not come back
    together.
    """
    app = obj.app
    app.import_modules()
    app.finalize()
    if task not in app.tasks:
        meant = did_you_mean(task, sorted(app.tasks))
        raise click.UsageError(
            f"There is no task {task} in the code.{f' Did you mean {meant}?' if meant else ''}"
        )
    first = list(itertools.islice(delays(app.tasks[task]), limit + 1))
    sums = itertools.accumulate(most for _, most in first)
    facts = [
        {"retry": number, "least": least, "most": most, "at most in all": total}
        for number, ((least, most), total) in enumerate(zip(first[:limit], sums, strict=False), 1)
    ]
    if as_json:
        for fact in facts:
            obj.echo(json.dumps(fact))
    elif facts:
        draw(obj, tuple(facts[0]), [[f"{value:g}" for value in fact.values()] for fact in facts])
        if len(first) > limit:
            obj.say("There are more; -n shows them.")
    else:
        obj.say(f"{task} is not tried again: its max_retries is 0.")
