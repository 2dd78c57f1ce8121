"""The commands of remote control that a worker knows."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterator
from typing import Any, Final, Literal, TypeVar

import msgspec

F = TypeVar("F", bound=Callable[..., Any])

Kind = Literal["control", "inspect"]

_BUILT_IN: Final = (
    "celeriac.control.about_worker",
    "celeriac.control.about_tasks",
    "celeriac.control.steering",
    "celeriac.control.revoking",
)


class ControlCommand(msgspec.Struct, frozen=True, kw_only=True):
    """One command: what it does, and how the command line offers it."""

    name: str
    run: Callable[..., Any]  # called with the `State` and the arguments; may be a coroutine function
    kind: Kind = "control"
    alias: str | None = None
    args: tuple[tuple[str, Callable[[str], Any]], ...] = ()  # names and types of positional arguments
    variadic: str | None = None  # the argument that takes all that follows
    signature: str | None = None  # for people
    default_timeout: float = 1.0  # seconds that the command line waits
    help: str | None = None
    visible: bool = True
    blocks: bool = False  # it may take its time: it runs in a thread beside the worker's loop

    @property
    def type(self) -> str:
        """The same as ``kind``: Celery's name."""
        return self.kind


class Panel:
    """Commands by their names and aliases; those of every worker are there from the beginning.

    Args:
        app: The app whose workers know them; several may share a panel.
    """

    def __init__(self, app: Any = None) -> None:  # Any: the app; nothing is asked of it
        self._commands: dict[str, ControlCommand] = {}
        for module in _BUILT_IN:
            for command in importlib.import_module(module).COMMANDS:
                self.add(command)

    def add(self, command: ControlCommand) -> None:
        """Add a command, in the place of one that has its name."""
        self._commands[command.name] = command
        if command.alias:
            self._commands[command.alias] = command

    def find(self, name: str) -> ControlCommand | None:
        """Return the command of a name or alias."""
        return self._commands.get(name)

    def near(self, name: str) -> str | None:
        """Return the name of the command that was perhaps meant."""
        close = difflib.get_close_matches(name, self._commands, n=1)
        return close[0] if close else None

    def consumer_of(self, worker: Any, node: Any) -> Any:  # Any: others' classes
        """Return what commands get as ``state.consumer``: the worker, unless somebody knows better."""
        return worker

    def __iter__(self) -> Iterator[ControlCommand]:
        """Yield every command once, in the order of their names."""
        for name, command in sorted(self._commands.items()):
            if name == command.name:
                yield command

    def control_command(self, **options: Any) -> Callable[[F], F]:
        """Return a decorator that makes a function a command that changes something.

        Args:
            **options: Fields of `ControlCommand`; the function's name and text when left out.
        """
        return self._decorator("control", options)

    def inspect_command(self, **options: Any) -> Callable[[F], F]:
        """Return a decorator that makes a function a command that asks something.

        Args:
            **options: Fields of `ControlCommand`; the function's name and text when left out.
        """
        return self._decorator("inspect", options)

    def register(self, *args: Any, **options: Any) -> Any:
        """Make a function a command; to be used as a decorator with or without arguments.

        Args:
            *args: The function, when used without arguments.
            **options: As for `control_command`; ``type`` is its kind.
        """
        decorate = self._decorator(options.pop("type", "control"), options)
        return decorate(args[0]) if args else decorate

    def _decorator(self, kind: Kind, options: dict[str, Any]) -> Callable[[F], F]:
        def decorate(function: F) -> F:
            given = {name: value for name, value in options.items() if value is not None}
            given["args"] = tuple(given.get("args", ()))
            text = (function.__doc__ or "").strip()
            given.setdefault("name", function.__name__)
            given.setdefault("help", text.split("\n", 1)[0] or None)
            given.setdefault("kind", kind)
            self.add(ControlCommand(run=function, blocks=True, **given))
            return function

        return decorate
