"""What the canvas needs of an app: the algebra of signatures does no I/O, the sender does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol


class Sender(Protocol):
    """Sends what a signature describes; an app is one.

    Any, throughout: results are classes of floor 3, and arguments are the user's values.
    """

    @property
    def tasks(self) -> Mapping[str, Any]:
        """The tasks that are registered here, by name."""
        ...

    @property
    def conf(self) -> Any:
        """The settings."""
        ...

    @property
    def AsyncResult(self) -> Any:  # noqa: N802 - a class
        """The class of results of one task."""
        ...

    @property
    def GroupResult(self) -> Any:  # noqa: N802 - a class
        """The class of results of several."""
        ...

    def send_task(self, name: str, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Publish a call by name and return its result."""
        ...

    def send_all(self, sending: Iterable[Any]) -> list[Any]:
        """Run a generator that sends as it goes, in batches of bounded size; return what it yields."""
        ...

    def new_id(self) -> str:
        """Return a new id."""
        ...

    def reply_address(self) -> str | None:
        """Return where results shall be sent to."""
        ...

    def add_trail(self, result: Any) -> None:
        """Note a result as that of a child of the task that is running here, if there is one."""
        ...

    def allow_join(self) -> AbstractContextManager[Any]:
        """Return a block in which tasks may wait for results."""
        ...

    def give_up_here(self, body: Any, error: Exception) -> None:
        """Call the errbacks of the body of a chord that will never run, right here: its header has failed.

        Args:
            body: The signature that was to be applied.
            error: What the header has failed with.
        """
        ...

    def start_chord(self, group_id: str, size: int, members: Any, body: Any) -> None:
        """Prepare the result backend for a chord, before its header is sent.

        Args:
            group_id: The id of the header.
            size: How many parts there will be.
            members: The result of the header, as nested tuples.
            body: The signature to apply with the results, frozen.

        Raises:
            NotImplementedError: There is no result backend, or it cannot count chords.
        """
        ...
