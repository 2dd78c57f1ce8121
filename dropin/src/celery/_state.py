"""The process-wide bookkeeping that Celery has and Celeriac has not: which app is meant where none is named.

An app is the current one for the thread that made it; threads that made none get the default app, else the
one made last anywhere in the process, else an app that reads ``celeryconfig.py``.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from celeriac import context
from celeriac.app import Celeriac
from celeriac.canvas.signature import Signature
from celeriac.forklock import ForkLock
from celeriac.result import AsyncResult
from celeriac.task import Task
from celery import _kinship
from celery.local import Proxy
from celery.signals import HOOKS

__all__ = (
    "app_or_default",
    "connect_on_app_finalize",
    "current_app",
    "current_task",
    "default_app",
    "get_current_app",
    "get_current_task",
    "get_current_worker_task",
    "pop_current_task",
    "push_current_task",
    "set_default_app",
    "task_join_will_block",
)

_lock = ForkLock()
_apps: weakref.WeakSet[Celeriac] = weakref.WeakSet()
_on_app_finalizers: list[Callable[[Celeriac], Any]] = []


class _Tls(threading.local):
    current_app: Celeriac | None = None


class _Process:
    default_app: Celeriac | None = None
    latest: Celeriac | None = None  # made last, in whatever thread
    fallback: Celeriac | None = None  # reads celeryconfig.py; made when there is no app and one is needed


_tls = _Tls()
_process = _Process()


# --- apps ---------------------------------------------------------------------------------------


def set_default_app(app: Celeriac | None) -> None:
    """Make it the app of threads that have none of their own."""
    _process.default_app = app


def _set_current_app(app: Celeriac | None) -> None:
    _tls.current_app = _process.latest = app


def set_trap(trap: Any) -> None:  # Any: stands for a Celeriac, and refuses everything
    """Make something the app of every thread that has none of its own, and of this one."""
    _tls.current_app = _process.default_app = _process.latest = trap


@contextmanager
def remembered() -> Iterator[None]:
    """Put back, when the block ends, which app was the current one before, here and elsewhere."""
    before = _tls.current_app, _process.default_app, _process.latest
    try:
        yield
    finally:
        _tls.current_app, _process.default_app, _process.latest = before


def get_current_app() -> Celeriac:
    """Return the app that is meant where none is named; made now when there is none at all."""
    return _tls.current_app or _process.default_app or _process.latest or _make_fallback()


def _make_fallback() -> Celeriac:
    with _lock:
        if _process.fallback is None:
            app = Celeriac("default", fixups=[], set_as_current=False)
            module = os.environ.get("CELERY_CONFIG_MODULE")
            if module or _is_importable("celeryconfig"):
                app.config_from_object(module or "celeryconfig")
            _process.fallback = app
        return _process.fallback


def _is_importable(name: str) -> bool:
    """Tell whether there is such a module, here in the working directory too (it is where commands look)."""
    if importlib.util.find_spec(name) is not None:
        return True
    return os.getcwd() not in sys.path and os.path.exists(os.path.join(os.getcwd(), f"{name}.py"))


current_app: Any = Proxy(get_current_app)  # Any: a Celeriac
default_app: Any = Proxy(lambda: _process.default_app)  # Any: a Celeriac, or None


def app_or_default(app: Celeriac | None = None) -> Celeriac:
    """Return the app, or the current one when it is None."""
    return get_current_app() if app is None else app


def _get_active_apps() -> Iterator[Celeriac]:
    return iter(list(_apps))


def _register_app(app: Celeriac) -> None:
    _apps.add(app)


def _deregister_app(app: Celeriac) -> None:
    _apps.discard(app)
    if _tls.current_app is app:
        _tls.current_app = None
    if _process.latest is app:
        _process.latest = None
    if _process.default_app is app:
        _process.default_app = None


# --- tasks that belong to every app -----------------------------------------------------------------


def connect_on_app_finalize(callback: Callable[[Celeriac], Any]) -> Callable[[Celeriac], Any]:
    """Have a function called with every app that is finalized from now on; it adds tasks."""
    _on_app_finalizers.append(callback)
    return callback


def _announce_app_finalized(app: Celeriac) -> None:
    for callback in _on_app_finalizers.copy():
        callback(app)


def share(function: Callable[..., Any], options: dict[str, Any]) -> Callable[[Celeriac], Any]:
    """Give a task to every app that is not finalized yet, and return what adds it to one.

    Each app gets a copy of its own, under one name, with its own settings.
    """

    def add(app: Celeriac) -> Any:
        decorate: Callable[..., Any] = app.task(shared=False, **options)
        return decorate(function)

    connect_on_app_finalize(add)
    return add


def name_in(app: Celeriac, function: Callable[..., Any]) -> str:
    """Return the name that an app gives to the task of a function."""
    return app.gen_task_name(getattr(function, "__name__", type(function).__name__), function.__module__)


def _shared_by(app: Celeriac, function: Callable[..., Any], options: dict[str, Any]) -> None:
    """Take note of an ``@app.task``, which is a task of all other apps too, as Celery has it."""
    name = options.get("name") or name_in(app, function)
    add = share(function, {**options, "name": name})
    for other in _get_active_apps():
        if other.finalized and other is not app:
            add(other)


# --- the running task -------------------------------------------------------------------------------


class _TaskStack:
    """The running tasks of this thread (or greenlet, or coroutine), the innermost on top."""

    @property
    def top(self) -> Any:  # Any: a Task, or None
        return get_current_task()

    @property
    def stack(self) -> list[Any]:  # Any: Tasks
        tasks = []
        frame = context.current()
        while frame is not None:
            tasks.append(frame.task)
            frame = frame.outer
        return tasks[::-1]

    def push(self, task: Any) -> None:  # Any: a Task
        context.push(task, task.request)

    def pop(self) -> Any:  # Any: a Task
        task = get_current_task()
        context.pop()
        return task

    def __len__(self) -> int:
        return len(self.stack)


_task_stack = _TaskStack()
push_current_task: Callable[[Any], None] = _task_stack.push
pop_current_task: Callable[[], Any] = _task_stack.pop  # Any: a Task


def get_current_task() -> Any:  # Any: a Task, or None
    """Return the innermost task that runs here, a plain call of one included."""
    frame = context.current()
    return None if frame is None else frame.task


def get_current_worker_task() -> Any:  # Any: a Task, or None
    """Return the innermost task that runs here for a message."""
    frame = context.worker_frame()
    return None if frame is None else frame.task


current_task: Any = Proxy(get_current_task)  # Any: a Task, or None


def task_join_will_block() -> bool:
    """Tell whether waiting for a result is refused here."""
    return context.join_blocks()


# --- joining the core -----------------------------------------------------------------------------------


def _take_in(app: Celeriac) -> None:
    """Do for a new app what Celery does: known, with the process's signals, current."""
    app.hooks = HOOKS
    app.conf.strict = False  # a misspelt setting is logged; Celery would not even have done that
    _register_app(app)
    methods = {
        "set_current": _set_current_app,
        "set_default": set_default_app,
        "bugreport": _bugreport,
        "Worker": _worker,
        "WorkController": _worker,
        "Beat": _beat,
    }
    for name, call in methods.items():
        if not hasattr(type(app), name):  # a subclass may have its own
            setattr(app, name, partial(call, app))
    if app.set_as_current:
        _set_current_app(app)


