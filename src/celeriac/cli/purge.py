"""``celery purge``: throw away what waits."""

from __future__ import annotations

import click

from celeriac.cli.context import CLIContext


@click.command("purge")
@click.option("-f", "--force", is_flag=True, help="Do not ask first.")
@click.option("-Q", "--queues", help="Only these queues, separated by commas.")
@click.option("-X", "--exclude-queues", help="Not these queues, separated by commas.")
@click.pass_obj
def command(obj: CLIContext, force: bool, queues: str | None, exclude_queues: str | None) -> None:
    """Throw away all waiting messages of the configured queues. There is no way back."""
    app = obj.app
    app.finalize()
    names = queues.split(",") if queues else list(app.router.queues)
    names = [name.strip() for name in names if name.strip() not in (exclude_queues or "").split(",")]
    if not names:
        raise click.UsageError("No queue is left to purge; look at -Q and -X.")
    if not force:
        question = f"WARNING:This will remove all tasks from {_queues(names)}: {', '.join(names)}. Go on?"
        click.confirm(question, abort=True)
    removed = sum(app.transport.purge(name) for name in names)
    if not removed:
        obj.echo(f"No messages purged from {len(names)} {_queues(names)}.")
        return
    messages = "message" if removed == 1 else "messages"
    obj.echo(f"Purged {removed} {messages} from {len(names)} known task {_queues(names)}.")


def _queues(names: list[str]) -> str:
    return "queue" if len(names) == 1 else "queues"
