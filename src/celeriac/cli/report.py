"""``celery report``: what to put into a bug report."""

from __future__ import annotations

import click

from celeriac.bugreport import describe
from celeriac.cli.context import CLIContext


@click.command("report")
@click.pass_obj
def command(obj: CLIContext) -> None:
    """Print versions, where messages and results go, and settings, without secrets."""
    obj.echo(describe(obj.app))
