"""Broker and result store URLs: taken apart, and shown without their secrets."""

from __future__ import annotations

from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from celeriac.errors import ConfigError
from celeriac.settings.secrets import mask_url as mask

__all__ = ["Url", "mask", "parse"]


class Url(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of a URL, unquoted; ``path`` has lost its first slash."""

    scheme: str
    user: str | None = None
    password: str | None = None
    host: str | None = None
    port: int | None = None
    path: str = ""
    query: dict[str, str] = {}


def parse(url: str) -> Url:
    """Take a URL apart.

    Args:
        url: Such as ``redis://:secret@localhost:6379/0``, ``sqlite:////var/lib/q.db`` or a bare scheme.

    Raises:
        ConfigError: The port is no number.
    """
    if "://" not in url:
        return Url(scheme=url.strip().lower())
    scheme, rest = url.split("://", 1)
    parts = urlsplit(f"//{rest}")  # a scheme with "+" or "_" would keep urlsplit from seeing the host
    try:
        port = parts.port
    except ValueError as exc:
        raise ConfigError(f"The port in {mask(url)} is not a number from 0 to 65535; mend the URL.") from exc
    return Url(
        scheme=scheme.lower(),
        user=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        host=parts.hostname,
        port=port,
        path=unquote(parts.path[1:]) if parts.path else "",
        query=dict(parse_qsl(parts.query)),
    )
