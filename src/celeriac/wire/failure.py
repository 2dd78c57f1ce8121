"""Exceptions in results: to the dict that Celery's clients expect, and back without running anything."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import lru_cache
from types import ModuleType
from typing import Any, Final

from celeriac.codecs.foreign import CLASSES, NAMES, UnpickleableError
from celeriac.codecs.registry import Codecs
from celeriac.errors import CodecError, SecurityError, TaskError, TransportError
from celeriac.saferepr import saferepr

_NO_MODULE: Final = "celery.backends.base"  # where Celery puts the classes whose module is not told


class StandIn(Exception):
    """Root of the exceptions that are rebuilt without their class, which this process has not imported.

    They have the class's name and module, and the arguments; pickle can carry them.
    """

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """Rebuild from names, as the class itself cannot be imported anywhere."""
        return _rebuild, (type(self).__module__, type(self).__qualname__, self.args)


@lru_cache(maxsize=512)  # the same class each time, so that `type(a) is type(b)` holds within a process
def stand_in(module: str, qualname: str) -> type[StandIn]:
    """Return an exception class that only has the name of the one that is not here."""
    plain = all(part.isidentifier() for part in qualname.replace("<locals>", "locals").split("."))
    cls = type(qualname.rpartition(".")[2] if plain else "UnreadableName", (StandIn,), {"__module__": module})
    cls.__qualname__ = qualname if plain else "UnreadableName"
    return cls


def _rebuild(module: str, qualname: str, args: tuple[Any, ...]) -> StandIn:
    return stand_in(module, qualname)(*args)


def exception_to_wire(exc: BaseException, codecs: Codecs, serializer: str = "json") -> dict[str, Any]:
    """Return the dict that stands for an exception in every serializer but pickle.

    Our own errors go under the names that Celery has for them. An argument that the serializer refuses is
    replaced by its repr.
    """
    cls = type(exc)
    module, qualname = NAMES.get(cls) or (cls.__module__, cls.__qualname__)
    if isinstance(exc, TransportError):  # and what derives from it, which peers do not know
        module, qualname = NAMES[TransportError]
    args = list(exc.args)
    try:
        codecs.encode(args, serializer)
    except CodecError:
        args = [_encodable(arg, codecs, serializer) for arg in args]
    return {"exc_type": qualname, "exc_message": args, "exc_module": module}


def _encodable(arg: Any, codecs: Codecs, serializer: str) -> Any:
    try:
        codecs.encode(arg, serializer)
    except CodecError:
        return saferepr(arg)
    return arg


def exception_for_pickle(exc: BaseException, codecs: Codecs) -> BaseException:
    """Return the exception itself when pickle can carry it there and back, else a stand-in that can."""
    try:
        back = codecs.decode(
            codecs.encode(exc, "pickle")[2],
            codecs.content_type("pickle"),
            "binary",
            frozenset([codecs.content_type("pickle")]),
        )
    except CodecError:
        back = None
    if type(back) is type(exc):
        return exc
    args = tuple(_encodable(arg, codecs, "pickle") for arg in exc.args)
    return UnpickleableError(type(exc).__module__, type(exc).__qualname__, args, saferepr(exc))


def exception_from_wire(value: Any) -> BaseException:  # Any: whatever is stored as the result
    """Return the exception that a result stands for.

    Nothing is imported and no attribute is asked for but classes by their own name in modules that are
    already loaded. An exception whose class is not here becomes a `StandIn`, and so does one that is no
    ``Exception``: a result must not end whoever reads it, as ``SystemExit`` would. One whose class does not
    take the arguments becomes a plain ``Exception`` that shows both.

    Raises:
        SecurityError: The name belongs to something else than an exception class.
    """
    if isinstance(value, UnpickleableError):
        return stand_in(value.exc_module, value.exc_cls_name)(*value.exc_args)
    if isinstance(value, BaseException):
        return value
    if not isinstance(value, dict) or not isinstance(value.get("exc_type"), str):
        return TaskError(value)  # a failure stored by hand with some other value
    module, qualname = value.get("exc_module"), value["exc_type"]
    message = value.get("exc_message", "")
    args = tuple(message) if isinstance(message, (list, tuple)) else (message,)
    if not isinstance(module, str) or not module:
        return stand_in(_NO_MODULE, qualname)(*args)
    cls = CLASSES.get((module, qualname)) or _loaded(module, qualname)
    if cls is None:
        return stand_in(module, qualname)(*args)
    if not isinstance(cls, type) or not issubclass(cls, BaseException):
        raise SecurityError(
            f"Expected an exception class, got {module}.{qualname} with payload {message!r:.200}"
        )
    if not issubclass(cls, Exception):
        return stand_in(module, qualname)(*args)
    try:
        return cls(*args)
    except Exception:  # noqa: BLE001 - the constructor is the user's and may have grown other arguments
        return Exception(f"{cls}({saferepr(message)})")


def _loaded(module: str, qualname: str) -> Any:
    """Return what has that name in a loaded module; None when nothing has.

    Only classes are walked through: for `os.system` in a module that imports os, that is the module os,
    which is no exception class.
    """
    found: Any = sys.modules.get(module)
    for name in qualname.split("."):
        if found is None or not isinstance(found, (ModuleType if found is sys.modules.get(module) else type)):
            return found
        found = vars(found).get(name)
    return found
