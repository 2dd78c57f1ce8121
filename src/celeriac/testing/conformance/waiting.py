"""What `ResultBackend.wait` owes."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from celeriac import states
from celeriac.errors import TimeoutError as ResultTimeout
from celeriac.message import Outcome
from celeriac.ports import ResultBackend
from celeriac.testing.conformance.backend_fixtures import BackendFixtures
from celeriac.testing.conformance.messages import PATIENCE_SECONDS
from celeriac.testing.conformance.outcomes import failure, store, success


class WaitTests(BackendFixtures):
    """What `wait` owes."""

    def test_wait_yields_each_id_once_as_it_becomes_ready(
        self, client: ResultBackend, worker: ResultBackend
    ) -> None:
        outcomes = [success(n) for n in range(6)]
        store(client, worker, *outcomes[:2])
        waiting = client.wait([o.id for o in outcomes], PATIENCE_SECONDS)

        seen = [next(waiting), next(waiting)]
        store(client, worker, outcomes[4])
        seen.append(next(waiting))
        store(client, worker, outcomes[2], outcomes[3], outcomes[5])
        seen.extend(waiting)

        assert {o.id for o in seen[:2]} == {o.id for o in outcomes[:2]}
        assert seen[2].id == outcomes[4].id
        assert sorted(o.result for o in seen) == list(range(6))

    def test_a_waiting_thread_is_woken(self, client: ResultBackend, worker: ResultBackend) -> None:
        outcome = success("woken")
        woken_at = []

        def wait() -> list[Outcome]:
            got = list(client.wait([outcome.id], PATIENCE_SECONDS))
            woken_at.append(time.monotonic())
            return got

        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(wait)
            time.sleep(0.2)
            stored_at = time.monotonic()
            store(client, worker, outcome)
            [got] = future.result(PATIENCE_SECONDS)

        assert got.result == "woken"
        assert woken_at[0] - stored_at < 2.0

    def test_many_threads_wait_at_once(self, client: ResultBackend, worker: ResultBackend) -> None:
        outcomes = [success(n) for n in range(8)]
        ready = threading.Barrier(5)

        def wait(mine: list[Outcome]) -> list[Any]:  # Any: results
            ready.wait(PATIENCE_SECONDS)
            return sorted(o.result for o in client.wait([o.id for o in mine], PATIENCE_SECONDS))

        with ThreadPoolExecutor(4) as pool:
            futures = [pool.submit(wait, outcomes[n::4]) for n in range(4)]
            ready.wait(PATIENCE_SECONDS)
            for outcome in outcomes:
                store(client, worker, outcome)
            got = [future.result(PATIENCE_SECONDS) for future in futures]

        assert got == [[0, 4], [1, 5], [2, 6], [3, 7]]

    def test_unready_states_do_not_end_the_wait(self, client: ResultBackend, worker: ResultBackend) -> None:
        task_id = str(uuid.uuid4())
        waiting = iter(client.wait([task_id], PATIENCE_SECONDS))
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(next, waiting)

            store(client, worker, Outcome(id=task_id, state=states.STARTED, result={"pid": 1}))
            store(client, worker, Outcome(id=task_id, state=states.RETRY, result=ValueError("again")))
            time.sleep(0.2)
            assert not future.done()
            store(client, worker, success("at last", id=task_id))

            assert future.result(PATIENCE_SECONDS).result == "at last"

    def test_a_failure_ends_the_wait(self, client: ResultBackend, worker: ResultBackend) -> None:
        outcome = failure(ValueError("boom"))
        store(client, worker, outcome)

        [got] = client.wait([outcome.id], PATIENCE_SECONDS)

        assert got.state == states.FAILURE

    def test_wait_gives_up_in_time(self, client: ResultBackend, worker: ResultBackend) -> None:
        known, unknown = success(1), str(uuid.uuid4())
        store(client, worker, known)
        waiting = client.wait([known.id, unknown], 0.4)

        began = time.monotonic()
        assert next(waiting).id == known.id
        with pytest.raises(ResultTimeout):
            next(waiting)
        took = time.monotonic() - began

        assert 0.3 < took < 2.0

    def test_ids_may_be_added_and_dropped_while_it_waits(
        self, client: ResultBackend, worker: ResultBackend
    ) -> None:
        outcomes = [success(n) for n in range(3)]
        waiting = client.waiting()
        waiting.add([outcomes[0].id, "dropped"])
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(waiting.next, time.monotonic() + PATIENCE_SECONDS)
            waiting.add([outcomes[1].id])
            waiting.drop(["dropped"])
            store(client, worker, outcomes[1])
            assert [o.id for o in future.result(PATIENCE_SECONDS)] == [outcomes[1].id]

            future = pool.submit(waiting.next, time.monotonic() + PATIENCE_SECONDS)
            waiting.wake()
            assert future.result(PATIENCE_SECONDS) == []

        store(client, worker, outcomes[0])
        assert [o.result for o in waiting.next(time.monotonic() + PATIENCE_SECONDS)] == [0]
        assert not waiting.missing
        assert waiting.next(time.monotonic() + PATIENCE_SECONDS) == []
        waiting.close()

    def test_states_that_are_not_final_are_news_for_who_wants_them(
        self, client: ResultBackend, worker: ResultBackend
    ) -> None:
        outcome = success("end")
        waiting = client.waiting(every_state=True)
        waiting.add([outcome.id])
        others = client.waiting()
        others.add([outcome.id])
        seen = []
        for state, result in (("PROGRESS", {"done": 1}), ("PROGRESS", {"done": 2})):
            store(client, worker, Outcome(id=outcome.id, state=state, result=result))
            seen += waiting.next(time.monotonic() + PATIENCE_SECONDS)
        store(client, worker, outcome)
        while waiting.missing:
            seen += waiting.next(time.monotonic() + PATIENCE_SECONDS)

        assert [o.result for o in seen if o.state == "PROGRESS"] == [{"done": 1}, {"done": 2}]
        assert seen[-1].result == "end"
        assert [o.result for o in others.next(time.monotonic() + PATIENCE_SECONDS)] == ["end"]
        waiting.close()
        others.close()

    def test_waiting_for_nothing_ends_at_once(self, client: ResultBackend) -> None:
        assert list(client.wait([], 0.0)) == []

    def test_a_wait_may_be_left_early(self, client: ResultBackend, worker: ResultBackend) -> None:
        outcomes = [success(1), success(2)]
        store(client, worker, outcomes[0])
        waiting = client.wait([o.id for o in outcomes], PATIENCE_SECONDS)
        next(waiting)
        assert isinstance(waiting, Iterator)
        del waiting

        store(client, worker, outcomes[1])

        [got] = client.wait([outcomes[1].id], PATIENCE_SECONDS)
        assert got.result == 2
