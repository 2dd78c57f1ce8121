"""Sending the call of a slot so that it is there once, however often it is sent."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import msgspec

from celeriac.copies import COPY_HEADER
from celeriac.message import Once, Outgoing
from celeriac.ports import Producer, Transport
from celeriac.timetable import SendsAlong, Timetable
from celeriac.wire.task import RESENT_HEADER

__all__ = ["Tick", "TickProducer", "task_id_of"]


class Tick(msgspec.Struct, frozen=True, kw_only=True):
    """One slot of one entry, about to be sent."""

    once: Once  # the entry and its slot
    task_id: str
    in_doubt: bool  # whether it may have been sent before
    lines: dict[str, bytes | None]  # of the timetable, that say that it was sent
    term: int  # in which we lead

    def is_of(self, outgoing: Outgoing) -> bool:
        """Return whether a message is the call of this slot."""
        return outgoing.envelope.headers.get("id") == self.task_id


class TickProducer:
    """A producer that numbers the messages of slots, `celeriac.ports.Producer`.

    A broker that counts drops what it has been sent before. One that keeps the timetable takes the message
    and the note that it was sent in one step. To others the message goes as one of several copies with one
    task id, of which workers run one where results are kept (`celeriac.copies`).

    Args:
        transport: To the broker.
        timetable: What is shared with other schedulers.
    """

    def __init__(self, transport: Transport, timetable: Timetable) -> None:
        self.noted: bool = False  # whether the note was written with the message
        self._counts = transport.caps.once
        self._producer: Producer = transport.producer()
        self._along: SendsAlong | None = None
        if not self._counts and isinstance(timetable, SendsAlong) and timetable.address == transport.address:
            self._along = timetable
        self._tick: Tick | None = None

    def begin(self, tick: Tick) -> None:
        """Say of what the next message is the call; others that are sent meanwhile are left as they are."""
        self._tick = tick
        self.noted = False

    def send(self, batch: Sequence[Outgoing], *, deadline: float) -> None:
        """See `celeriac.ports.Producer`."""
        tick = self._tick
        if self._along is not None and tick is not None and any(map(tick.is_of, batch)):
            self._along.send(batch, tick.lines, tick.term, deadline=deadline)
            self.noted = True
        else:
            self._producer.send([self._numbered(outgoing) for outgoing in batch], deadline=deadline)

    async def asend(self, batch: Sequence[Outgoing], *, deadline: float) -> None:
        """See `celeriac.ports.Producer`; schedulers have no loop."""
        self.send(batch, deadline=deadline)

    def close(self) -> None:
        """See `celeriac.ports.Producer`."""
        self._producer.close()

    def _numbered(self, outgoing: Outgoing) -> Outgoing:
        tick = self._tick
        if tick is None or not tick.is_of(outgoing):
            return outgoing
        if self._counts:
            return msgspec.structs.replace(outgoing, once=tick.once)
        headers = outgoing.envelope.headers
        headers.setdefault(COPY_HEADER, f"/{uuid.uuid4()}")
        if tick.in_doubt:
            headers[RESENT_HEADER] = True
        return outgoing


def task_id_of(once: Once) -> str:
    """Return the id of a slot's task: the same, whoever sends it."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{once.row} {once.number!r}"))
