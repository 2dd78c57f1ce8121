"""Who takes messages instead of having each one run: others' code that says what becomes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from celeriac.node.work import Work


class Borrower(Protocol):
    """Borrows messages. It is told on the node's loop, so it raises nothing and passes on at once.

    What it has borrowed it settles with `celeriac.node.loans.Loans.settle`; what it does not settle goes back
    when the node ends.
    """

    def wants(self, task: Any) -> bool:  # Any: a Task of any parameters
        """Return whether it borrows the messages of a task."""
        ...

    def lend(self, work: Work) -> None:
        """Take a message whose time has come."""
        ...
