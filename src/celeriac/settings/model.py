"""One setting: its names, its default, and which values it takes."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

import msgspec

from celeriac.errors import ConfigError

Kind = Literal["bool", "int", "number", "seconds", "text", "bytes", "list", "dict", "any"]

SECTIONS: Final = (
    "arangodb", "azureblockblob", "beat", "broker", "cache", "cassandra", "control", "cosmosdbsql",
    "couchbase", "database", "elasticsearch", "event", "gcs", "mongodb", "redis", "result", "s3", "security",
    "task", "worker",
)  # fmt: skip


class Setting(msgspec.Struct, frozen=True):
    """The declaration of a setting; everything else about it is made from this."""

    name: str
    old: str  # the upper-case name of Celery 3
    default: Any  # Any: each setting has its own type, see `kind`
    kind: Kind
    help: str
    has_effect: bool = True  # False: known and kept, but this version does not act upon it

    @property
    def section(self) -> str:
        """Return the part before the first underscore where that names a section, else an empty text."""
        head = self.name.partition("_")[0]
        return head if head in SECTIONS else ""

    def check(self, value: Any, said: str | None = None) -> Any:  # Any: a user's value
        """Return the value, converted where its meaning is beyond doubt (``"4"`` for a number).

        None is taken by every setting.

        Args:
            value: What the user has set.
            said: The name under which the user has set it, for the error.

        Raises:
            ConfigError: The value is of the wrong kind; names the setting, the value and what it takes.
        """
        convert, wanted = _KINDS[self.kind]
        if value is None or convert is None:
            return value
        try:
            return convert(value)
        except (TypeError, ValueError, OverflowError) as exc:
            raise ConfigError(f"{said or self.name} = {value!r} cannot be used: it takes {wanted}.") from exc


_WORDS: Final = {
    "true": True, "yes": True, "on": True, "1": True,
    "false": False, "no": False, "off": False, "0": False, "": False,
}  # fmt: skip


def _bool(value: Any) -> Any:  # Any: a user's value
    if isinstance(value, str):
        if value.strip().lower() not in _WORDS:
            raise ValueError(value)
        return _WORDS[value.strip().lower()]  # "False" out of the environment is not true
    if isinstance(value, (bool, int, float)):
        return bool(value)
    raise TypeError(value)


def _int(value: Any) -> Any:  # Any: a user's value
    if isinstance(value, (str, int)):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    raise TypeError(value)


def _number(value: Any) -> Any:  # Any: a user's value
    if isinstance(value, (int, float)):
        return value
    if isinstance(value, str):
        return float(value)
    raise TypeError(value)


def _seconds(value: Any) -> Any:  # Any: a user's value
    return value if isinstance(value, datetime.timedelta) else _number(value)


def _text(value: Any) -> Any:  # Any: a user's value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, str):
        return value
    raise TypeError(value)


def _bytes(value: Any) -> Any:  # Any: a user's value
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    raise TypeError(value)


def _list(value: Any) -> Any:  # Any: a user's value
    if isinstance(value, str):
        return (value,)
    if isinstance(value, (bytes, Mapping)):
        raise TypeError(value)
    iter(value)
    return value


def _dict(value: Any) -> Any:  # Any: a user's value
    if not isinstance(value, Mapping):
        raise TypeError(value)
    return value


_KINDS: Final[dict[Kind, tuple[Callable[[Any], Any] | None, str]]] = {
    "bool": (_bool, "True or False"),
    "int": (_int, "a whole number"),
    "number": (_number, "a number"),
    "seconds": (_seconds, "a number of seconds or a timedelta"),
    "text": (_text, "a text"),
    "bytes": (_bytes, "bytes"),
    "list": (_list, "a list or tuple"),
    "dict": (_dict, "a dict"),
    "any": (None, ""),
}
