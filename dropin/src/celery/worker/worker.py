"""The worker as programs see it: one that they make themselves, or the one that their steps belong to."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Self

import msgspec

from celeriac.cli.logs import level_of
from celeriac.control.about_worker import stats
from celeriac.control.state import State
from celeriac.node.options import NodeOptions
from celeriac.node.worker import Worker
from celery import _state, bootsteps
from celery._state import app_or_default
from celery.utils.nodenames import default_nodename
from celery.utils.timer2 import Timer
from celery.worker import autoscale, components
from celery.worker.consumer.consumer import Consumer
from celery.worker.steps_thread import StepsThread

if TYPE_CHECKING:
    from celeriac.node.node import Node

# Any in this module: options of programs, and what they make of workers

__all__ = ("WorkController", "companion_of")

_RENAMED = {
    "max_memory_per_child": "max_memory_per_child_kib",
    "task_events": "events",
    "send_events": "events",
    "pool_cls": "pool",
    "O": "optimization",
    "state_db": "statedb",
}


class WorkController:
    """A worker in this process.

    Args:
        app: The app; the current one when not given.
        hostname: The node's name; ``celery@`` and the host's when not given.
        **kwargs: The options of ``celery worker``, by their long names; what is none is for the steps.
    """

    class Blueprint(bootsteps.Blueprint):
        """The steps of a worker."""

        name: str | None = "Worker"
        default_steps: Iterable[Any] = (
            components.Hub,
            components.Pool,
            components.Beat,
            components.Timer,
            components.StateDB,
            components.Consumer,
            autoscale.WorkerComponent,
        )

    app: Any = None
    pidlock: Any = None
    hub: Any = None  # the loop that takes messages runs no code of programs
    quiet: bool = False

    def __init__(self, app: Any = None, hostname: str | None = None, **kwargs: Any) -> None:
        self.app = app or self.app or app_or_default()
        self.ready_callback: Callable[[Any], object] | None = kwargs.pop("ready_callback", None)
        self.on_before_init(**kwargs)
        Worker(self.app, node_options(hostname, kwargs), companions=[self._live_with, *_state.COMPANIONS])
        self.on_after_init(**kwargs)

    @classmethod
    def of(cls, worker: Worker) -> WorkController:
        """Return what programs see of a worker."""
        for companion in worker.companions:
            if isinstance(companion, _Life):
                return companion.controller
        return cls._around(worker)

    @classmethod
    def _around(cls, worker: Worker) -> Self:
        controller = cls.__new__(cls)
        controller.ready_callback = None
        controller._live_with(worker)
        return controller

    def _live_with(self, worker: Worker) -> _Life:
        self.worker = worker
        self.app = worker.app
        self.hostname: str = worker.hostname
        self.options: dict[str, Any] = _given(worker.options)
        self.pool: Any = worker.pool
        self.concurrency: int = worker.concurrency
        self.loglevel: int = worker.options.loglevel
        self.logfile: str | None = worker.options.logfile
        self.timer: Timer = Timer()  # its thread begins with the first call that is wanted
        self.steps: list[Any] = []  # to be started
        self.consumer: Any = None  # a Consumer, as soon as the steps are made
        self.blueprint: bootsteps.Blueprint = self.Blueprint(steps=self.app.steps["worker"])
        self.on_init_blueprint()
        self.blueprint.apply(self, **self.options)
        self.exitcode: int | None = None  # what `start` has returned
        self.life: _Life = _Life(self)
        return self.life

    def make_consumer(self) -> Consumer:
        """Return what the steps of the consumer share, with these."""
        return Consumer(self, self.timer, self.options)

    # --- for subclasses --------------------------------------------------------------------------------

    def on_before_init(self, **kwargs: Any) -> None:
        """Run before anything else is done."""

    def on_after_init(self, **kwargs: Any) -> None:
        """Run when it is made."""

    def on_init_blueprint(self) -> None:
        """Run before the steps are made."""

    def on_start(self) -> None:
        """Run before the steps are started."""

    def on_consumer_ready(self, consumer: Consumer) -> None:
        """Run when it is ready to take tasks; must not take long."""

    def on_stopped(self) -> None:
        """Run when it has ended."""

    # --- what it does ----------------------------------------------------------------------------------

    def start(self) -> int:
        """Work until told to stop, and return the exit code."""
        self.exitcode = self.worker.run(self._on_ready)
        return self.exitcode

    def stop(self, in_sighandler: bool = False, exitcode: int | None = None) -> None:
        """Ask it to stop, and to let running tasks end; may be called from any thread."""
        self.worker.stop("warm", exitcode)

    def terminate(self, in_sighandler: bool = False) -> None:
        """Ask it to stop, and not to wait for running tasks; may be called from any thread."""
        self.worker.stop("cold")

    def reload(self, modules: Any = None, reload: bool = False, reloader: Any = None) -> None:
        """Have tasks found that were added after the start: those of a worker in this process are at once."""

    def stats(self) -> dict[str, Any]:
        """Return figures about tasks, pool, broker and resources."""
        node = self.consumer.node
        told: dict[str, Any] = stats(State(node, self.app.panel))
        return {**told, **self.info()}

    def info(self) -> dict[str, Any]:
        """Return what the steps tell of themselves."""
        return {**self.blueprint.info(self), **self.consumer.blueprint.info(self.consumer)}

    def rusage(self) -> dict[str, Any]:
        """Return what the process has used."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {name[3:]: getattr(usage, name) for name in dir(usage) if name.startswith("ru_")}

    def __repr__(self) -> str:
        return f"<Worker: {self.hostname} ({self.blueprint.human_state()})>"

    def _on_ready(self) -> None:
        self.on_consumer_ready(self.consumer)
        if self.ready_callback is not None:
            self.ready_callback(self.consumer)


