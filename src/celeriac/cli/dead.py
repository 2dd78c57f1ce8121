"""``celeriac dead``: another name of ``celeriac dlq list``."""

from __future__ import annotations

import copy

from celeriac.cli.dlq import listing

command = copy.copy(listing)
command.name = "dead"
command.short_help = "Another name of dlq list."
