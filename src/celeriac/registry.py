"""The tasks of an app, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from celeriac.errors import InvalidTaskError, NotRegistered


class Registry(dict[str, Any]):  # Any: tasks, whose parameters differ
    """A dict of tasks that says `NotRegistered` for names it does not have.

    Args:
        guard: Called before the tasks are looked at; an app finalizes itself there.
    """

    NotRegistered = NotRegistered

    def __missing__(self, key: str) -> NoReturn:
        """Raise NotRegistered, which is a KeyError too."""
        raise NotRegistered(key)

    def register(self, task: Any) -> None:  # Any: a task or its class
        """Add a task under its name; a class is instantiated.

        Raises:
            InvalidTaskError: It has no name.
        """
        if isinstance(task, type):
            task = task()
        if not getattr(task, "name", None):
            raise InvalidTaskError(f"Task class {type(task).__name__!r} must specify .name attribute")
        self[task.name] = task

    def unregister(self, name: str | Any) -> None:  # Any: a task
        """Remove a task, given by name or itself.

        Raises:
            NotRegistered: There is none of that name.
        """
        key = getattr(name, "name", name)
        try:
            self.pop(key)
        except KeyError:
            raise NotRegistered(key) from None

    def regular(self) -> dict[str, Any]:
        """Return the tasks that are not periodic."""
        return self.filter(lambda task: getattr(task, "type", "regular") == "regular")

    def periodic(self) -> dict[str, Any]:
        """Return the tasks of Celery's old periodic kind."""
        return self.filter(lambda task: getattr(task, "type", "regular") == "periodic")

    def filter(self, wanted: Callable[[Any], bool]) -> dict[str, Any]:
        """Return the tasks that a function accepts."""
        return {name: task for name, task in self.items() if wanted(task)}