class _Life:
    """Starts and stops the steps with the worker; a `celeriac.node.companion.Companion`."""

    def __init__(self, controller: WorkController) -> None:
        self.controller = controller

    def begin(self) -> None:
        """Start the steps of the worker."""
        self.controller.on_start()
        self.controller.blueprint.start(self.controller)

    def join(self, node: Node) -> None:
        """Have the steps of the consumer live beside the node, if there are any at all."""
        controller = self.controller
        controller.consumer.join(node)
        if controller.steps or controller.consumer.steps:
            node.run_beside("steps", StepsThread(controller, node))

    def end(self, *, cold: bool) -> None:
        """Stop the steps of the worker."""
        controller = self.controller
        controller.blueprint.stop(controller, close=False, terminate=cold)
        controller.timer.stop()
        controller.on_stopped()


def companion_of(worker: Worker) -> _Life:
    """Return what lives with a worker whose app has steps."""
    return WorkController._around(worker).life


def node_options(hostname: str | None, kwargs: dict[str, Any]) -> NodeOptions:
    """Return the options of a worker that a program makes, of Celery's keyword arguments."""
    fields: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for name, value in kwargs.items():
        field = _RENAMED.get(name, name)
        if field not in NodeOptions.__struct_fields__:
            extra[name] = value
        elif value is not None:
            fields[field] = value
    for name in ("queues", "exclude_queues", "include"):
        given = fields.get(name, ())
        fields[name] = tuple(given.split(",")) if isinstance(given, str) else tuple(given)
    if isinstance(scale := fields.get("autoscale"), str):
        most, _, fewest = scale.partition(",")
        fields["autoscale"] = int(most), int(fewest or 1)
    if isinstance(level := fields.get("loglevel"), str):
        fields["loglevel"] = level_of(level)
    return NodeOptions(hostname=default_nodename(hostname or ""), extra=extra, **fields)


def _given(options: NodeOptions) -> dict[str, Any]:
    given = msgspec.structs.asdict(options)
    return {**given, **given.pop("extra")}
