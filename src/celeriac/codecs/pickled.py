"""Pickle, with the classes that only one side has under the names of the other.

Only for messages from trusted senders: unpickling runs code of the sender's choice.
"""

from __future__ import annotations

import io
import pickle
import pkgutil
import sys
from typing import Any, Final

from celeriac.codecs.foreign import CLASSES, NAMES, UnpickleableError

_THEIRS: Final = (b"celery", b"billiard", b"kombu")
_SIGNATURE: Final = ("celery.canvas", "signature")
_WRAPPER: Final = ("celery.utils.serialization", "UnpickleableExceptionWrapper")
_CANVAS: Final = "celeriac.canvas"


_WRITTEN: Final[dict[type, tuple[str, str]]] = {**NAMES, UnpickleableError: _WRAPPER}
_READ: Final[dict[tuple[str, str], Any]] = {**CLASSES, _WRAPPER: UnpickleableError}


def encode(value: Any) -> bytes:  # Any: the user's value
    """Return the pickle of a value, in the protocol that this Python takes by default.

    Raises:
        Exception: Whatever pickle or the methods of the value raise.
    """
    buffer = io.BytesIO()
    _Pickler(buffer).dump(value)
    return buffer.getvalue()


def decode(data: bytes) -> Any:  # Any: whatever the sender wrote
    """Return the value of a pickle; signatures come as ours, or as dicts where no canvas is imported.

    Raises:
        Exception: Whatever unpickling raises; it runs code.
    """
    if any(name in data for name in _THEIRS):
        return _Unpickler(io.BytesIO(data)).load()
    return pickle.loads(data)


def _signature(fields: dict[str, Any]) -> Any:
    """Return a signature of whichever canvas this process has imported."""
    theirs = sys.modules.get("celery.canvas")
    if theirs is not None:
        return theirs.signature(fields)
    ours = sys.modules.get(f"{_CANVAS}.signature")
    return ours.Signature.from_dict(fields) if ours is not None else dict(fields)


def _find(module: str, name: str) -> Any:
    """Return our counterpart of a peer's name, or None."""
    return _signature if (module, name) == _SIGNATURE else _READ.get((module, name))


def _resolve(path: str) -> Any:
    """Return what ``module:name`` stands for, by our names where we have one."""
    module, _, name = path.partition(":")
    found = _find(module, name)
    return found if found is not None else pkgutil.resolve_name(path)


class _Name:
    """Pickles as the object behind ``module:name``, which need not exist in this process."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __call__(self) -> None:
        """Do nothing: pickle wants something that can be called."""

    def __reduce__(self) -> tuple[Any, ...]:
        return pkgutil.resolve_name, (self._path,)


_SIGNATURE_NAME: Final = _Name(":".join(_SIGNATURE))


class _Pickler(pickle.Pickler):
    """Names our errors and signatures as peers know them, by way of a function that every Python has."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, type):
            name = _WRITTEN.get(obj)
            return NotImplemented if name is None else (pkgutil.resolve_name, (":".join(name),))
        if isinstance(obj, dict) and type(obj).__module__.startswith(_CANVAS):
            return _SIGNATURE_NAME, (dict(obj),)
        return NotImplemented


class _Unpickler(pickle.Unpickler):
    """Reads the names of peers as ours."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("pkgutil", "resolve_name"):
            return _resolve
        found = _find(module, name)
        return found if found is not None else super().find_class(module, name)
