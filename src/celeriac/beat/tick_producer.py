"""Sending the call of a slot so that it is there once, however often it is sent."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import msgspec

from celeriac.copies import COPY_HEADER
from celeriac.message import Once, Outgoing
from celeriac.ports import Producer, Transport
from celeriac.wire.task import RESENT_HEADER

__all__ = ["TickProducer", "task_id_of"]


class TickProducer:
    """A producer that numbers the messages of slots, `celeriac.ports.Producer`.

    A broker that counts drops what it has been sent before. To others the message goes as one of several
    copies with one task id, of which workers run one where results are kept (`celeriac.copies`).

    Args:
        transport: To the broker.
    """

    def __init__(self, transport: Transport) -> None:
        self._counts = transport.caps.once
        self._producer: Producer = transport.producer()
        self._once = Once("", 0.0)
        self._task_id = ""
        self._in_doubt = False

    def begin(self, once: Once, task_id: str, *, in_doubt: bool) -> None:
        """Say of what the next message is the call.

        Args:
            once: The entry and its slot.
            task_id: Of that message; others that are sent meanwhile are left as they are.
            in_doubt: Whether it may have been sent before.
        """
        self._once, self._task_id, self._in_doubt = once, task_id, in_doubt

    def send(self, batch: Sequence[Outgoing], *, deadline: float) -> None:
        """See `celeriac.ports.Producer`."""
        self._producer.send([self._numbered(outgoing) for outgoing in batch], deadline=deadline)

    async def asend(self, batch: Sequence[Outgoing], *, deadline: float) -> None:
        """See `celeriac.ports.Producer`."""
        await self._producer.asend([self._numbered(outgoing) for outgoing in batch], deadline=deadline)

    def close(self) -> None:
        """See `celeriac.ports.Producer`."""
        self._producer.close()

    def _numbered(self, outgoing: Outgoing) -> Outgoing:
        headers = outgoing.envelope.headers
        if headers.get("id") != self._task_id:
            return outgoing
        if self._counts:
            return msgspec.structs.replace(outgoing, once=self._once)
        headers.setdefault(COPY_HEADER, f"/{uuid.uuid4()}")
        if self._in_doubt:
            headers[RESENT_HEADER] = True
        return outgoing


def task_id_of(once: Once) -> str:
    """Return the id of a slot's task: the same, whoever sends it."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{once.row} {once.number!r}"))
