"""Looks into a Redis database past the product's own way, as a person with redis-cli does."""

from __future__ import annotations

import time
from typing import Any

from celeriac.net.redis_link import Links, Word, checked, pack
from celeriac.net.redis_servers import servers


def command(url: str, *words: Word) -> Any:  # Any: whatever Redis answers
    """Return what the server answers to one command."""
    links = Links(servers(url, {}))
    try:
        return checked(links.call(pack(words), 1, time.monotonic() + 10))[0]
    finally:
        links.close()
