"""A result store that is away is asked again as `result_backend_always_retry` says."""

from __future__ import annotations

import itertools
import math
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from celeriac import patience
from celeriac.app import Celeriac
from celeriac.backends.memory import MemoryBackend
from celeriac.backends.patient_listener import PatientListener
from celeriac.backends.polling import PollingListener
from celeriac.backends.spec import BackendSpec, options_from
from celeriac.backends.waiter import Waiter
from celeriac.errors import BackendGetMetaError, BackendStoreError, BackendUnreachable
from celeriac.message import Ack, DeadLetter, Delivery, Envelope, Outcome, Props, Record
from celeriac.node.scribe import Entry, Scribe
from celeriac.ports import Caps
from celeriac.tries import Tries, tries_from

RECORD = Record(id="a", state="SUCCESS", payload=b"")
OUTCOME = Outcome(id="a", state="SUCCESS", result=1)
AT_ONCE = Tries(most_ms=0)


class Store:
    """A result store that is away for so many calls."""

    def __init__(self, away: int) -> None:
        self.calls = 0
        self.away = away
        self.stored: list[Record] = []

    def _answer(self) -> None:
        self.calls += 1
        if self.calls <= self.away:
            raise BackendUnreachable("nobody answers")

    def store(self, batch: Sequence[Record]) -> None:
        self._answer()
        self.stored += batch

    async def astore(self, batch: Sequence[Record]) -> None:
        self.store(batch)

    def fetch(self, ids: Sequence[str]) -> dict[str, Outcome]:
        self._answer()
        return {"a": OUTCOME}

    # --- as a listener ---

    watched: tuple[str, ...] = ()

    def watch(self, ids: Sequence[str]) -> list[Outcome]:
        self.watched += tuple(ids)
        return []

    def hear(self, until: float) -> list[Outcome]:
        return list(self.fetch(self.watched).values())

    def wake(self) -> None: ...

    def close(self) -> None:
        self.watched = ()


class FlakyBackend(MemoryBackend):
    """A backend that knows of one result, and is away at first."""

    def __init__(self, app: Celeriac, away: int) -> None:
        spec = BackendSpec(url=f"memory://{uuid.uuid4()}", codecs=app.codecs, options=options_from(app.conf))
        super().__init__(spec)
        super().store([self.encode(OUTCOME)])
        self.calls, self.away = 0, away
        self._waiter = Waiter(lambda: PollingListener(self.fetch), tries_from(spec.options))

    def _answer(self) -> None:
        self.calls += 1
        if self.calls <= self.away:
            raise BackendUnreachable("nobody answers")

    def store(self, batch: Sequence[Record]) -> None:
        self._answer()
        super().store(batch)

    def fetch(self, ids: Sequence[str]) -> dict[str, Outcome]:
        self._answer()
        return super().fetch(ids)


def _sees_a_state(app: Celeriac) -> bool:
    app.task(name="t")(lambda: None).update_state("b", "SEEN")
    return True


WAYS: dict[str, Callable[[Celeriac], Any]] = {
    "state": lambda app: app.AsyncResult("a").state == "SUCCESS",
    "get": lambda app: app.AsyncResult("a").get(timeout=10) == 1,
    "group": lambda app: (
        app.GroupResult("g", [app.AsyncResult("a"), app.AsyncResult("b")]).completed_count() == 1
    ),
    "update_state": _sees_a_state,
}


def app_that_asks(**settings: Any) -> Celeriac:
    app = Celeriac("proj", broker="memory://", set_as_current=False)
    app.conf.update(
        result_backend_always_retry=True, result_backend_max_sleep_between_retries_ms=0, **settings
    )
    return app


class TestPauses:
    def test_they_are_picked_below_a_limit_that_doubles(self) -> None:
        tries = Tries(first_ms=10, most_ms=100)

        rows = zip(*(itertools.islice(tries.pauses(), 6) for _ in range(300)), strict=True)

        for row, limit in zip(rows, (0.02, 0.04, 0.08, 0.1, 0.1, 0.1), strict=True):
            assert min(row) < limit / 4
            assert limit * 3 / 4 < max(row) <= limit

    def test_there_are_as_many_as_tries(self) -> None:
        assert len(list(Tries(most=3).pauses())) == 3
        assert list(Tries(most=0).pauses()) == []

    def test_they_are_what_the_settings_say(self) -> None:
        app = Celeriac("proj", broker="memory://", set_as_current=False)
        assert tries_from(app.conf) is None

        app.conf.result_backend_always_retry = True
        assert tries_from(app.conf) == Tries(first_ms=10, most_ms=10_000, most=math.inf)

        app.conf.update(
            result_backend_base_sleep_between_retries_ms=1,
            result_backend_max_sleep_between_retries_ms=2,
            result_backend_max_retries=3,
        )
        assert tries_from(app.conf) == tries_from(options_from(app.conf))
        assert tries_from(app.conf) == Tries(first_ms=1, most_ms=2, most=3)


