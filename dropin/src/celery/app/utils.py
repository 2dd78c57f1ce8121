"""What to say about an app when something is wrong with it."""

from __future__ import annotations

import platform
import sys
from importlib import metadata

from celeriac.app import Celeriac
from celery import VERSION_BANNER
from celery._state import app_or_default

__all__ = ("bugreport",)


def bugreport(app: Celeriac | None = None) -> str:
    """Return the versions and settings that help to understand a problem, secrets hidden."""
    app = app_or_default(app)
    versions = " ".join(
        f"{name}:{_version(name)}" for name in ("celeriac", "kombu", "billiard", "redis", "amqp")
    )
    return (
        f"\nsoftware -> celery:{VERSION_BANNER} py:{platform.python_version()}\n            {versions}\n"
        f"platform -> system:{platform.system()} arch:{', '.join(platform.architecture())}\n"
        f"            kernel version:{platform.release()} imp:{sys.implementation.name}\n"
        f"settings -> broker:{app.conf.table(with_defaults=True)['broker_url'] or 'embedded'}\n\n"
        f"{app.conf.humanize()}\n"
    )


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "none"
