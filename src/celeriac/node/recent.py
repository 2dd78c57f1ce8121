"""What this node has finished lately: a broker that crashes may forget that it was told."""

from __future__ import annotations

from collections import OrderedDict

from celeriac.message import Requeue, TaskHeaders, Verdict

_REMEMBERED = 1000

Turn = tuple[str, int | None, int | None]


def turn_of(headers: TaskHeaders) -> Turn:
    """Return which message of its task one is: a retry, and what replaces a task, go on under its id."""
    return headers.id, headers.retries, headers.replaced_task_nesting


class Recent:
    """The latest messages that were settled for good, with their verdicts.

    RabbitMQ does not wait for the disk before it takes an acknowledgement, nor does it answer one: after a
    crash of the broker, or of the connection, messages come again that are long done.
    """

    def __init__(self) -> None:
        self._verdicts: OrderedDict[Turn, Verdict] = OrderedDict()

    def note(self, headers: TaskHeaders, verdict: Verdict) -> None:
        """Remember a message, unless it was put back."""
        if isinstance(verdict, Requeue):
            self._verdicts.pop(turn_of(headers), None)
            return
        self._verdicts[turn_of(headers)] = verdict
        if len(self._verdicts) > _REMEMBERED:
            self._verdicts.popitem(last=False)

    def verdict_of(self, headers: TaskHeaders) -> Verdict | None:
        """Return what became of a message that comes again; None when it is not remembered."""
        return self._verdicts.get(turn_of(headers))
