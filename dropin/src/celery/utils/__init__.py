"""Small things that programs import from here."""

# Without the usual import from `__future__`: it would hide the module `celery.utils.annotations`.

import importlib
import uuid as _uuid
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import islice
from typing import Any, TypeVar

from celeriac.app import Celeriac
from celeriac.settings import import_by_name
from celery.utils.log import LOG_LEVELS
from celery.utils.nodenames import nodename, nodesplit, worker_direct

__all__ = (
    "LOG_LEVELS",
    "cached_property",
    "chunks",
    "gen_task_name",
    "gen_unique_id",
    "get_cls_by_name",
    "get_full_cls_name",
    "import_from_cwd",
    "instantiate",
    "memoize",
    "nodename",
    "nodesplit",
    "noop",
    "uuid",
    "worker_direct",
)

T = TypeVar("T")


def uuid() -> str:
    """Return a new random id, in the form of task ids."""
    return str(_uuid.uuid4())


gen_unique_id = uuid
get_cls_by_name = import_by_name
import_from_cwd = import_by_name


def get_full_cls_name(obj: Any) -> str:  # Any: a class, function or instance
    """Return module and name of an object, or of its class where it has no name."""
    named = obj if hasattr(obj, "__name__") else type(obj)
    return f"{named.__module__}.{named.__name__}"


def instantiate(name: Any, *args: Any, **kwargs: Any) -> Any:  # Any: a class or its dotted name
    """Make an instance of a class that is given itself or by its dotted name."""
    cls = import_by_name(name) if isinstance(name, str) else name
    return cls(*args, **kwargs)


def gen_task_name(app: Celeriac, name: str, module_name: str) -> str:
    """Return the name that an app gives to the task of a function."""
    return app.gen_task_name(name, module_name)


def noop(*args: Any, **kwargs: Any) -> None:
    """Do nothing."""


def chunks(it: Iterable[T], n: int) -> Iterator[list[T]]:
    """Yield lists of ``n`` items, the last one may be shorter."""
    iterator = iter(it)
    while chunk := list(islice(iterator, n)):
        yield chunk


def __getattr__(name: str) -> Any:  # Any: a function
    if name == "memoize":  # kombu's own; most programs never ask for it
        return importlib.import_module("kombu.utils.functional").memoize
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
