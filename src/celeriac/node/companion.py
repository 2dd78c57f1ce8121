"""Others' code that lives with a worker: what a distribution adds to it without being part of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from celeriac.node.node import Node


class Companion(Protocol):
    """Lives with a worker; none of its code runs on the node's loop.

    ``Celeriac.on_worker`` makes one for each worker, or none.
    """

    def begin(self) -> None:
        """Begin, in the thread that runs the worker, when all is forked and before there is a loop.

        Raises:
            Exception: The worker cannot do without: it ends with an error.
        """
        ...

    def join(self, node: Node) -> None:
        """See the node before it runs, on its loop: the place to have something run beside it."""
        ...

    def end(self, *, cold: bool) -> None:
        """End, in the thread that runs the worker, when the node has ended; raises nothing.

        Args:
            cold: Whether the worker was in a hurry.
        """
        ...
