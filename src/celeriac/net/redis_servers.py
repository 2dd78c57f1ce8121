"""The Redis servers that a URL names, and which of them to try next."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from celeriac.errors import ConfigError
from celeriac.net.redis_url import RedisAddress, addresses
from celeriac.net.url import mask

SENTINEL: Final = "sentinel"  # the scheme


class Servers:
    """Servers of which one is used, until it fails; then the next, and after the last the first again.

    Everything that has to speak to the same server shares one of these. Safe for threads.

    Args:
        addresses: One server at least.
    """

    def __init__(self, addresses: Sequence[RedisAddress]) -> None:
        self._line = tuple(addresses)
        self.database: int = self._line[0].database
        self.connect_seconds: float = sum(address.connect_seconds for address in addresses)

    def tries(self) -> Iterator[tuple[int, RedisAddress]]:
        """Yield how many servers are left to try, and the next; whoever asks for another one has failed."""
        line = self._line
        for left, address in zip(range(len(line), 0, -1), line, strict=True):
            yield left, address
            self.skip(address)

    def skip(self, address: RedisAddress) -> None:
        """Put a server that has failed behind the others."""
        first, *others = self._line
        if address == first:
            self._line = (*others, first)


def servers(url: str, options: Mapping[str, Any]) -> Servers:  # Any: driver options
    """Return the servers that a URL names.

    Args:
        url: As of `celeriac.net.redis_url.addresses`; or the sentinels that know the server,
            ``sentinel://[user:password@]host[:26379][/db];…``, where login and database are the server's.
        options: As there; for sentinels also ``master_name``, and ``sentinel_kwargs``, the same options for
            the connections to them.

    Raises:
        ConfigError: A part of the URL or an option cannot be; says which.
    """
    if not url.strip(" ;"):
        raise ConfigError(f"{mask(url)!r} names no server.")
    if url.strip().lower().startswith(f"{SENTINEL}:"):
        found: Servers = importlib.import_module("celeriac.net.redis_sentinel").servers(url, options)
        return found
    several = addresses(url, options)
    # Of several servers one may be the replica of another, which takes nothing.
    return Servers([msgspec.structs.replace(one, must_lead=len(several) > 1) for one in several])
