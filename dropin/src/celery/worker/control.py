"""Commands of remote control that programs add to those of every worker."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from celeriac.control.panel import Panel as _Panel
from celeriac.control.state import nok, ok
from celery.local import Proxy

if TYPE_CHECKING:
    from celeriac.control.panel import ControlCommand
    from celeriac.node.node import Node
    from celeriac.node.worker import Worker

F = TypeVar("F", bound=Callable[..., Any])

__all__ = ("Panel", "control_command", "inspect_command", "nok", "ok")


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
        return Proxy(functools.cache(lambda: _consumer_of(worker, node)))  # most workers need none


def _consumer_of(worker: Worker, node: Node) -> Any:
    controller = importlib.import_module("celery.worker.worker").WorkController.of(worker)
    controller.consumer.join(node)
    return controller.consumer


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
