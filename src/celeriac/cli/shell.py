"""``celery shell``: try things out with the app at hand."""

from __future__ import annotations

import code
import importlib
import importlib.util
from collections.abc import Callable
from typing import Any, Final

import click

from celeriac import canvas
from celeriac.cli.context import CLIContext

_CANVAS: Final = ("chord", "group", "chain", "chunks", "xmap", "xstarmap", "subtask", "signature")


@click.command("shell")
@click.option("-I", "--ipython", "wanted", flag_value="ipython", help="Use IPython.")
@click.option("-B", "--bpython", "wanted", flag_value="bpython", help="Use bpython.")
@click.option("--python", "wanted", flag_value="python", help="Use Python's own.")
@click.option("-T", "--without-tasks", is_flag=True, help="Leave the tasks' names out.")
@click.pass_obj
def command(obj: CLIContext, /, wanted: str | None, without_tasks: bool) -> None:
    """Begin an interactive session with app, celery, Task, the canvas and the tasks by name.

    Without an option it is IPython, bpython or Python's own, the first that is installed.
    """
    app = obj.app
    app.import_modules()
    app.finalize()
    names: dict[str, Any] = {"app": app, "celery": app, "Task": app.Task}  # Any: whatever bears a name
    names |= {name: getattr(canvas, name) for name in _CANVAS if hasattr(canvas, name)}
    if not without_tasks:
        own = {name: task for name, task in app.tasks.items() if not name.startswith("celery.")}
        names |= {task.__name__: task for task in own.values()}
    for kind, (module, begin) in _SHELLS.items():
        if wanted in (kind, None) and importlib.util.find_spec(module) is not None:
            begin(names)
            return
    raise click.UsageError(f"{wanted} is not installed: pip install {wanted}.")


def _python(names: dict[str, Any]) -> None:
    code.interact(banner="", local=names, exitmsg="")


def _ipython(names: dict[str, Any]) -> None:
    importlib.import_module("IPython").start_ipython(argv=[], user_ns=names)


def _bpython(names: dict[str, Any]) -> None:
    importlib.import_module("bpython").embed(names)


_SHELLS: Final[dict[str, tuple[str, Callable[[dict[str, Any]], None]]]] = {
    "ipython": ("IPython", _ipython),
    "bpython": ("bpython", _bpython),
    "python": ("code", _python),
}
