"""Steps: what programs add to a worker and to its consumer, started in the order of what they require."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from kombu.utils.imports import symbol_by_name

from celery.utils.graph import DependencyGraph, GraphFormatter

# Any in this module: workers, consumers and steps are whatever programs make of them

__all__ = ("Blueprint", "ConsumerStep", "StartStopStep", "Step")

logger: logging.Logger = logging.getLogger("celery.bootsteps")

RUN = 0x1
CLOSE = 0x2
TERMINATE = 0x3


class StepFormatter(GraphFormatter):
    """Writes a blueprint in the language of Graphviz: blueprints, conditional steps and the others differ."""

    blueprint_prefix = "⧉"
    conditional_prefix = "∘"
    blueprint_scheme: ClassVar[dict[str, Any]] = {
        "shape": "parallelogram",
        "color": "slategray4",
        "fillcolor": "slategray3",
    }

    def label(self, obj: Any) -> str:
        """Return what a step is called."""
        if not obj:
            return ""
        name: str = obj.label or obj.name.rpartition(".")[2] or obj.name
        return f"{self._prefix(obj)}{name}"

    def node(self, obj: Any, **attrs: Any) -> str:
        """Return a step."""
        scheme = self.blueprint_scheme if isinstance(obj, Blueprint) else {}
        return super().node(obj, **{**scheme, **attrs})

    terminal_node = node

    def _prefix(self, obj: Any) -> str:
        if isinstance(obj, Blueprint):
            return f"{self.blueprint_prefix} "
        return f"{self.conditional_prefix} " if getattr(obj, "conditional", False) else ""


class Blueprint:
    """Steps in their order, and starting and stopping all of them.

    Args:
        steps: Classes, or their dotted names, besides the default ones.
        name: For people; the class's when not given.
        on_start: Called before the first one is started.
        on_close: Called before they are closed.
        on_stopped: Called when all have stopped.
    """

    GraphFormatter = StepFormatter

    name: str | None = None
    label: str | None = None
    state: int | None = None
    started: int = 0  # how many were
    default_steps: Iterable[Any] = frozenset()
    state_to_name: ClassVar[dict[int, str]] = {
        0: "initializing",
        RUN: "running",
        CLOSE: "closing",
        TERMINATE: "terminating",
    }

    def __init__(
        self,
        steps: Iterable[Any] | None = None,
        name: str | None = None,
        on_start: Callable[[], object] | None = None,
        on_close: Callable[[], object] | None = None,
        on_stopped: Callable[[], object] | None = None,
    ) -> None:
        self.name = name or self.name or f"{type(self).__module__}.{type(self).__qualname__}"
        self.types: set[Any] = {*(steps or ()), *self.default_steps}
        self.on_start = on_start
        self.on_close = on_close
        self.on_stopped = on_stopped
        self.shutdown_complete: threading.Event = threading.Event()
        self.steps: dict[str, Any] = {}
        self.order: list[Any] = []
        self.graph: DependencyGraph = DependencyGraph()

    @property
    def alias(self) -> str:
        """The last part of its name."""
        return (self.name or "").rpartition(".")[2]

    def apply(self, parent: Any, **kwargs: Any) -> Blueprint:
        """Make the steps, each after those that it requires, and let them join what they are for.

        Args:
            parent: The worker or consumer; its ``steps`` are those to be started.
            **kwargs: For the constructors of the steps.
        """
        self.order = [step_class(parent, **kwargs) for step_class in self._sorted()]
        self.steps = {step.name: step for step in self.order}
        for step in self.order:
            step.include(parent)
        return self

    def start(self, parent: Any) -> None:
        """Start the steps, in their order."""
        self.state = RUN
        if self.on_start is not None:
            self.on_start()
        for number, step in enumerate([step for step in parent.steps if step is not None], 1):
            self.started = number
            logger.debug("| %s: Starting %s", self.alias, step.alias)
            step.start(parent)

    def human_state(self) -> str:
        """Return the state in a word."""
        return self.state_to_name[self.state or 0]

    def info(self, parent: Any) -> dict[str, Any]:
        """Return what the steps tell of themselves."""
        told: dict[str, Any] = {}
        for step in parent.steps:
            told.update(step.info(parent) or {})
        return told

    def close(self, parent: Any) -> None:
        """Tell the steps that the end is near."""
        if self.on_close is not None:
            self.on_close()
        self.send_all(parent, "close", "closing", reverse=False)

    def restart(
        self, parent: Any, method: str = "stop", description: str = "restarting", propagate: bool = False
    ) -> None:
        """Stop the steps, to be started again."""
        self.send_all(parent, method, description, propagate=propagate)

    def send_all(
        self,
        parent: Any,
        method: str,
        description: str | None = None,
        reverse: bool = True,
        propagate: bool = True,
        args: Iterable[Any] = (),
    ) -> None:
        """Call a method of each step that has it.

        Args:
            parent: Its first argument.
            method: Its name.
            description: For the log: what happens.
            reverse: From the last to the first.
            propagate: Raise what one raises; otherwise it is logged.
            args: More arguments.
        """
        description = description or method.replace("_", " ")
        for step in list(reversed(parent.steps) if reverse else parent.steps):
            call = getattr(step, method, None)
            if call is None:
                continue
            logger.debug("| %s: %s %s...", self.alias, description.capitalize(), step.alias)
            try:
                call(parent, *args)
            except Exception as exc:
                if propagate:
                    raise
                logger.exception("Error on %s %s: %r", description, step.alias, exc)

    def stop(self, parent: Any, close: bool = True, terminate: bool = False) -> None:
        """Stop the steps, from the last to the first; what they raise is logged.

        Args:
            parent: The worker or consumer.
            close: Tell them first that the end is near.
            terminate: Whether there is a hurry.
        """
        if self.state in (CLOSE, TERMINATE):
            return
        if self.state == RUN:
            if close:
                self.close(parent)
            self.state = CLOSE
            method, what = ("terminate", "terminating") if terminate else ("stop", "stopping")
            self.restart(parent, method, what, propagate=False)
            if self.on_stopped is not None:
                self.on_stopped()
        self.state = TERMINATE
        self.shutdown_complete.set()

    def join(self, timeout: float | None = None) -> None:
        """Wait until all have stopped."""
        self.shutdown_complete.wait(timeout)

    # --- the order -------------------------------------------------------------------------------------

    def claim_steps(self) -> dict[str, Any]:
        """Return the classes of the steps by their names."""
        return dict(self.load_step(step) for step in self.types)

    def load_step(self, step: Any) -> tuple[str, Any]:
        """Return the name and the class of a step that is given as a class or by its dotted name."""
        found = symbol_by_name(step)
        return found.name, found

    def connect_with(self, other: Blueprint) -> None:
        """Let the first step of this blueprint hang on the last one of another, in the graph."""
        self.graph.adjacent.update(other.graph.adjacent)
        self.graph.add_edge(type(other.order[0]), type(self.order[-1]))

    def _sorted(self) -> list[Any]:
        """Return the classes in their order, those included that others require."""
        classes = self.claim_steps()
        missing = list(classes.values())
        requirements: dict[Any, list[Any]] = {}
        while missing:
            step = missing.pop()
            if step not in requirements:
                requirements[step] = [symbol_by_name(required) for required in step.requires]
                missing.extend(requirements[step])
        # In the order of their names where they do not say: the same steps start in the same order.
        ordered = sorted(requirements, key=lambda step: str(step.name))
        last = next((step for step in ordered if step.last), None)
        if last is not None:
            requirements[last] = [*requirements[last], *(s for s in ordered if s is not last)]
        self.graph = DependencyGraph(
            [(step, requirements[step]) for step in ordered],
            formatter=self.GraphFormatter(root=last),
        )
        return self.graph.topsort()

    def __getitem__(self, name: str) -> Any:
        return self.steps[name]


class _StepType(type):
    """Gives classes of steps their names, and shows them by these."""

    name: str
    requires: Any

    def __new__(mcs, name: str, bases: tuple[type, ...], attrs: dict[str, Any]) -> _StepType:
        qualname = attrs.get("__qualname__") or name
        attrs.setdefault("name", f"{attrs.get('__module__', '')}.{qualname}")
        return super().__new__(mcs, name, bases, attrs)

    def __str__(cls) -> str:
        return cls.name

    def __repr__(cls) -> str:
        return f"step:{cls.name}{{{cls.requires!r}}}"


class Step(metaclass=_StepType):
    """Something that belongs to a worker or a consumer.

    Args:
        parent: The worker or consumer.
        **kwargs: The options of the worker, those included that the program has added to its command line.
    """

    name: str
    label: str | None = None  # for the log
    conditional: bool = False  # it is there only when it is `enabled`
    requires: Any = ()  # classes of steps, or their dotted names, that come before
    last: bool = False  # it comes after all others
    enabled: bool = True

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        pass

    def include_if(self, parent: Any) -> bool:
        """Return whether it shall be there; only steps that are enabled are asked."""
        return self.enabled

    def instantiate(self, name: Any, *args: Any, **kwargs: Any) -> Any:
        """Make an object of a class, or of its dotted name."""
        return symbol_by_name(name)(*args, **kwargs)

    def include(self, parent: Any) -> bool:
        """Join the parent, if it shall, and return whether it has."""
        if not self.include_if(parent):
            return False
        self.create(parent)
        return True

    def create(self, parent: Any) -> Any:
        """Make what it stands for."""

    @property
    def alias(self) -> str:
        """Its label, or the last part of its name."""
        return self.label or self.name.rpartition(".")[2]

    def info(self, obj: Any) -> Any:
        """Return facts for people, a dict; None: there are none."""

    def __repr__(self) -> str:
        return f"<step: {self.alias}>"


class StartStopStep(Step):
    """A step that is started and stopped; by default what `create` has returned is."""

    obj: Any = None  # what `create` has returned

    def start(self, parent: Any) -> Any:
        """Start."""
        return self.obj.start() if self.obj else None

    def stop(self, parent: Any) -> Any:
        """Stop."""
        return self.obj.stop() if self.obj else None

    def close(self, parent: Any) -> Any:
        """Get ready to stop."""

    def terminate(self, parent: Any) -> Any:
        """Stop in a hurry."""
        if self.obj is None:
            return self.stop(parent)
        return getattr(self.obj, "terminate", self.obj.stop)()

    def include(self, parent: Any) -> bool:
        """Join the steps to be started, if it shall, and return whether it has."""
        if not self.include_if(parent):
            return False
        self.obj = self.create(parent)
        parent.steps.append(self)
        return True


class ConsumerStep(StartStopStep):
    """A step with consumers of messages of its own, on the connection that a worker's steps share."""

    requires: Any = ("celery.worker.consumer:Connection",)
    consumers: list[Any] | None = None

    def get_consumers(self, channel: Any) -> list[Any]:
        """Return kombu consumers on a channel."""
        raise NotImplementedError("missing get_consumers")

    def start(self, parent: Any) -> None:
        """Consume, on a channel of its own."""
        channel = parent.connection.channel()
        self.consumers = self.get_consumers(channel)
        for consumer in self.consumers or ():
            consumer.consume()

    def stop(self, parent: Any) -> None:
        """Consume no more."""
        self._close(parent, cancel_consumers=True)

    def shutdown(self, parent: Any) -> None:
        """Let go of the channels, without saying good-bye to a broker that is away."""
        self._close(parent, cancel_consumers=False)

    def _close(self, parent: Any, cancel_consumers: bool = True) -> None:
        channels = set()
        errors = tuple(parent.connection_errors) + tuple(parent.channel_errors)
        for consumer in self.consumers or ():
            channels.add(consumer.channel)
            if cancel_consumers:
                _ignoring(errors, consumer.cancel)
        for channel in channels:
            _ignoring(errors, channel.close)
        self.consumers = None


def _ignoring(errors: tuple[type[BaseException], ...], call: Callable[[], object]) -> None:
    try:
        call()
    except errors as exc:
        logger.debug("Nobody hears that a step ends: %r", exc)
