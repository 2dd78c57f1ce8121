"""What this node has finished lately: a broker that crashes may forget that it was told."""

from __future__ import annotations

from celeriac.copies import COPY_HEADER
from celeriac.latest import Latest
from celeriac.message import Envelope, Park, Requeue, TaskHeaders, Verdict

_REMEMBERED = 1000

Turn = tuple[str, str, int | None, int | None, str | None, int]


def turn_of(headers: TaskHeaders, envelope: Envelope) -> Turn:
    """Return which message of its task one is.

    A retry, and what replaces a task, go on under its id. So does each copy of the body of a chord, and each
    call of a debounced burst, of which one is run: the others having been dropped says nothing of that.
    And whoever sends a call under an id of his own may choose the same for another task, or other arguments.

    Args:
        headers: The message's.
        envelope: The message.
    """
    copy = envelope.headers.get(COPY_HEADER) or headers.burst
    return (
        headers.id,
        headers.task,
        headers.retries,
        headers.replaced_task_nesting,
        copy if type(copy) is str else None,
        hash(envelope.body),
    )


class Recent:
    """The latest messages that were settled for good, with their verdicts.

    RabbitMQ does not wait for the disk before it takes an acknowledgement, nor does it answer one: after a
    crash of the broker, or of the connection, messages come again that are long done.

    Whoever sends a call under an id of his own may send it once more, which must not be taken for the first
    time. Where messages have marks of their own (`celeriac.message.Props.delivery_tag`) these tell; elsewhere
    a message that comes for the first time makes the earlier one forgotten.
    """

    def __init__(self) -> None:
        self._verdicts: Latest[Turn, tuple[str | None, Verdict]] = Latest(_REMEMBERED)

    def note(self, headers: TaskHeaders, envelope: Envelope, verdict: Verdict) -> None:
        """Remember a message, unless it was put back."""
        turn = turn_of(headers, envelope)
        if isinstance(verdict, (Park, Requeue)):
            self._verdicts.pop(turn, None)
        else:
            self._verdicts.note(turn, (envelope.properties.delivery_tag, verdict))

    def forget(self, headers: TaskHeaders, envelope: Envelope) -> None:
        """Forget what was sent before under the same id: this message is another one."""
        self._verdicts.pop(turn_of(headers, envelope), None)

    def verdict_of(self, headers: TaskHeaders, envelope: Envelope) -> Verdict | None:
        """Return what became of a message that comes again; None when it is not remembered."""
        tag, verdict = self._verdicts.get(turn_of(headers, envelope), (None, None))
        return verdict if tag == envelope.properties.delivery_tag else None

    def has_turn(self, headers: TaskHeaders, envelope: Envelope) -> bool:
        """Return whether this message, or one that was sent for the same call, is remembered."""
        return turn_of(headers, envelope) in self._verdicts
