"""Arguments and return values that are pydantic models: ``@app.task(pydantic=True)``."""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from celeriac.errors import ConfigError

Function = Callable[..., Any]  # Any: the user's function


def validating(
    fun: Function,
    *,
    app: Any,  # Any: a Celeriac, whose module imports this one
    name: str,
    strict: bool = False,
    context: Mapping[str, Any] | None = None,
    dump_kwargs: Mapping[str, Any] | None = None,
) -> Function:
    """Return a function that makes models of the arguments annotated so, and plain data of a returned one.

    Args:
        fun: The function.
        app: The app; validators find it in their context as ``celery_app``.
        name: The task's name; validators find it as ``celery_task_name``.
        strict: Do not convert types.
        context: More for the context of validators.
        dump_kwargs: Options of ``model_dump`` for the returned model.

    Raises:
        ConfigError: pydantic is not installed.
    """
    try:
        from pydantic import BaseModel
    except ImportError as exc:
        raise ConfigError("pydantic=True needs the package pydantic: pip install celeriac[pydantic]") from exc
    signature = inspect.signature(fun)
    hints = typing.get_type_hints(fun)
    models = {
        parameter: model
        for parameter in signature.parameters
        if (model := _model(hints.get(parameter), BaseModel)) is not None
    }
    returned = _model(hints.get("return"), BaseModel)
    seen = {**(context or {}), "celery_app": app, "celery_task_name": name}

    def arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> inspect.BoundArguments:
        bound = signature.bind(*args, **kwargs)
        for parameter, model in models.items():
            value = bound.arguments.get(parameter)
            if value is not None:
                bound.arguments[parameter] = model.model_validate(value, strict=strict or None, context=seen)
        return bound

    def plain(value: Any) -> Any:
        if returned is not None and isinstance(value, returned):
            return value.model_dump(mode="json", **(dump_kwargs or {}))
        return value

    if inspect.iscoroutinefunction(fun):

        @functools.wraps(fun)
        async def run_async(*args: Any, **kwargs: Any) -> Any:
            bound = arguments(args, kwargs)
            return plain(await fun(*bound.args, **bound.kwargs))

        return run_async

    @functools.wraps(fun)
    def run(*args: Any, **kwargs: Any) -> Any:
        bound = arguments(args, kwargs)
        return plain(fun(*bound.args, **bound.kwargs))

    return run


def _model(annotation: Any, base: type[Any]) -> Any:
    """Return the model that an annotation names, ``Model | None`` included; None when it names none."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        members = [member for member in typing.get_args(annotation) if member is not type(None)]
        annotation = members[0] if len(members) == 1 else None
    is_model = inspect.isclass(annotation) and issubclass(annotation, base)
    return annotation if is_model else None
