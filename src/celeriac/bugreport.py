"""What to put into a bug report."""

from __future__ import annotations

import platform
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version  # the one module that lists what is installed

from celeriac import addresses
from celeriac.app import Celeriac
from celeriac.errors import CeleriacError

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


def describe(app: Celeriac) -> str:
    """Return the versions, addresses and settings that help to understand a problem, secrets hidden."""
    lines = [
        "",
        *_under("software -> ", _software()),
        f"platform -> system:{platform.system()} arch:{', '.join(platform.architecture())}",
        f"            kernel version:{platform.release()} imp:{platform.python_implementation()}",
        *_loader(app),
        f"settings -> transport:{_told(addresses.of_messages, app)}",
        f"            results:{_told(addresses.of_results, app)}",
        "",
        app.conf.humanize(),
        "",
    ]
    return "\n".join(lines)


def _software() -> list[str]:
    found = [f"py:{platform.python_version()}"]
    for name in _OF_INTEREST:
        try:
            found.append(f"{name}:{version(name)}")
        except PackageNotFoundError:
            continue
    return found


def _loader(app: Celeriac) -> list[str]:
    wanted = app.loader_cls
    if wanted is None:
        return []
    name = wanted if isinstance(wanted, str) else f"{wanted.__module__}.{wanted.__qualname__}"
    return [f"loader   -> {name.replace(':', '.')}"]


def _under(heading: str, words: list[str]) -> list[str]:
    lines = [" ".join(words[start : start + 5]) for start in range(0, len(words), 5)]
    return [f"{' ' * len(heading) if number else heading}{line}" for number, line in enumerate(lines)]


def _told(address: Callable[[Celeriac], str], app: Celeriac) -> str:
    try:
        return address(app)
    except CeleriacError as exc:  # a report is made when something is wrong: it has to come out all the same
        return f"unusable: {exc}"
