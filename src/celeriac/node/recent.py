"""What this node has finished lately: a broker that crashes may forget that it was told."""

from __future__ import annotations

from collections import OrderedDict

from celeriac.message import Requeue, TaskHeaders, Verdict

_REMEMBERED = 1000


class Recent:
    """The latest messages that were settled for good, with their verdicts.

    RabbitMQ does not wait for the disk before it takes an acknowledgement, nor does it answer one: after a
    crash of the broker, or of the connection, messages come again that are long done.
    """

    def __init__(self) -> None:
        self._verdicts: OrderedDict[tuple[str, int | None], Verdict] = OrderedDict()

    def note(self, headers: TaskHeaders, verdict: Verdict) -> None:
        """Remember a message, unless it was put back."""
        if isinstance(verdict, Requeue):
            self._verdicts.pop((headers.id, headers.retries), None)
            return
        self._verdicts[headers.id, headers.retries] = verdict
        if len(self._verdicts) > _REMEMBERED:
            self._verdicts.popitem(last=False)

    def verdict_of(self, headers: TaskHeaders) -> Verdict | None:
        """Return what became of a message that comes again; None when it is not remembered."""
        return self._verdicts.get((headers.id, headers.retries))
