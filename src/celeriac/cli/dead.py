"""``celeriac dead``: what was given up on, and why."""

from __future__ import annotations

import json

import click

from celeriac.cli.context import CLIContext


@click.command("dead")
@click.option("-Q", "--queues", help="Only these queues, separated by commas.")
@click.option("-n", "--limit", default=20, show_default=True, help="At most so many of each queue.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, for machines.")
@click.pass_obj
def command(obj: CLIContext, queues: str | None, limit: int, as_json: bool) -> None:
    """List dead letters: messages that could not be read or run, with the reason."""
    app = obj.app
    app.finalize()
    names = [name.strip() for name in queues.split(",")] if queues else list(app.router.queues)
    shown = 0
    for name in names:
        for reason, envelope in app.transport.dead_letters(name, limit):
            shown += 1
            task, task_id = envelope.headers.get("task"), envelope.headers.get("id")
            if as_json:
                obj.echo(json.dumps({"queue": name, "task": task, "id": task_id, "reason": reason}))
            else:
                obj.echo(f"{name}: {task or '(unreadable)'}[{task_id or '-'}]: {reason}")
    if not shown and not as_json:
        obj.say(f"No dead letters in {', '.join(names)}.")
