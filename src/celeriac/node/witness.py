"""Who sees what becomes of some tasks in a node: others' code that has to hear of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from celeriac.message import Finished, Lost, Started

if TYPE_CHECKING:
    from celeriac.node.work import Work


class Witness(Protocol):
    """Sees tasks begin and end. It is told on the node's loop, so it raises nothing and passes on at once."""

    def minds(self, task: Any) -> bool:  # Any: a Task of any parameters
        """Return whether it wants to see what becomes of calls of a task."""
        ...

    def started(self, work: Work, report: Started | Finished) -> None:
        """See that one has begun."""
        ...

    def ended(self, work: Work, report: Finished) -> None:
        """See how one has ended, when that is written down."""
        ...

    def lost(self, work: Work, report: Lost) -> None:
        """See that one has failed together with its process, or at its time limit."""
        ...
