"""``celery control``: tell workers what to do."""

from __future__ import annotations

from typing import Final

import click

from celeriac.cli.remote import make

command: Final[click.Command] = make("control")
