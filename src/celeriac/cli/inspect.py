"""``celery inspect``: ask workers about themselves."""

from __future__ import annotations

from typing import Final

import click

from celeriac.cli.remote import make

command: Final[click.Command] = make("inspect")
