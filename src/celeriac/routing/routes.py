"""What `task_routes` may hold, made into routers that are all asked the same way."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from celeriac.errors import ConfigError
from celeriac.settings.load import import_by_name

Options = dict[str, Any]  # Any: the values of `apply_async` options


class Ask(Protocol):
    """Asks one router for the options of a task; None when it has nothing to say about it."""

    def __call__(
        self,
        name: str,
        args: Sequence[Any] | None,  # Any: the user's values
        kwargs: Mapping[str, Any] | None,  # Any: the user's values
        options: Mapping[str, Any],  # Any: option values
        task: object,
    ) -> Options | None:
        """Return the options that the route adds."""
        ...


class Table:
    """Routes by the task's name: exact names first, then globs and regular expressions in their order.

    A ``*`` stands for one or more characters. A pattern has to match at the beginning of the name only, as
    Celery has it.

    Args:
        entries: Pairs of a name, glob or compiled regular expression with what the route says.
    """

    def __init__(self, entries: Iterable[tuple[Any, Any]]) -> None:  # Any: users' keys and values
        self._exact: dict[str, Options] = {}
        self._patterns: list[tuple[re.Pattern[str], Options]] = []
        for key, value in entries:
            options = route_options(value, f"task_routes[{key!r}]") or {}
            if isinstance(key, re.Pattern):
                self._patterns.append((key, options))
            elif not isinstance(key, str):
                raise ConfigError(
                    f"task_routes has the key {key!r}; keys are names, globs or regular expressions."
                )
            elif "*" in key:
                self._patterns.append((re.compile(".+?".join(map(re.escape, key.split("*")))), options))
            else:
                self._exact[key] = options

    def __call__(
        self,
        name: str,
        args: Sequence[Any] | None = None,  # Any: the user's values
        kwargs: Mapping[str, Any] | None = None,  # Any: the user's values
        options: Mapping[str, Any] | None = None,  # Any: option values
        task: object = None,
    ) -> Options | None:
        """Return the options of the first entry that fits."""
        if name in self._exact:
            return self._exact[name]
        return next((found for pattern, found in self._patterns if pattern.match(name)), None)

    def queues(self) -> list[str]:
        """Return the names of the queues that entries send to."""
        every = [*self._exact.values(), *(options for _, options in self._patterns)]
        return [name for options in every if isinstance(name := options.get("queue"), str)]


def route_options(value: Any, where: str) -> Options | None:  # Any: a user's value
    """Return what a route says as options: a bare text is the name of a queue.

    Raises:
        ConfigError: It is neither a text, a dict nor None; says where it came from.
    """
    if value is None:
        return None
    if isinstance(value, str):
        return {"queue": value}
    if isinstance(value, Mapping):
        return dict(value)
    raise ConfigError(f"{where} is {value!r}; a route is the name of a queue, or a dict of options.")


def routers(value: Any) -> list[Ask]:  # Any: the user's task_routes
    """Return the routers in a `task_routes` setting, in the order in which they are asked.

    Raises:
        ConfigError: Something in it is no router.
        ImportError: A dotted name cannot be imported.
    """
    if value is None:
        return []
    if not isinstance(value, (list, tuple)):
        return [_router(value)]
    if value and all(_is_pair(item) for item in value):
        return [Table(value)]
    return [_router(item) for item in value]


def _is_pair(value: object) -> bool:
    return (
        isinstance(value, (list, tuple))
        and len(value) == 2
        and isinstance(value[0], (str, re.Pattern))
        and (value[1] is None or isinstance(value[1], (str, Mapping)))
    )


def _router(value: Any) -> Ask:  # Any: one item of task_routes
    if isinstance(value, str):
        value = import_by_name(value)
        if isinstance(value, type) and hasattr(value, "route_for_task"):
            value = value()
    if isinstance(value, Mapping):
        return Table(value.items())
    if isinstance(value, (list, tuple)):
        return Table(value)
    if isinstance(value, type) and hasattr(value, "route_for_task"):
        value = value()
    if hasattr(value, "route_for_task"):
        return _by_method(value.route_for_task)
    if callable(value):
        return _by_function(value)
    raise ConfigError(
        f"task_routes holds {value!r}; a router is a dict, a list of pairs, a function, "
        "an object with `route_for_task`, or the dotted name of one of these."
    )


def _by_function(function: Callable[..., Any]) -> Ask:  # Any: the user's function
    def ask(
        name: str,
        args: Sequence[Any] | None,  # Any: the user's values
        kwargs: Mapping[str, Any] | None,  # Any: the user's values
        options: Mapping[str, Any],  # Any: option values
        task: object,
    ) -> Options | None:
        return route_options(function(name, args, kwargs, options, task=task), f"The route of {name!r}")

    return ask


def _by_method(method: Callable[..., Any]) -> Ask:  # Any: the user's method
    def ask(
        name: str,
        args: Sequence[Any] | None,  # Any: the user's values
        kwargs: Mapping[str, Any] | None,  # Any: the user's values
        options: Mapping[str, Any],  # Any: option values
        task: object,
    ) -> Options | None:
        return route_options(method(name, args, kwargs), f"The route of {name!r}")

    return ask
