"""What commands of other packages are made with."""

from __future__ import annotations

import click

from celeriac.cli.context import CLIContext

__all__ = ["CLIContext", "CeleryCommand", "CeleryCommandException"]


class CeleryCommand(click.Command):
    """A command that another package adds to ours."""


class CeleryCommandException(click.ClickException):
    """Raised by a command to end with a message and an exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # click reads it from the instance too
