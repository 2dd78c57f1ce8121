"""What ``celeriac -A soak.worker_app worker`` runs."""

from __future__ import annotations

from soak.program import from_environment

app, tasks = from_environment()
