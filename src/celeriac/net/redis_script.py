"""Lua scripts that the server knows by the hash of their text."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from celeriac.net.redis_link import Word, pack


class Script:
    """A Lua script and the commands around it.

    Args:
        text: Its source.
    """

    def __init__(self, text: str) -> None:
        self._text = text.strip()
        self._sha = hashlib.sha1(self._text.encode(), usedforsecurity=False).hexdigest()

    def load(self) -> bytes:
        """Return the packed command that makes it known to the server; its answer is the hash."""
        return pack(("SCRIPT", "LOAD", self._text))

    def call(self, keys: Sequence[bytes | str], arguments: Sequence[Word]) -> bytes:
        """Return the packed command that runs it; a server that does not know it answers NOSCRIPT."""
        return pack(("EVALSHA", self._sha, len(keys), *keys, *arguments))
