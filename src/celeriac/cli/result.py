"""``celery result``: what became of a task."""

from __future__ import annotations

import sys

import click

from celeriac.cli.context import CLIContext


@click.command("result")
@click.argument("task_id")
@click.option("-t", "--task", "task_name", help="Name of the task, when it has a backend of its own.")
@click.option("--traceback", "show_traceback", is_flag=True, help="The traceback instead of the result.")
@click.option("--timeout", type=float, help="Wait at most so many seconds; forever when not given.")
@click.pass_obj
def command(
    obj: CLIContext, task_id: str, task_name: str | None, show_traceback: bool, timeout: float | None
) -> None:
    """Print the return value of a task, waiting for it if need be."""
    app = obj.app
    app.finalize()
    result = app.AsyncResult(task_id)
    value = result.get(timeout=timeout, propagate=False)
    if show_traceback:
        obj.echo(result.traceback or "")
    else:
        obj.echo(value if isinstance(value, str) else repr(value))
    if result.failed():
        sys.exit(1)
