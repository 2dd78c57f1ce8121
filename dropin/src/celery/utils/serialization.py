"""Values and exceptions in a form that can be sent."""

from __future__ import annotations

import base64
import datetime
import numbers
import pickle
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NoReturn

__all__ = (
    "UnpickleableExceptionWrapper",
    "create_exception_cls",
    "find_pickleable_exception",
    "get_pickleable_etype",
    "get_pickleable_exception",
    "get_pickled_exception",
    "strtobool",
    "subclass_exception",
)

Dumps = Callable[[Any], bytes]
Loads = Callable[[bytes], Any]

STRTOBOOL_DEFAULT_TABLE: Final = {
    "false": False,
    "no": False,
    "0": False,
    "off": False,
    "true": True,
    "yes": True,
    "1": True,
    "on": True,
}
unwanted_base_classes: Final = (Exception, BaseException, object)


def subclass_exception(name: str, parent: type, module: str) -> type:
    """Return a new exception class of a name, as if a module had it."""
    return type(name, (parent,), {"__module__": module})


def create_exception_cls(name: str, module: str, parent: type | None = None) -> type:
    """Return a new exception class of a name, as if a module had it; of `Exception` without a parent."""
    return subclass_exception(name, parent or Exception, module)


def itermro(cls: type, stop: Iterable[type]) -> Iterator[type]:
    """Yield the classes that a class is made of, up to one of those given."""
    for one in cls.__mro__:
        if one in stop:
            return
        yield one


def find_pickleable_exception(
    exc: BaseException, loads: Loads = pickle.loads, dumps: Dumps = pickle.dumps
) -> BaseException | None:
    """Return an exception of the nearest base class that can be pickled; None if there is none."""
    for cls in itermro(type(exc), unwanted_base_classes):
        try:
            candidate: BaseException = cls(*getattr(exc, "args", []))
            loads(dumps(candidate))
        except Exception:  # noqa: BLE001, S112 - what classes of programs raise when they are pickled is theirs
            continue
        return candidate
    return None


def get_pickleable_etype(cls: type, loads: Loads = pickle.loads, dumps: Dumps = pickle.dumps) -> type:
    """Return a class that can be pickled: itself, or the nearest base class that can."""
    for one in cls.__mro__:
        try:
            loads(dumps(one))
        except Exception:  # noqa: BLE001, S112 - as above
            continue
        return one
    return Exception


class UnpickleableExceptionWrapper(Exception):
    """Stands for an exception that cannot be pickled.

    Args:
        exc_module: The module of its class.
        exc_cls_name: The name of its class.
        exc_args: Its arguments, those that cannot be pickled as texts.
        text: How it looks.
    """

    def __init__(
        self, exc_module: str, exc_cls_name: str, exc_args: Iterable[Any], text: str | None = None
    ) -> None:
        safe = ensure_serializable(exc_args, pickle.dumps)
        self.exc_module = exc_module
        self.exc_cls_name = exc_cls_name
        self.exc_args = safe
        self.text = text
        super().__init__(exc_module, exc_cls_name, safe, text)

    def restore(self) -> BaseException:
        """Return an exception of a new class of the same name."""
        made: BaseException = create_exception_cls(self.exc_cls_name, self.exc_module)(*self.exc_args)
        return made

    @classmethod
    def from_exception(cls, exc: BaseException) -> UnpickleableExceptionWrapper:
        """Return what stands for an exception."""
        args = getattr(exc, "args", [])
        one = cls(type(exc).__module__, type(exc).__name__, args, repr(exc))
        return one.with_traceback(exc.__traceback__)

    def __str__(self) -> str:
        return self.text or f"{self.exc_cls_name}{self.exc_args!r}"


def ensure_serializable(items: Iterable[Any], encoder: Callable[[Any], Any]) -> tuple[Any, ...]:
    """Return values, those that an encoder refuses as texts."""
    safe = []
    for item in items:
        try:
            encoder(item)
        except Exception:  # noqa: BLE001 - encoders raise what they like
            safe.append(repr(item))
        else:
            safe.append(item)
    return tuple(safe)


def get_pickleable_exception(exc: BaseException) -> BaseException:
    """Return an exception that can be pickled: itself, one of a base class, or what stands for it."""
    try:
        pickle.loads(pickle.dumps(exc))
    except Exception:  # noqa: BLE001 - as in `find_pickleable_exception`
        return find_pickleable_exception(exc) or UnpickleableExceptionWrapper.from_exception(exc)
    return exc


def get_pickled_exception(exc: BaseException) -> BaseException:
    """Return the exception that another one stands for; one that stands for itself as it is."""
    return exc.restore() if isinstance(exc, UnpickleableExceptionWrapper) else exc


def raise_with_context(exc: BaseException) -> NoReturn:
    """Raise an exception, chained to the one that is handled now."""
    raise exc


def b64encode(s: bytes | str) -> str:
    """Return bytes, or a text's in UTF-8, in base 64."""
    return base64.b64encode(s.encode() if isinstance(s, str) else s).decode()


def b64decode(s: bytes | str) -> bytes:
    """Return the bytes of a text in base 64."""
    return base64.b64decode(s)


def strtobool(term: Any, table: dict[str, bool] | None = None) -> Any:  # Any: a text; else as it is
    """Return the truth of a word such as ``yes`` or ``off``; anything that is no text as it is.

    Raises:
        TypeError: The word is none of the table's.
    """
    if not isinstance(term, str):
        return term
    words = STRTOBOOL_DEFAULT_TABLE if table is None else table
    if term.lower() not in words:
        raise TypeError(f"Cannot coerce {term!r} to type bool: it is one of {', '.join(words)}")
    return words[term.lower()]


def jsonify(
    obj: Any,
    builtin_types: tuple[type, ...] = (numbers.Real, str),
    key: str | None = None,
    keyfilter: Callable[[str], bool] | None = None,
    unknown_type_filter: Callable[[Any], Any] | None = None,
) -> Any:  # Any: what JSON has
    """Return a value as JSON has it: dates as texts, tuples as lists.

    Args:
        obj: The value.
        builtin_types: Types that stay as they are.
        key: The key of the value in what it is part of, for the message of an error.
        keyfilter: Tells which keys of mappings to keep.
        unknown_type_filter: Converts a value of a type that JSON has not.

    Raises:
        ValueError: JSON has no such type.
    """

    def inner(value: Any, name: str | None) -> Any:
        return jsonify(value, builtin_types, name, keyfilter, unknown_type_filter)

    if obj is None or isinstance(obj, builtin_types):
        return obj
    if isinstance(obj, (list, tuple)):
        return [inner(one, key) for one in obj]
    if isinstance(obj, dict):
        return {name: inner(one, name) for name, one in obj.items() if not keyfilter or keyfilter(name)}
    if isinstance(obj, datetime.datetime):
        return _datetime_text(obj)
    if isinstance(obj, (datetime.date, datetime.time)):
        return obj.isoformat()
    if isinstance(obj, datetime.timedelta):
        return str(obj)
    if unknown_type_filter is None:
        raise ValueError(f"Unsupported type: {type(obj)!r} {obj!r} (parent: {key})")
    return unknown_type_filter(obj)


def _datetime_text(moment: datetime.datetime) -> str:
    text = moment.isoformat(timespec="milliseconds" if moment.microsecond else "seconds")
    return f"{text[:-6]}Z" if text.endswith("+00:00") else text
