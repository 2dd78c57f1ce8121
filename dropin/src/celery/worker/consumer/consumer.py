"""The consumer of a worker, as steps and commands of remote control see it."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Self

from celeriac.control import steering
from celeriac.control.state import State
from celeriac.errors import TransportError, UsageError
from celery import bootsteps
from celery.worker.consumer.agent import Agent
from celery.worker.consumer.connection import Connection
from celery.worker.consumer.control import Control
from celery.worker.consumer.events import Events
from celery.worker.consumer.gossip import Gossip
from celery.worker.consumer.heart import Heart
from celery.worker.consumer.mingle import Mingle
from celery.worker.consumer.tasks import Tasks
from celery.worker.qos import QoS

if TYPE_CHECKING:
    from celeriac.node.node import Node

# Any in this module: objects of kombu, which has no types, and of programs

__all__ = ("Consumer", "Evloop")

_OF_OURS = (TransportError, OSError)
_ANSWER_SECONDS = 30.0  # for the broker to take a queue


class Evloop(bootsteps.Step):
    """Waiting for messages."""

    label: str | None = "event loop"
    last: bool = True


class Consumer:
    """What a worker's steps share: a connection of kombu's, a timer, and the way to the worker's own queues.

    The worker receives tasks by itself, over a connection of its own. What is here is for others' code and
    runs in their thread.

    Args:
        controller: The worker, as steps see it.
        timer: Calls functions at given times.
        options: Of the worker, for the constructors of steps.
    """

    class Blueprint(bootsteps.Blueprint):
        """The steps of a consumer."""

        name: str | None = "Consumer"
        default_steps: Iterable[Any] = (
            Connection,
            Mingle,
            Events,
            Gossip,
            Heart,
            Control,
            Tasks,
            Agent,
            Evloop,
        )

    def __init__(self, controller: Any, timer: Any, options: dict[str, Any] | None = None) -> None:
        self.controller = controller
        self.app: Any = controller.app
        self.hostname: str = controller.hostname
        self.pool: Any = controller.pool
        self.timer = timer
        self.connection: Any = None  # of kombu; there is one while steps with consumers run
        self.event_dispatcher: Any = self.app.events.Dispatcher(hostname=self.hostname, enabled=False)
        self.gossip: Any = None  # these belong to the node
        self.heart: Any = None
        self.task_consumer: Any = None
        self.on_task_message: set[Callable[..., object]] = set()
        self.steps: list[Any] = []  # to be started
        self.calls: SimpleQueue[Callable[[], object]] = SimpleQueue()  # to be made in the steps' thread
        self._node: Node | None = None
        self._errors: Any = None
        self.blueprint: bootsteps.Blueprint = self.Blueprint(steps=self.app.steps["consumer"])
        self.blueprint.apply(self, **(options or {}))

    def join(self, node: Node) -> None:
        """Know the node from now on."""
        self._node = node

    def beside(self, pool: Any, timer: Any) -> Self:
        """Return the same with a pool and a timer for those who live in another thread."""
        other = copy.copy(self)
        other.pool, other.timer = pool, timer
        return other

    @property
    def node(self) -> Node:
        """What does the work."""
        assert self._node is not None, "the worker does not run yet"
        return self._node

    @property
    def qos(self) -> QoS:
        """How many messages the worker holds at most."""
        return QoS(self.node)

    @property
    def connection_errors(self) -> tuple[type[BaseException], ...]:
        """What a connection that is lost raises."""
        connection = self._of_connection()
        errors: tuple[type[BaseException], ...] = (
            _OF_OURS if connection is None else connection.recoverable_connection_errors
        )
        return errors

    @property
    def channel_errors(self) -> tuple[type[BaseException], ...]:
        """What a channel that is lost raises."""
        connection = self._of_connection()
        errors: tuple[type[BaseException], ...] = (
            () if connection is None else connection.recoverable_channel_errors
        )
        return errors

    def _of_connection(self) -> Any:
        if self._errors is None:
            with suppress(UsageError):  # a broker of our own, which kombu does not know
                self._errors = self.connection or self.connection_for_read()
        return self._errors

    def connection_for_read(self, heartbeat: float | None = None) -> Any:
        """Return a new connection, not connected yet."""
        return self.app.connection_for_read(heartbeat=heartbeat)

    def connection_for_write(self, heartbeat: float | None = None) -> Any:
        """Return a new connection to where tasks are sent, not connected yet."""
        return self.app.connection_for_write(heartbeat=heartbeat)

    def call_soon(self, p: Callable[..., object], *args: Any, **kwargs: Any) -> None:
        """Have something called in the steps' thread; may be called from any thread."""
        self.calls.put(lambda: p(*args, **kwargs))

    def add_task_queue(
        self,
        queue: str,
        exchange: str | None = None,
        exchange_type: str | None = None,
        routing_key: str | None = None,
        **options: Any,
    ) -> None:
        """Have the worker receive tasks from one more queue; may be called from any thread but its own."""
        self._steer(steering.add_consumer, queue, exchange, exchange_type, routing_key, **options)

    def cancel_task_queue(self, queue: str) -> None:
        """Have it receive tasks from a queue no longer."""
        self._steer(steering.cancel_consumer, queue)

    def reset_rate_limits(self) -> None:
        """Let the rate limits of the tasks count anew."""
        rates = self.node.intake.rates
        for name in list(self.app.tasks):
            self.node.post(partial(rates.forget, name))

    def _steer(self, command: Callable[..., Any], *args: Any, **options: Any) -> None:
        node = self.node
        work = command(State(node, self.app.panel), *args, **options)
        asyncio.run_coroutine_threadsafe(work, node.loop).result(_ANSWER_SECONDS)
