"""``celery result``: what became of a task, and how far it has come."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from celeriac.cli.context import CLIContext
from celeriac.errors import TimeoutError as ResultTimeout
from celeriac.saferepr import saferepr

_LOOK_EVERY_SECONDS = 0.3

Show = Callable[[str, Any], None]  # the state and the progress; Any: a Progress or None


@click.command("result")
@click.argument("task_id")
@click.option("-t", "--task", "task_name", help="Name of the task, when it has a backend of its own.")
@click.option("--traceback", "show_traceback", is_flag=True, help="The traceback instead of the result.")
@click.option("--timeout", type=float, help="Wait at most so many seconds; forever when not given.")
@click.option("--follow", is_flag=True, help="Show the state and the progress while waiting.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line; with --follow also meanwhile.")
@click.pass_obj
def command(
    obj: CLIContext,
    task_id: str,
    task_name: str | None,
    show_traceback: bool,
    timeout: float | None,
    follow: bool,
    as_json: bool,
) -> None:
    """Print the return value of a task, waiting for it if need be."""
    app = obj.app
    app.finalize()
    result = app.AsyncResult(task_id)
    try:
        value = _followed(obj, result, timeout, as_json) if follow else result.get(timeout, propagate=False)
    except ResultTimeout as exc:
        raise click.ClickException(f"Task {task_id} is {result.known_state} still: {exc}") from exc
    if as_json:
        obj.echo(_as_json(result, value))
    elif show_traceback:
        obj.echo(result.traceback or "")
    else:
        obj.echo(value if isinstance(value, str) else repr(value))
    if result.failed():
        sys.exit(1)


def _followed(obj: CLIContext, result: Any, timeout: float | None, as_json: bool) -> Any:
    with _lines(obj, result.id) if as_json else _bar(result.id) as show:

        def look() -> None:
            state = result.known_state
            show(state, None if result.ready() else result.progress)

        look()
        return result.get(timeout, propagate=False, interval=_LOOK_EVERY_SECONDS, on_interval=look)


@contextmanager
def _lines(obj: CLIContext, task_id: str) -> Iterator[Show]:
    last = ""

    def show(state: str, progress: Any) -> None:
        nonlocal last
        document: dict[str, Any] = {"task_id": task_id, "state": state}
        if progress is not None:
            document |= {**progress.as_meta(), "fraction": progress.fraction}
        if (line := json.dumps(document)) != last:
            last = line
            obj.echo(line)

    yield show


@contextmanager
def _bar(task_id: str) -> Iterator[Show]:
    """Draw a bar on standard error, where it does not mix with the result."""
    rich = importlib.import_module("rich.progress")  # 40 ms that only those pay who follow
    console = importlib.import_module("rich.console").Console(stderr=True)
    columns = (
        rich.TextColumn("{task.fields[state]}"),
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        rich.TextColumn("{task.description}", markup=False),
        rich.TimeElapsedColumn(),
    )
    with rich.Progress(*columns, console=console, transient=True) as bar:
        line = bar.add_task(task_id, total=None, state="")

        def show(state: str, progress: Any) -> None:
            if progress is None:
                bar.update(line, state=state)
            else:
                text = progress.message or task_id
                bar.update(line, state=state, completed=progress.done, total=progress.total, description=text)

        yield show


def _as_json(result: Any, value: Any) -> str:
    failed = isinstance(value, BaseException)
    document = {
        "task_id": result.id,
        "state": result.state,
        "result": {"type": type(value).__qualname__, "message": str(value)} if failed else value,
        "traceback": result.traceback,
    }
    return json.dumps(document, default=saferepr)
