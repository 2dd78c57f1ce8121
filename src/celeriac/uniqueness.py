"""Which calls of a task are the same, so that one of them keeps the others out. Pure."""

from __future__ import annotations

import importlib
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from celeriac.errors import ConfigError, EncodeError, UsageError
from celeriac.keypath import KeyPath

UNTIL_STARTED: Final = "until_started"
UNTIL_DONE: Final = "until_done"
_MODES: Final = (UNTIL_STARTED, UNTIL_DONE)
_OPTIONS: Final = ("unique", "debounce", "throttle")
_MOST_CHARACTERS: Final = 200  # of a key; it is part of the names of things in a store


class Uniqueness:
    """What a task says about calls that are the same.

    Args:
        task: The task; see `of_task`.

    Raises:
        ConfigError: A path names no parameter of the function.
    """

    def __init__(self, task: Any) -> None:  # Any: a Task, whose module is upstairs
        self._task = task
        self.mode: str = task.unique if task.unique in _MODES else ""  # until when a call keeps others out
        self.debounce_seconds: float = float(task.debounce or 0.0)  # above 0: it keeps out those before it
        # Counted from the call; 0: something else says until when.
        self.window_seconds: float = 0.0 if self.mode else float(task.throttle or task.unique or 0.0)
        paths = task.unique_on
        self._paths = (
            None if paths is None else [KeyPath(path, task.name, task.run, "unique_on") for path in paths]
        )
        self._signature: Any = None  # Any: see `_all`

    @property
    def lock_seconds(self) -> float:
        """How long a call that no worker runs keeps others out, at most."""
        return float(self._task.lock_seconds)

    def name(self, args: Sequence[Any], kwargs: Mapping[str, Any], encode: Callable[[Any], bytes]) -> str:
        """Return the name that a call shares with those that are the same.

        Args:
            args: Its positional arguments.
            kwargs: Its keyword arguments.
            encode: Makes JSON of all of them, where ``unique_on`` names none.

        Raises:
            UsageError: The arguments do not have what ``unique_on`` names, or cannot be compared.
        """
        if self._paths is None:
            key = self._all(args, kwargs, encode)
        elif len(self._paths) == 1:
            key = self._paths[0].key(args, kwargs)
        else:
            key = json.dumps([path.key(args, kwargs) for path in self._paths])
        if len(key) > _MOST_CHARACTERS:
            key = uuid.uuid5(uuid.NAMESPACE_OID, key).hex
        return f"{self._task.name}[{key}]"

    def _all(self, args: Sequence[Any], kwargs: Mapping[str, Any], encode: Callable[[Any], bytes]) -> str:
        """Return all arguments as text: the same, however they are given."""
        if self._signature is None:
            # Loading `inspect` takes 7 ms: only those who have unique tasks shall pay for it.
            inspect: Any = importlib.import_module("inspect")
            self._signature = inspect.signature(self._task.run)
        try:
            bound = self._signature.bind(*args, **kwargs)
            bound.apply_defaults()
            plain = json.loads(encode(dict(bound.arguments)))
        except (TypeError, EncodeError) as exc:
            raise UsageError(
                f"The call of task {self._task.name} was not sent: its arguments cannot be compared with "
                f"those of others ({exc}); name what to compare: unique_on=['args.id']."
            ) from exc
        return json.dumps(plain, sort_keys=True, separators=(",", ":"))


def of_task(task: Any) -> Uniqueness | None:  # Any: as above
    """Look at what a task was declared with, and return what it says about calls that are the same.

    Raises:
        ConfigError: It makes no sense.
    """
    given = [option for option in _OPTIONS if getattr(task, option) is not None]
    if task.unique is not None and task.unique not in _MODES and not _is_seconds(task.unique):
        raise ConfigError(
            f"Task {task.name}: unique={task.unique!r} is neither 'until_started', nor 'until_done', nor a "
            "number of seconds above 0."
        )
    for option in ("debounce", "throttle", "lock_seconds"):
        value = getattr(task, option)
        if value is not None and not _is_seconds(value):
            raise ConfigError(f"Task {task.name}: {option}={value!r} is no number of seconds above 0.")
    if len(given) > 1:
        raise ConfigError(f"Task {task.name}: it has {' and '.join(given)}; there can be one of them.")
    paths = task.unique_on
    if paths is not None and (isinstance(paths, str) or not paths or not isinstance(paths, Sequence)):
        raise ConfigError(
            f"Task {task.name}: unique_on={paths!r} is no list of paths such as ['args.tenant_id']."
        )
    if paths is not None and not given:
        raise ConfigError(
            f"Task {task.name}: unique_on={paths!r} has nothing to tell apart: there is none of "
            f"{', '.join(_OPTIONS)}."
        )
    return Uniqueness(task) if given else None


def _is_seconds(value: Any) -> bool:  # Any: whatever was written
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < float("inf")
