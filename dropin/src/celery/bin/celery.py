"""The `celery` command: Celeriac's, with the current app where ``-A`` names none."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from celeriac.app import Celeriac
from celeriac.cli import main as cli
from celery import VERSION_BANNER
from celery._state import get_current_app

__all__ = ["celery", "main"]

celery: click.Group = cli.umbrella


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code.

    Args:
        args: Arguments without the program's name; those of the process when not given.
    """
    sys.exit(
        cli.run(args, program="celery", shown_version=VERSION_BANNER, default_app=_app_of_working_folder)
    )


def _app_of_working_folder() -> Celeriac:
    if os.getcwd() not in sys.path:  # that of an installed command is the one of its script
        sys.path.insert(0, os.getcwd())
    return get_current_app()
