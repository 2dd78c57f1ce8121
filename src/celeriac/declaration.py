"""Making the class of a task from a function, and what type checkers have to know of it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

from celeriac.task import Task

P = ParamSpec("P")
R = TypeVar("R")

if TYPE_CHECKING:
    R_co = TypeVar("R_co", covariant=True)

    class CoroutineTask(Task[P, R_co]):
        """The task of an ``async def`` function: its results are what the coroutine returns."""

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]:  # type: ignore[override]  # run here, it has to be awaited
            """Return the coroutine."""
            ...


class TaskDecorator(Protocol):
    """What ``@app.task(...)`` returns."""

    @overload
    def __call__(self, fun: Callable[P, Coroutine[Any, Any, R]], /) -> CoroutineTask[P, R]: ...

    @overload
    def __call__(self, fun: Callable[P, R], /) -> Task[P, R]: ...


class BoundTaskDecorator(Protocol):
    """What ``@app.task(bind=True, ...)`` returns: callers of the task do not give the first argument."""

    @overload
    def __call__(
        self, fun: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]], /
    ) -> CoroutineTask[P, R]: ...

    @overload
    def __call__(self, fun: Callable[Concatenate[Any, P], R], /) -> Task[P, R]: ...


def task_class(
    app: Any,  # Any: a Celeriac, whose module imports this one
    fun: Callable[..., Any],
    name: str,
    base: type[Any],
    *,
    bind: bool,
    options: dict[str, Any],
) -> type[Any]:
    """Return a subclass of a task class that runs a function and has options as its attributes.

    Args:
        app: The app.
        fun: The function.
        name: The task's name.
        base: The task class.
        bind: Whether the task comes first among the function's arguments.
        options: Attributes, and ``pydantic`` with its like, which are taken out.
    """
    run = fun
    if options.pop("pydantic", False):
        # Loaded only now: it is for those who have pydantic.
        run = importlib.import_module("celeriac.validation").validating(
            fun,
            app=app,
            name=name,
            strict=options.pop("pydantic_strict", False),
            context=options.pop("pydantic_context", None),
            dump_kwargs=options.pop("pydantic_dump_kwargs", None),
        )
    own_name = getattr(fun, "__name__", type(fun).__name__)
    attributes = {
        "_app": app,
        "name": name,
        "run": run if bind else staticmethod(run),
        "_decorated": True,
        "__doc__": fun.__doc__,
        "__module__": fun.__module__,
        "__annotations__": getattr(fun, "__annotations__", {}),
        "__wrapped__": staticmethod(fun),
        "__qualname__": getattr(fun, "__qualname__", own_name),
        **options,
    }
    return type(own_name, (base,), attributes)
