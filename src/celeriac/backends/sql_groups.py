"""Groups in a database, as Celery keeps them there: a pickle of its `GroupResult`.

Written by hand, as its classes are not here, and read without calling anything of what it names: results
become nested tuples. What the pickles look like is what Celery 5.6.3 writes, and reads as 5.7 does.
"""

from __future__ import annotations

import datetime
import io
import pickle
from collections.abc import Callable
from typing import Any, Final

import msgspec

from celeriac.errors import BackendError

Shape = Any  # nested result tuples: ((id, parent), members), members being None for one task

_OF_THE_APP: Final = (
    b"ccelery.app.base\n_unpickle_appattr\n"  # called with the name of a class and its arguments
)
_NONE: Final = b"N"


def pack_group(shape: Shape) -> bytes:
    """Return the pickle of a group's results."""
    return b"\x80\x02" + _result(shape) + pickle.STOP


def unpack_group(pickled: bytes, group_id: str) -> Shape:
    """Return the shape in a pickle, or in the JSON that Celery 5.7 writes.

    Raises:
        BackendError: It has something else in it, or is none.
    """
    try:
        if pickled.startswith(b"["):  # as 5.7 writes it, which reads the other form too
            return msgspec.json.decode(pickled)
        return _Unpickler(io.BytesIO(pickled)).load()
    except (pickle.UnpicklingError, LookupError, TypeError, ValueError, AttributeError, EOFError) as exc:
        raise BackendError(f"Group {group_id} was saved as something else than results: {exc}.") from exc


def _result(shape: Shape) -> bytes:
    (own_id, parent), members = shape
    before = _NONE if parent is None else _result(parent)
    if members is None:
        return _call("AsyncResult", _text(own_id), _NONE, _NONE, _NONE, before)
    listed = b"](" + b"".join(map(_result, members)) + b"e"
    return _call("GroupResult", _text(own_id), listed, *([] if parent is None else [before]))


def _call(name: str, *arguments: bytes) -> bytes:
    packed = pickle.MARK + b"".join(arguments) + pickle.TUPLE
    return _OF_THE_APP + _text(name) + packed + pickle.TUPLE2 + pickle.REDUCE


def _text(text: str) -> bytes:
    data = text.encode("utf-8", "surrogatepass")
    return pickle.BINUNICODE + len(data).to_bytes(4, "little") + data


def _task(own_id: str, backend: Any = None, name: Any = None, app: Any = None, parent: Shape = None) -> Shape:
    return [[own_id, parent], None]


def _group(own_id: str, members: Any = (), parent: Shape = None) -> Shape:
    return [[own_id, parent], list(members)]


def _nothing(*arguments: Any) -> None:
    """Stand for a backend, which is not needed: the app has one."""


_CLASSES: Final[dict[str, Callable[..., Any]]] = {"AsyncResult": _task, "GroupResult": _group}
_KNOWN: Final[dict[tuple[str, str], Callable[..., Any]]] = {
    ("celery.app.base", "_unpickle_appattr"): lambda name, arguments: _CLASSES[name](*arguments),
    ("celery.result", "AsyncResult"): _task,
    ("celery.result", "GroupResult"): _group,
    ("celery.backends.base", "unpickle_backend"): _nothing,
    ("celery.backends.database", "DatabaseBackend"): _nothing,
    ("datetime", "timedelta"): datetime.timedelta,  # how long that backend keeps results
}


class _Unpickler(pickle.Unpickler):
    """Reads plain data and results."""

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        known = _KNOWN.get((module, name))
        if known is None:
            raise pickle.UnpicklingError(f"{module}.{name} is no result")
        return known
