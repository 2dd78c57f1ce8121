"""What calls are told apart by: a value among the arguments of a call, found by a path. Pure."""

from __future__ import annotations

import datetime
import decimal
import enum
import importlib
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from celeriac.errors import ConfigError, UsageError

_ROOT: Final = "args"
_MOST_CHARACTERS: Final = 200  # of a key; it is part of the names of things in a store
_PLAIN: Final = (str, int, float, type(None), uuid.UUID, decimal.Decimal, datetime.date, enum.Enum)


class KeyPath:
    """A path such as ``args.tenant_id`` or ``args.order.customer.id``.

    The first step is a parameter of the task's function, whether it is given by position, by name or by its
    default; each other one is the key of a mapping, the attribute of an object or the index of a list.

    Args:
        text: The path.
        task: The task's name, for messages.
        function: What is called.
        option: What the path was given as, for messages.

    Raises:
        ConfigError: The function has no such parameter, or the path is none.
    """

    def __init__(self, text: str, task: str, function: Callable[..., Any], option: str = "per") -> None:
        root, *steps = str(text).split(".")
        if root != _ROOT or not all(steps) or not steps:
            raise ConfigError(
                f"Task {task}: {option}={text!r} is no path to an argument; that looks like 'args.tenant_id'."
            )
        self.text: str = text
        self._task = task
        self._option = option
        self._first, *self._steps = steps
        # Loading `inspect` takes 7 ms: only those who count by a key shall pay for it.
        inspect: Any = importlib.import_module("inspect")
        self._signature: Any = inspect.signature(function)
        kinds = {name: parameter.kind for name, parameter in self._signature.parameters.items()}
        rest = inspect.Parameter.VAR_KEYWORD
        self._rest: str | None = next((name for name, kind in kinds.items() if kind is rest), None)
        if self._first not in kinds and self._rest is None:
            raise ConfigError(
                f"Task {task}: {option}={text!r} names no parameter of its function, which has "
                f"{', '.join(kinds) or 'none'}."
            )

    def key(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        """Return the key of a call.

        Raises:
            UsageError: The arguments do not have it, or it is nothing that could be a key.
        """
        value = self._argument(args, kwargs)
        for step in self._steps:
            try:
                value = _inside(value, step)
            except (LookupError, AttributeError, ValueError, TypeError) as exc:
                raise UsageError(
                    f"The call of task {self._task} was not sent: its arguments do not have "
                    f"{self.text} ({self._option}=), for {step!r} is missing in a {type(value).__name__}."
                ) from exc
        if not isinstance(value, _PLAIN):
            raise UsageError(
                f"The call of task {self._task} was not sent: {self.text} ({self._option}=) is a "
                f"{type(value).__name__}; a key is text, a number, a UUID, a date, an enum or None."
            )
        text = str(value.value if isinstance(value, enum.Enum) else value)
        if len(text) <= _MOST_CHARACTERS:
            return text
        return uuid.uuid5(uuid.NAMESPACE_OID, text).hex

    def _argument(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        try:
            bound = self._signature.bind(*args, **kwargs)
        except TypeError as exc:
            raise UsageError(
                f"The call of task {self._task} was not sent: {self.text} ({self._option}=) is not in it: "
                f"{exc}."
            ) from exc
        bound.apply_defaults()
        if self._first in bound.arguments and self._first != self._rest:
            return bound.arguments[self._first]
        rest = bound.arguments.get(self._rest) or {}
        if self._first not in rest:
            raise UsageError(
                f"The call of task {self._task} was not sent: its arguments do not have {self.text} "
                f"({self._option}=)."
            )
        return rest[self._first]


def _inside(value: Any, step: str) -> Any:
    if isinstance(value, Mapping):
        return value[step]
    if isinstance(value, (list, tuple)) and not hasattr(value, step):
        return value[int(step)]
    return getattr(value, step)
