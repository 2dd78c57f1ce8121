"""Stand-ins for objects that are looked up anew at every use."""

from __future__ import annotations

import importlib
import operator
from collections.abc import Callable
from typing import Any

__all__ = ["PromiseProxy", "Proxy", "maybe_evaluate", "try_import"]


class Proxy:
    """Behaves as whatever a function returns at the moment: the current app, the current task.

    ``isinstance`` sees the class of that object; ``type`` sees this one.

    Args:
        local: Returns the object; called with ``args`` and ``kwargs`` at every use.
        args: For it.
        kwargs: For it.
        name: The proxy's own ``__name__``, while the object cannot be asked.
        __doc__: The proxy's own documentation.
    """

    __slots__ = ("__dict__", "_proxy_args", "_proxy_kwargs", "_proxy_local")

    def __init__(
        self,
        local: Callable[..., Any],  # Any: the object behind
        args: tuple[Any, ...] | None = None,  # Any: for `local`
        kwargs: dict[str, Any] | None = None,  # Any: for `local`
        name: str | None = None,
        __doc__: str | None = None,
    ) -> None:
        set_own = object.__setattr__
        set_own(self, "_proxy_local", local)
        set_own(self, "_proxy_args", args or ())
        set_own(self, "_proxy_kwargs", kwargs or {})
        if name is not None:
            set_own(self, "__custom_name__", name)
        if __doc__ is not None:
            set_own(self, "__custom_doc__", __doc__)

    def _get_current_object(self) -> Any:  # Any: the object behind
        """Return the object that it stands for now."""
        local: Callable[..., Any] = object.__getattribute__(self, "_proxy_local")
        args = object.__getattribute__(self, "_proxy_args")
        kwargs = object.__getattribute__(self, "_proxy_kwargs")
        return local(*args, **kwargs)

    @property  # type: ignore[misc]  # read only: the object behind has its own
    def __class__(self) -> Any:  # Any: the class of the object behind
        return self._get_current_object().__class__

    @property
    def __name__(self) -> Any:  # Any: text, as the object has it
        own = object.__getattribute__(self, "__dict__").get("__custom_name__")
        return own if own is not None else self._get_current_object().__name__

    @property
    def __module__(self) -> Any:  # type: ignore[override]
        return self._get_current_object().__module__

    @property
    def __doc__(self) -> Any:  # type: ignore[override]
        own = object.__getattribute__(self, "__dict__").get("__custom_doc__")
        return own if own is not None else self._get_current_object().__doc__

    @property
    def __wrapped__(self) -> Any:  # Any: what the object behind wraps
        return self._get_current_object().__wrapped__

    def __getattr__(self, name: str) -> Any:  # Any: the object's attribute
        return getattr(self._get_current_object(), name)

    def __setattr__(self, name: str, value: Any) -> None:  # Any: the object's attribute
        setattr(self._get_current_object(), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._get_current_object(), name)

    def __dir__(self) -> list[str]:
        return dir(self._get_current_object())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # Any: the object's own arguments
        return self._get_current_object()(*args, **kwargs)

    def __repr__(self) -> str:
        try:
            current = self._get_current_object()
        except RuntimeError:  # nothing is bound: a debugger has to be able to show the proxy all the same
            return f"<{type(self).__name__} unbound>"
        return repr(current)

    def __str__(self) -> str:
        return str(self._get_current_object())

    def __bool__(self) -> bool:
        return bool(self._get_current_object())

    def __hash__(self) -> int:
        return hash(self._get_current_object())

    def __reduce__(self) -> Any:  # Any: as pickle has it
        return self._get_current_object().__reduce__()


def _forwarded(name: str) -> Callable[..., Any]:  # Any: as the operator has it
    function: Callable[..., Any] | None = getattr(operator, name, None)

    if function is not None and name not in ("__call__", "__index__"):

        def forward(self: Proxy, *args: Any) -> Any:
            return function(self._get_current_object(), *args)
    else:

        def forward(self: Proxy, *args: Any) -> Any:
            return getattr(self._get_current_object(), name)(*args)

    forward.__name__ = name
    return forward


_FORWARDED = (
    "__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__", "__len__", "__getitem__", "__setitem__",
    "__delitem__", "__contains__", "__iter__", "__next__", "__reversed__", "__add__", "__sub__",
    "__mul__", "__truediv__", "__floordiv__", "__mod__", "__divmod__", "__pow__", "__lshift__",
    "__rshift__", "__and__", "__or__", "__xor__", "__matmul__", "__radd__", "__rsub__", "__rmul__",
    "__rtruediv__", "__rfloordiv__", "__rmod__", "__rand__", "__ror__", "__rxor__", "__ior__",
    "__iadd__", "__neg__", "__pos__", "__abs__", "__invert__", "__int__", "__float__", "__complex__",
    "__index__", "__round__", "__enter__", "__exit__", "__aenter__", "__aexit__", "__await__",
    "__aiter__", "__anext__", "__copy__", "__deepcopy__",
)  # fmt: skip

for _name in _FORWARDED:
    setattr(Proxy, _name, _forwarded(_name))
del _name


class PromiseProxy(Proxy):
    """A proxy whose object is made at its first use and kept from then on."""

    __slots__ = ("_proxy_then", "_proxy_value")

    def _get_current_object(self) -> Any:  # Any: the object behind
        try:
            return object.__getattribute__(self, "_proxy_value")
        except AttributeError:
            return self.__evaluate__()

    def __evaluated__(self) -> bool:
        """Tell whether the object was made."""
        try:
            object.__getattribute__(self, "_proxy_value")
        except AttributeError:
            return False
        return True

    def __maybe_evaluate__(self) -> Any:  # Any: the object behind
        return self._get_current_object()

    def __then__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Call a function with the arguments once the object was made; at once when it was."""
        if self.__evaluated__():
            function(*args, **kwargs)
            return
        try:
            waiting = object.__getattribute__(self, "_proxy_then")
        except AttributeError:
            waiting = []
            object.__setattr__(self, "_proxy_then", waiting)
        waiting.append((function, args, kwargs))

    def __evaluate__(self) -> Any:  # Any: the object behind
        """Make the object and return it."""
        value = super()._get_current_object()
        object.__setattr__(self, "_proxy_value", value)
        try:
            waiting = object.__getattribute__(self, "_proxy_then")
        except AttributeError:
            waiting = []
        while waiting:
            function, args, kwargs = waiting.pop(0)
            function(*args, **kwargs)
        return value


def maybe_evaluate(obj: Any) -> Any:  # Any: what may be a promise
    """Return the object of a promise, and anything else as it is."""
    evaluate = getattr(type(obj), "__maybe_evaluate__", None)
    return obj if evaluate is None else evaluate(obj)


def try_import(module: str, default: Any = None) -> Any:  # Any: a module, or the default
    """Import a module and return it, or the default when it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError:
        return default
