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

_LARGEST_BYTES: Final = 200_000  # of an exception's arguments: a result store is no place for megabytes
_LARGEST_CHARS: Final = 16_000  # of one of them, when they are too large
_MOST_ARGS: Final = 64
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
    args = _args_of(exc)
    try:
        if len(codecs.encode(args, serializer)[2]) > _LARGEST_BYTES:
            args = [_small(arg, codecs, serializer) for arg in _few(args)]
    except CodecError:
        args = [_small(arg, codecs, serializer) for arg in _few(args)]
    wire: dict[str, Any] = {"exc_type": qualname, "exc_message": args, "exc_module": module}
    if not args and (text := _text_of(exc)):
        wire["exc_text"] = text  # ours: classes that tell their base nothing would come back without a word
    return wire


def _args_of(exc: BaseException) -> list[Any]:
    try:
        return list(exc.args)
    except Exception:  # noqa: BLE001 - the class is the user's
        return []


def _text_of(exc: BaseException) -> str:
    try:
        text = str(exc)
    except Exception:  # noqa: BLE001 - the class is the user's
        return ""
    return text[:_LARGEST_CHARS]


def _few(args: list[Any]) -> list[Any]:
    if len(args) <= _MOST_ARGS:
        return args
    return [*args[:_MOST_ARGS], f"... {len(args) - _MOST_ARGS} more"]


def _small(arg: Any, codecs: Codecs, serializer: str) -> Any:
    """Return an argument that the serializer takes and that is not large: cut, or its repr."""
    if isinstance(arg, str) and len(arg) > _LARGEST_CHARS:
        arg = f"{arg[:_LARGEST_CHARS]}... ({len(arg)} characters)"
    try:
        size = len(codecs.encode(arg, serializer)[2])
    except CodecError:
        size = _LARGEST_BYTES
    return arg if size < _LARGEST_CHARS * 6 else saferepr(arg, _LARGEST_CHARS)


def exception_for_pickle(exc: BaseException, codecs: Codecs) -> BaseException:
    """Return the exception itself when pickle can carry it there and back, else a stand-in that can."""
    if _pickles(exc, codecs):
        return exc
    args = tuple(_small(arg, codecs, "pickle") for arg in _few(_args_of(exc)))
    smaller = _without_its_constructor(type(exc), args)
    if smaller is not None and _pickles(smaller, codecs):
        return smaller
    return UnpickleableError(str(type(exc).__module__), type(exc).__qualname__, args, saferepr(exc))


def _pickles(exc: BaseException, codecs: Codecs) -> bool:
    """Return whether an exception comes out of pickle as what it was, and is not huge."""
    try:
        content_type, encoding, data = codecs.encode(exc, "pickle")
        if len(data) > _LARGEST_BYTES:
            return False
        back = codecs.decode(data, content_type, encoding, frozenset([content_type]))
    except CodecError:
        return False
    return type(back) is type(exc) and bool(_args_of(exc) or _text_of(back) or not _text_of(exc))


def exception_from_wire(value: Any) -> BaseException:  # Any: whatever is stored as the result
    """Return the exception that a result stands for.

    Nothing is imported and no attribute is asked for but classes by their own name in modules that are
    already loaded. An exception whose class is not here becomes a `StandIn`, and so does one that is no
    ``Exception``: a result must not end whoever reads it, as ``SystemExit`` would. One whose class does not
    take the arguments is made past its constructor, so that it is caught by its class; where even that does
    not give an exception with a text, it becomes a plain ``Exception`` that shows both.

    Raises:
        SecurityError: The name belongs to something else than an exception class.
    """
    if isinstance(value, UnpickleableError):
        return stand_in(value.exc_module, value.exc_cls_name)(*value.exc_args or (value.text,))
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
    text = value.get("exc_text")
    try:
        made = cls(*args)
    except Exception:  # noqa: BLE001 - the constructor is the user's and may have grown other arguments
        text = text if isinstance(text, str) else None
        found = _without_its_constructor(cls, args or (() if text is None else (text,)))
        return (
            found if found is not None else Exception(f"{cls}({saferepr(message if text is None else text)})")
        )
    return made


def _without_its_constructor(cls: type[BaseException], args: tuple[Any, ...]) -> BaseException | None:
    """Return an exception whose class does not take its own arguments; None when it has no text then."""
    try:
        made = cls.__new__(cls)
        made.args = args
        str(made), repr(made)
    except Exception:  # noqa: BLE001 - it may need what only its constructor sets
        return None
    return made if type(made) is cls else None


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
