"""What a result backend is made from: one record instead of a dozen arguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from celeriac.ports import Transport

DAY_SECONDS = 86400.0

# Settings that mean something to one kind of backend only; they travel in `BackendSpec.options`.
OPTION_PREFIXES = (
    "database_",
    "cache_",
    "redis_",
    "result_chord_",
    "result_backend_",
    "mongodb_",
    "result_persistent",
)


class BackendSpec(msgspec.Struct, kw_only=True):
    """Everything that a backend has to know; `celeriac.backends.connect` makes a backend of it.

    ``options`` holds the result backend's transport options and, under their new names, the settings of its
    family (``database_engine_options``, ``cache_backend_options``, ``redis_socket_timeout`` …), as
    `options_from` gathers them.
    """

    url: str  # such as redis://localhost/0, db+sqlite:///results.db or the bare name "rpc"
    codecs: Any = None  # Any: a celeriac.codecs.Codecs; the app's, so that what users register is known
    serializer: str = "json"
    accept: frozenset[str] | None = None  # content types to read back; None = the serializer's own
    compression: str | None = None
    expires_seconds: float | None = DAY_SECONDS  # None or 0 = results are kept
    options: dict[str, Any] = {}  # Any: each backend's own
    extended: bool = False  # store name, args, kwargs, worker, retries and queue too
    transport: Transport | None = None  # the broker's, for rpc and the embedded backend
    app_name: str | None = None
    app: Any = None  # Any: the app itself, for the backends that other packages wrote for Celery
    aliases: dict[str, str] = {}  # the `override_backends` setting: name -> "module:attribute"

    @property
    def chord_seconds(self) -> float:
        """How long it is kept what has become of a chord's parts; its header may outlast its results."""
        return max(self.expires_seconds or DAY_SECONDS, DAY_SECONDS)


def options_from(settings: Mapping[str, Any]) -> dict[str, Any]:  # Any: values of settings
    """Gather from an app's settings what belongs into `BackendSpec.options`.

    Args:
        settings: By new name (``database_engine_options``); others are left out.
    """
    found = {
        name: value
        for name, value in settings.items()
        if name.startswith(OPTION_PREFIXES) and value is not None
    }
    return {**found, **(found.get("result_backend_transport_options") or {})}
