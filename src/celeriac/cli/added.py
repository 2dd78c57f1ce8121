"""Options that programs add to commands: ``app.user_options["worker"].add(click.Option(…))``."""

from __future__ import annotations

from typing import Any

import click

from celeriac.cli.context import CLIContext


class ExtensibleCommand(click.Command):
    """A command that has, besides its own options, those that the app adds under the command's name."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return all of them; those of the app only where the command line is known to be for one."""
        return [*super().get_params(ctx), *_added(self, ctx)]


def take_added(ctx: click.Context, options: dict[str, Any]) -> dict[str, Any]:  # Any: click's values
    """Take the values of added options out of all values, and return them."""
    names = [param.name for param in _added(ctx.command, ctx)]
    return {name: options.pop(name) for name in names if name is not None and name in options}


def _added(command: click.Command, ctx: click.Context) -> list[click.Parameter]:
    obj = ctx.find_object(CLIContext)
    return (
        [] if obj is None else sorted(obj.app.user_options[str(command.name)], key=lambda one: str(one.name))
    )
