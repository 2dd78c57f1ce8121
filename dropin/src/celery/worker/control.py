"""Commands of remote control that programs add to those of every worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from celeriac.control.panel import Panel as _Panel
from celeriac.control.state import nok, ok

if TYPE_CHECKING:
    from celeriac.control.panel import ControlCommand
    from celeriac.node.node import Node
    from celeriac.node.worker import Worker

F = TypeVar("F", bound=Callable[..., Any])

__all__ = ("Panel", "control_command", "inspect_command", "nok", "ok")


class _QoS:
    """How many messages the worker holds at most, as commands read and change it."""

    def __init__(self, node: Node) -> None:
        self._node = node

    @property
    def value(self) -> int:
        """The number now; 0: no limit."""
        return self._node.dispatcher.prefetch()

    def increment_eventually(self, n: int = 1) -> int:
        """Hold so many more from now on."""
        return self._change(max(n, 0))

    def decrement_eventually(self, n: int = 1) -> int:
        """Hold so many fewer from now on."""
        return self._change(-max(n, 0))

    def _change(self, by: int) -> int:
        dispatcher = self._node.dispatcher
        prefetch = max(dispatcher.base + by, 1) if dispatcher.base else 0
        self._node.post(lambda: dispatcher.rebase(prefetch))
        return prefetch


class _Consumer:
    """What commands find as ``state.consumer``."""

    def __init__(self, worker: Worker, node: Node) -> None:
        self.controller = worker
        self.app = worker.app
        self.hostname = worker.hostname
        self.pool = worker.pool
        self.qos = _QoS(node)


class Registry(_Panel):
    """The commands that all apps of this process share."""

    @property
    def data(self) -> dict[str, Callable[..., Any]]:
        """The functions, by the names of their commands."""
        return {command.name: command.run for command in self}

    @property
    def meta(self) -> dict[str, ControlCommand]:
        """The commands, by their names."""
        return {command.name: command for command in self}

    def consumer_of(self, worker: Any, node: Any) -> Any:
        """Return what commands get as ``state.consumer``."""
        return _Consumer(worker, node)


Panel: Registry = Registry()


def control_command(**options: Any) -> Callable[[F], F]:
    """Return a decorator that makes a function a command that changes something, in every app's workers."""
    return Panel.control_command(**options)


def inspect_command(**options: Any) -> Callable[[F], F]:
    """Return a decorator that makes a function a command that asks something, in every app's workers."""
    return Panel.inspect_command(**options)


def panel_of(app: Any) -> Registry:
    """Return the commands that an app's workers know."""
    return Panel
