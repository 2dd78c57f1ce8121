"""Warnings of what goes away."""

from __future__ import annotations

import warnings
from collections.abc import Callable as _Callable
from functools import wraps
from typing import Any

from celery.exceptions import CDeprecationWarning, CPendingDeprecationWarning

__all__ = ("Callable", "Property", "warn")


def warn(
    description: str | None = None,
    deprecation: str | None = None,
    removal: str | None = None,
    alternative: str | None = None,
    stacklevel: int = 2,
) -> None:
    """Warn that something goes away.

    Args:
        description: What it is.
        deprecation: The version in which it becomes deprecated; then the warning is a pending one.
        removal: The version in which it is removed.
        alternative: What to do instead.
        stacklevel: Whose line the warning is about.
    """
    until = f"removal in version {removal}" if removal else "removal"
    advice = f" {alternative}" if alternative else ""
    if deprecation is not None:
        text = f"{description} is scheduled for deprecation in version {deprecation} and {until}.{advice}"
        warnings.warn(text, CPendingDeprecationWarning, stacklevel=stacklevel)
    else:
        warnings.warn(
            f"{description} is deprecated and scheduled for {until}.{advice}", CDeprecationWarning, stacklevel
        )


def Callable(  # noqa: N802 - Celery's name
    deprecation: str | None = None,
    removal: str | None = None,
    alternative: str | None = None,
    description: str | None = None,
) -> _Callable[[_Callable[..., Any]], _Callable[..., Any]]:
    """Return a decorator of a function that warns when it is called; arguments as for `warn`."""

    def decorate(fun: _Callable[..., Any]) -> _Callable[..., Any]:
        @wraps(fun)
        def call(*args: Any, **kwargs: Any) -> Any:
            warn(
                description or f"{fun.__module__}.{fun.__qualname__}",
                deprecation,
                removal,
                alternative,
                stacklevel=3,
            )
            return fun(*args, **kwargs)

        return call

    return decorate


def Property(  # noqa: N802 - Celery's name
    deprecation: str | None = None,
    removal: str | None = None,
    alternative: str | None = None,
    description: str | None = None,
) -> _Callable[[_Callable[[Any], Any]], property]:
    """Return a decorator of a property that warns when it is read; arguments as for `warn`."""
    decorate = Callable(deprecation, removal, alternative, description)
    return lambda fun: property(decorate(fun))
