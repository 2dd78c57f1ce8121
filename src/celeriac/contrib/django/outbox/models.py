"""The table of the outbox."""

from __future__ import annotations

import datetime
from collections.abc import Collection
from typing import Any, Final

import msgspec
from django.db import DEFAULT_DB_ALIAS, models
from django.db.models.functions import Now

from celeriac.message import Outgoing
from celeriac.queues import Queue
from celeriac.transports.blob import pack, unpack

# A row belongs to whoever has claimed it for so long, in the database's own time: long enough for all that
# sending may take, so that nobody sends it beside him.
CLAIM_SECONDS: Final = 15.0
LONGEST_PAUSE_SECONDS: Final = 600.0


class OutboxMessage(models.Model):  # type: ignore[misc]  # Django ships no types
    """A message to be sent: written with the transaction that it is about, deleted once it is sent."""

    # Any: fields of Django's, and what they hold in a row
    app: Any = models.CharField(max_length=255, editable=False)  # the name of the app that sends it
    task: Any = models.CharField(max_length=255, editable=False)
    task_id: Any = models.CharField(max_length=255, editable=False)
    message: Any = models.BinaryField()
    written: Any = models.DateTimeField(auto_now_add=True)
    due: Any = models.DateTimeField(db_index=True)  # when it belongs to nobody
    attempts: Any = models.PositiveIntegerField(
        default=0
    )  # to send it, but for the first one right after commit
    error: Any = models.TextField(blank=True)  # of the last one

    class Meta:
        """Options of Django's."""

        ordering: tuple[str, ...] = ("id",)
        verbose_name: str = "message"

    def __str__(self) -> str:
        """Name the task."""
        return f"{self.task}[{self.task_id}]"


class _Packed(msgspec.Struct, array_like=True):
    """An `Outgoing` in the table."""

    envelope: bytes
    exchange: str
    routing_key: str
    queue: Queue | None
    not_before: float | None


def rows() -> Any:  # Any: a QuerySet of Django's
    """Return the rows in the database whose transactions ``delay_on_commit`` waits for, not in a replica."""
    return OutboxMessage.objects.using(DEFAULT_DB_ALIAS)


def row_of(app: str, outgoing: Outgoing) -> OutboxMessage:
    """Return the row of a message, not saved yet.

    Raises:
        EncodeError: A header or property has no form in msgpack.
    """
    envelope = outgoing.envelope
    packed = _Packed(
        pack(envelope), outgoing.exchange, outgoing.routing_key, outgoing.queue, outgoing.not_before
    )
    return OutboxMessage(
        app=app,
        task=str(envelope.headers.get("task", "")),
        task_id=str(envelope.headers.get("id", "")),
        message=msgspec.msgpack.encode(packed),
        due=in_seconds(CLAIM_SECONDS),
    )


def message_of(row: OutboxMessage) -> Outgoing:
    """Return the message of a row.

    Raises:
        ValueError: It holds something else.
    """
    packed = msgspec.msgpack.decode(bytes(row.message), type=_Packed)
    return Outgoing(
        envelope=unpack(packed.envelope),
        exchange=packed.exchange,
        routing_key=packed.routing_key,
        queue=packed.queue,
        not_before=packed.not_before,
    )


def in_seconds(seconds: float) -> Any:  # Any: an expression of Django's
    """Return a moment so many seconds from now, in the database's time: machines may not agree on theirs."""
    return Now() + datetime.timedelta(seconds=seconds)


def claim(row: OutboxMessage) -> bool:
    """Make a row one's own for a while, longer after each attempt; return False when another has it."""
    pause = min(CLAIM_SECONDS * 2.0 ** min(row.attempts, 10), LONGEST_PAUSE_SECONDS)
    mine = rows().filter(pk=row.pk, attempts=row.attempts)  # others would have counted
    return bool(mine.update(attempts=row.attempts + 1, due=in_seconds(pause)))


def note(row: OutboxMessage, error: Exception) -> None:
    """Write down why a message could not be sent."""
    rows().filter(pk=row.pk).update(error=f"{type(error).__name__}: {error}")


def remove(sent: Collection[OutboxMessage]) -> None:
    """Delete the rows of messages that were sent."""
    rows().filter(pk__in=[row.pk for row in sent]).delete()
