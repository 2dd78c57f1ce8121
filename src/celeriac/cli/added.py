"""Options that programs add to commands: ``app.user_options["worker"].add(click.Option(…))``.

Those under ``worker``, ``beat`` and ``events`` belong to that command, those under ``preload`` to every one.
What is given for the latter is told by the signal ``user_preload_options`` before the command begins.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import click

from celeriac.cli.context import CLIContext

if TYPE_CHECKING:
    from celeriac.app import Celeriac

PRELOAD: Final = "preload"
_EXTENSIBLE: Final = ("worker", "beat", "events")
_WITHOUT_APP: Final = ("help", "logtool", "multi", "upgrade")


def is_extended(name: str, *, app_is_named: bool) -> bool:
    """Return whether a command may have options of the app's: whether the app is worth loading for it."""
    return name in _EXTENSIBLE or (app_is_named and name not in _WITHOUT_APP)


def open_to_options(command: click.Command) -> click.Command:
    """Return a copy of a command, for `extend` to change."""
    own = copy.copy(command)
    own.params = [*command.params]
    return own


def extend(command: click.Command, app: Celeriac) -> None:
    """Give a command the options that an app has for it.

    Args:
        command: One that `open_to_options` has made.
        app: The app.
    """
    own = _sorted(app.user_options[str(command.name)]) if command.name in _EXTENSIBLE else []
    early = _sorted(app.user_options[PRELOAD])
    callback = command.callback
    if callback is None or not (own or early):
        return
    command.params += [*own, *early]
    # Only the worker has a use for its values: it hands them to its steps.
    unused = [] if command.name == "worker" else _names(own)
    command.callback = _telling(app, callback, _names(early), unused)


def take_added(ctx: click.Context, options: dict[str, Any]) -> dict[str, Any]:  # Any: click's values
    """Take the values that the app has added to a command out of all values, and return them."""
    obj = ctx.find_object(CLIContext)
    added = [] if obj is None else _names(obj.app.user_options[str(ctx.command.name)])
    return {name: options.pop(name) for name in added if name in options}


def _telling(
    app: Celeriac, callback: Callable[..., Any], early: list[str], unused: list[str]
) -> Callable[..., Any]:
    """Return what runs a command when what is not its own was taken out of its values, and told."""

    def run(*args: Any, **options: Any) -> Any:  # Any: click's values, the command's result
        given = {name: options.pop(name) for name in early}
        for name in unused:
            options.pop(name)
        if early:
            app.hooks.user_preload_options.send(callback, app=app, options=given)
        return callback(*args, **options)

    return run


def _sorted(options: set[Any]) -> list[click.Parameter]:  # Any: click's parameters
    return sorted(options, key=lambda one: str(one.name))


def _names(options: Any) -> list[str]:  # Any: of click's parameters
    return [str(one.name) for one in options]
