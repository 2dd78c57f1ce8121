"""Settings on a command line: ``worker.prefetch_multiplier=7 task_always_eager=true``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any, Final

from celeriac.settings.table import BY_NAME

_CASTS: Final[dict[str, Callable[[str], Any]]] = {  # Any: a setting's value
    "any": str,
    "bool": lambda text: text.strip().lower() not in {"", "0", "false", "no", "off"},
    "dict": lambda text: dict(json.loads(text)),
    "float": float,
    "int": int,
    "json": json.loads,
    "list": lambda text: list(json.loads(text)),
    "str": str,
    "string": str,
    "tuple": lambda text: tuple(json.loads(text)),
}


def parse(arguments: Iterable[str], section: str) -> dict[str, Any]:  # Any: values of settings
    """Return the settings in some arguments, by new name.

    Args:
        arguments: ``section.rest=value``, ``section_rest=value``, or ``.rest=value`` of the given section; a
            value may say what it is: ``(json){"a": 1}``, ``(int)3``.
        section: The section of those that name none.

    Raises:
        ValueError: An argument has no ``=``, says an unknown kind, or its value is not of that kind.
    """
    found = {}
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not equals:
            raise ValueError(f"{argument!r} is no setting: write name=value.")
        found[_name(key.strip(), section)] = _value(argument, text)
    return found


def _name(key: str, section: str) -> str:
    if key.startswith("."):
        return f"{section}_{key[1:]}"
    name = key.replace(".", "_", 1)
    return f"{section}_{name}" if name not in BY_NAME and f"{section}_{name}" in BY_NAME else name


def _value(argument: str, text: str) -> Any:  # Any: a setting's value
    if not text.startswith("("):
        return text
    kind, closed, rest = text[1:].partition(")")
    if not closed or kind not in _CASTS:
        raise ValueError(f"{argument!r} says no kind of value that is known: {', '.join(sorted(_CASTS))}.")
    try:
        return _CASTS[kind](rest)
    except (TypeError, ValueError) as exc:
        raise ValueError(f"{argument!r}: the value is no {kind}: {exc}") from exc
