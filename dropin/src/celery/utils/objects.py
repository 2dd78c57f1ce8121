"""Small objects."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import reduce
from typing import Any

__all__ = ("Bunch", "FallbackContext", "getitem_property", "mro_lookup")


class Bunch:
    """Has the attributes that it is made with."""

    def __init__(self, **kwargs: Any) -> None:
        self.__dict__.update(kwargs)


def mro_lookup(
    cls: type, attr: str, stop: Iterable[type] | None = None, monkey_patched: Iterable[str] | None = None
) -> type | None:
    """Return the class among a class and its bases that defines an attribute.

    Args:
        cls: The class.
        attr: The attribute's name.
        stop: Where to end without an answer.
        monkey_patched: Modules whose functions count as the class's own, at a class where to end.
    """
    stops = set(stop or ())
    patched = set(monkey_patched or ())
    for one in cls.__mro__:
        if one in stops:
            module = getattr(one.__dict__.get(attr), "__module__", None)
            return one if attr in one.__dict__ and patched and module not in patched else None
        if attr in one.__dict__:
            return one
    return None


class FallbackContext:
    """A context that gives what is provided, or makes it and closes it at the end.

    Args:
        provided: What to give, or None.
        fallback: Makes it, as a context.
        *fb_args: For ``fallback``.
        **fb_kwargs: For ``fallback``.
    """

    def __init__(self, provided: Any, fallback: Callable[..., Any], *fb_args: Any, **fb_kwargs: Any) -> None:
        self.provided = provided
        self.fallback = fallback
        self.fb_args = fb_args
        self.fb_kwargs = fb_kwargs
        self._context: Any = None

    def __enter__(self) -> Any:  # Any: what was provided or made
        if self.provided is not None:
            return self.provided
        self._context = self.fallback(*self.fb_args, **self.fb_kwargs)
        return self._context.__enter__()

    def __exit__(self, *exc_info: object) -> Any:
        if self._context is not None:
            return self._context.__exit__(*exc_info)
        return None


class getitem_property:  # noqa: N801 - Celery's name
    """An attribute that is an item of the object, or of a mapping in it.

    Args:
        keypath: ``item``, or ``outer.item``.
        doc: What it says of itself.
    """

    def __init__(self, keypath: str, doc: str | None = None) -> None:
        self.path: str
        self.key: str
        self.path, _, self.key = keypath.rpartition(".")
        self.__doc__ = doc

    def _mapping(self, obj: Any) -> Any:
        return reduce(lambda inner, name: inner[name], self.path.split("."), obj) if self.path else obj

    def __get__(self, obj: Any, type: Any = None) -> Any:
        return self if obj is None else self._mapping(obj).get(self.key)

    def __set__(self, obj: Any, value: Any) -> None:
        self._mapping(obj)[self.key] = value
