"""What is written down when the store was away for longer than the lease."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from celeriac.errors import BackendUnreachable
from celeriac.message import Ack, Delivery, Envelope, Props, Record, Verdict
from celeriac.node.scribe import Entry, Scribe
from celeriac.ports import Caps


class Consumer:
    """A broker that takes everything back when the test says so."""

    def __init__(self) -> None:
        self.ours = True
        self.settled: list[Verdict] = []

    def holds(self, delivery: Delivery) -> bool:
        return self.ours

    async def settle(self, verdicts: Sequence[tuple[Delivery, Verdict]]) -> None:
        self.settled += [verdict for _, verdict in verdicts]


class Store:
    """A result store that fails once, as long as it takes for others to have told a failure."""

    persistent = True

    def __init__(self, consumer: Consumer, told: str) -> None:
        self.consumer = consumer
        self.told = told
        self.stored: list[str] = []
        self.attempts = 0

    async def astore(self, records: Sequence[Record]) -> None:
        self.attempts += 1
        if self.attempts == 1:
            self.consumer.ours = False
            raise BackendUnreachable("nobody answers")
        self.stored += [record.id for record in records]

    def fetch(self, ids: Sequence[str]) -> dict[str, Any]:
        return {id_: SimpleNamespace(state=self.told) for id_ in ids}


@pytest.mark.parametrize(("told", "stored"), [("FAILURE", []), ("STARTED", ["a"])])
async def test_what_others_have_told_while_the_store_was_away_stands(
    told: str, stored: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("celeriac.node.scribe._RETRY_START_SECONDS", 0.0)
    consumer = Consumer()
    store = Store(consumer, told)
    link: Any = SimpleNamespace(
        sure=True, consumer=consumer, transport=SimpleNamespace(caps=Caps(leases=True))
    )
    backend: Any = store
    keeper: Any = None
    delivery = Delivery(envelope=Envelope(headers={}, body=b"", properties=Props()), queue="celery")
    entry = Entry(Record(id="a", state="SUCCESS", payload=b""), delivery, Ack())

    await Scribe(link, backend, keeper).write([entry], [])

    assert store.stored == stored
    assert consumer.settled == [Ack()]
