"""Apps, and tasks that belong to every app."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, cast, overload

from celeriac.declaration import BoundTaskDecorator, TaskDecorator
from celeriac.task import Task
from celery._state import (
    _get_active_apps,
    app_or_default,
    default_app,
    get_current_app,
    name_in,
    pop_current_task,
    push_current_task,
    share,
)
from celery.app.base import Celery
from celery.local import Proxy

if TYPE_CHECKING:
    from celeriac.declaration import CoroutineTask

__all__ = (
    "Celery",
    "app_or_default",
    "bugreport",
    "default_app",
    "pop_current_task",
    "push_current_task",
    "shared_task",
)

P = ParamSpec("P")
R = TypeVar("R")


@overload
def shared_task(fun: Callable[P, Coroutine[Any, Any, R]], /) -> CoroutineTask[P, R]: ...


@overload
def shared_task(fun: Callable[P, R], /) -> Task[P, R]: ...


@overload
def shared_task(*, bind: Literal[True], **options: Any) -> BoundTaskDecorator: ...


@overload
def shared_task(*, bind: Literal[False] = ..., **options: Any) -> TaskDecorator: ...


def shared_task(*args: Any, **options: Any) -> Any:
    """Make a task of a function for every app, those included that are made later.

    What it returns stands for the task of the app that is current when it is used.

    Args:
        *args: The function, when used without arguments.
        **options: As for ``@app.task``.

    Raises:
        TypeError: The positional argument is no function, or there are several.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        add = share(function, options)
        for app in _get_active_apps():
            if app.finalized:
                add(app)

        def of_current_app() -> Any:
            app = get_current_app()
            return app.tasks[options.get("name") or name_in(app, function)]

        return cast("Task[..., Any]", Proxy(of_current_app))

    if not args:
        return decorate
    if len(args) > 1:
        raise TypeError(f"@shared_task takes one argument, the function; {len(args)} were given")
    if not callable(args[0]):
        raise TypeError("argument 1 to @shared_task must be a callable")
    return decorate(args[0])


def __getattr__(name: str) -> Any:  # Any: a function
    if name == "bugreport":  # what it needs takes longer to import than all the rest
        return importlib.import_module("celery.app.utils").bugreport
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
