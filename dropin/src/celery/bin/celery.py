"""The `celery` command: Celeriac's, with the current app where ``-A`` names none."""

from __future__ import annotations

from collections.abc import Sequence

from celeriac.cli import main as cli

from celery import VERSION_BANNER
from celery._state import get_current_app

__all__ = ["celery", "main"]

celery = cli.umbrella


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code.

    Args:
        args: Arguments without the program's name; those of the process when not given.
    """
    cli.main(args, program="celery", shown_version=VERSION_BANNER, default_app=get_current_app)