def _companion_of(worker: Any) -> Any:  # Any: of the core's floors above its app
    """Return what has the steps of a worker live with it; most have none, and nothing is loaded for them."""
    if not any(worker.app.steps.values()):
        return None
    return importlib.import_module("celery.worker.worker").companion_of(worker)


def _requests_of(worker: Any) -> Any:  # Any: as above
    """Return what calls the hooks of tasks' own classes of requests; nothing is loaded without any."""
    if not _has_own(worker.app, "Request", _REQUEST):
        return None
    return importlib.import_module("celery.worker.request_hooks").companion_of(worker)


def _strategies_of(worker: Any) -> Any:  # Any: as above
    """Return what runs tasks' own strategies; nothing is loaded without any."""
    if not _has_own(worker.app, "Strategy", _STRATEGY):
        return None
    return importlib.import_module("celery.worker.strategies").companion_of(worker)


COMPANIONS = (_requests_of, _strategies_of)  # of every worker, besides its steps


def _has_own(app: Celeriac, attribute: str, usual: str) -> bool:
    """Return whether a task says for itself what its class is."""
    return any(getattr(task, attribute, None) not in (None, usual) for task in app.tasks.values())


def _worker(app: Celeriac, *args: Any, **kwargs: Any) -> Any:  # Any: a class that nobody else has to load
    """Make a worker of an app."""
    return importlib.import_module("celery.apps.worker").Worker(app, *args, **kwargs)


def _beat(app: Celeriac, *args: Any, **kwargs: Any) -> Any:  # Any: as above
    """Make a scheduler of an app, to be run in this process."""
    return importlib.import_module("celery.apps.beat").Beat(*args, app=app, **kwargs)


def _bugreport(app: Celeriac) -> str:
    report: str = importlib.import_module("celery.app.utils").bugreport(app)
    return report


_REQUEST = "celery.worker.request:Request"
_STRATEGY = "celery.worker.strategy:default"
_OWN_PANEL = Celeriac.panel_cls


def install() -> None:
    """Connect this bookkeeping to the core. Importing this module does it."""
    Celeriac.on_create.append(_take_in)
    Celeriac.on_shared.append(_shared_by)
    Celeriac.on_finalize.append(_announce_app_finalized)
    Celeriac.on_worker += [_companion_of, *COMPANIONS]
    AsyncResult.default_app = get_current_app
    Signature.default_sender = get_current_app
    Task.default_app = get_current_app
    Task.Request, Task.Strategy = _REQUEST, _STRATEGY
    Celeriac.builtin_fixups = frozenset({"celery.fixups.django:fixup"})
    Celeriac.amqp_cls = "celery.app.amqp:AMQP"
    Celeriac.loader_cls = "celery.loaders.app:AppLoader"
    Celeriac.panel_cls = "celery.worker.control:panel_of"
    _kinship.install()


def uninstall() -> None:
    """Disconnect it and forget all apps and shared tasks, as if this module had never been imported."""
    Celeriac.on_create.remove(_take_in)
    Celeriac.on_shared.remove(_shared_by)
    Celeriac.on_finalize.remove(_announce_app_finalized)
    Celeriac.on_worker.remove(_companion_of)
    for companion in COMPANIONS:
        Celeriac.on_worker.remove(companion)
    AsyncResult.default_app = Signature.default_sender = Task.default_app = None
    Task.Request = Task.Strategy = None
    Celeriac.builtin_fixups = frozenset()
    Celeriac.amqp_cls = None
    Celeriac.loader_cls = None
    Celeriac.panel_cls = _OWN_PANEL
    _kinship.uninstall()
    _apps.clear()
    _on_app_finalizers.clear()
    _tls.current_app = _process.default_app = _process.latest = _process.fallback = None


install()
