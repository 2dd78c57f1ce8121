"""``celery report``: what to put into a bug report."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version  # the one command that lists what is installed

import click

from celeriac.cli.context import CLIContext

_OF_INTEREST = (
    "celeriac",
    "celery",
    "kombu",
    "billiard",
    "redis",
    "hiredis",
    "amqp",
    "psycopg",
    "sqlalchemy",
    "django",
)


@click.command("report")
@click.pass_obj
def command(obj: CLIContext) -> None:
    """Print versions and settings, without secrets."""
    obj.echo(f"python {platform.python_version()} on {platform.platform()}")
    for name in _OF_INTEREST:
        try:
            obj.echo(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    for key, value in sorted(obj.app.conf.table(with_defaults=False, censored=True).items()):
        obj.echo(f"{key}: {value!r}")