class TestProgramsThatAsk:
    def test_a_result_is_stored_and_read_when_the_store_is_back(self) -> None:
        store: Any = Store(away=3)
        patience.store(app_that_asks(), store, [RECORD])
        assert store.stored == [RECORD]

        store = Store(away=3)
        assert patience.fetch(app_that_asks(), store, ["a"]) == {"a": OUTCOME}

    def test_after_the_last_try_the_error_tells_the_task(self) -> None:
        app = app_that_asks(result_backend_max_retries=2)

        with pytest.raises(BackendStoreError, match="nobody answers") as storing:
            patience.store(app, Store(away=3), [RECORD])  # type: ignore[arg-type]
        with pytest.raises(BackendGetMetaError, match="nobody answers") as reading:
            patience.fetch(app, Store(away=3), ["a"])  # type: ignore[arg-type]

        assert (storing.value.task_id, storing.value.state) == ("a", "SUCCESS")
        assert reading.value.task_id == "a"

    def test_without_the_setting_it_is_asked_once(self) -> None:
        store: Any = Store(away=1)

        with pytest.raises(BackendUnreachable):
            patience.fetch(SimpleNamespace(conf=Celeriac("proj").conf), store, ["a"])

        assert store.calls == 1

    @pytest.mark.parametrize("ask", WAYS.values(), ids=WAYS)
    def test_every_way_to_a_result_tries_again(self, ask: Callable[[Celeriac], Any]) -> None:
        app = app_that_asks()
        store: Any = FlakyBackend(app, away=3)
        app.backend = store

        assert ask(app)

        assert store.calls > 3


class TestWhoWaits:
    def test_the_listener_is_made_anew_and_told_of_everything(self) -> None:
        stores = [Store(away=1), Store(away=1), Store(away=0)]
        listener = PatientListener(iter(stores).__next__, AT_ONCE)  # type: ignore[arg-type]

        listener.watch(["a"])
        assert listener.hear(time.monotonic() + 60) == [OUTCOME]

        assert stores[-1].watched == ("a",)

    def test_a_wait_ends_in_time_though_the_store_stays_away(self) -> None:
        listener = PatientListener(lambda: Store(away=10**9), Tries(first_ms=10**6, most_ms=10**6))  # type: ignore[arg-type,return-value]
        listener.watch(["a"])

        assert listener.hear(time.monotonic() + 0.05) == []

    def test_after_the_last_try_it_says_so_and_may_be_asked_again(self) -> None:
        store: Any = Store(away=4)
        listener = PatientListener(lambda: store, Tries(most_ms=0, most=2))
        listener.watch(["a"])

        with pytest.raises(BackendUnreachable):
            listener.hear(time.monotonic() + 60)
        assert store.calls == 3
        assert listener.hear(time.monotonic() + 60) == [OUTCOME]

    def test_who_waits_for_a_store_that_is_away_can_be_woken(self) -> None:
        away = threading.Event()

        def listen() -> Any:
            away.set()
            return Store(away=10**9)

        listener = PatientListener(listen, Tries(first_ms=10**6, most_ms=10**6))
        listener.watch(["a"])
        thread = threading.Thread(target=listener.hear, args=(time.monotonic() + 60,))
        thread.start()
        assert away.wait(10)
        listener.wake()
        thread.join(10)

        assert not thread.is_alive()


class TestWorkersThatStore:
    def scribe(self, store: Store, tries: Tries | None) -> tuple[Scribe, list[Any]]:
        settled: list[Any] = []

        async def settle(verdicts: Any) -> None:
            settled.extend(verdict for _, verdict in verdicts)

        consumer = SimpleNamespace(settle=settle, holds=lambda delivery: True)
        link: Any = SimpleNamespace(sure=True, consumer=consumer, transport=SimpleNamespace(caps=Caps()))
        anything: Any = store
        return Scribe(link, anything, anything, tries), settled

    def entry(self) -> Entry:
        delivery = Delivery(envelope=Envelope(headers={}, body=b"", properties=Props()), queue="celery")
        return Entry(RECORD, delivery, Ack())

    async def test_what_is_stored_in_time_is_acknowledged(self) -> None:
        store = Store(away=2)
        scribe, settled = self.scribe(store, Tries(most_ms=0, most=2))

        await scribe.write([self.entry()], [])

        assert store.stored == [RECORD]
        assert settled == [Ack()]

    async def test_after_the_last_try_messages_become_dead_letters(self) -> None:
        store = Store(away=3)
        scribe, settled = self.scribe(store, Tries(most_ms=0, most=2))

        await scribe.write([self.entry(), self.entry()], [])

        assert store.calls == 3  # for both together
        assert [(type(verdict), verdict.kind) for verdict in settled] == [(DeadLetter, "unstored")] * 2
