"""``celeriac dead``: another name of ``celeriac dlq list``."""

from __future__ import annotations

import copy

import click

from celeriac.cli.dlq import listing

command: click.Command = copy.copy(listing)
command.name = "dead"
command.short_help = "Another name of dlq list."
