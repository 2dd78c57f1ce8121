"""MessagePack."""

from __future__ import annotations

from functools import cache
from typing import Any

from celeriac.errors import ConfigError


@cache
def _msgpack() -> Any:
    try:
        import msgpack
    except ImportError as exc:
        raise ConfigError(
            "Serializer msgpack needs the package msgpack: pip install celeriac[msgpack]"
        ) from exc
    return msgpack


def _plain(value: Any) -> Any:
    reducer = getattr(value, "__json__", None)
    if reducer is not None:
        return reducer()
    raise TypeError(f"Object of type {type(value).__name__} is not MessagePack serializable")


def encode(value: Any) -> bytes:  # Any: the user's value
    """Return the value as MessagePack, text and bytes told apart.

    Raises:
        ConfigError: The package is missing.
        Exception: The value has no form in MessagePack.
    """
    packed: bytes = _msgpack().packb(value, use_bin_type=True, default=_plain)
    return packed


def decode(data: bytes) -> Any:  # Any: whatever the sender wrote
    """Return the value of MessagePack bytes; keys of maps may be numbers.

    Raises:
        ConfigError: The package is missing.
        Exception: The bytes are no MessagePack.
    """
    return _msgpack().unpackb(data, raw=False, strict_map_key=False)
