"""What storing, fetching and forgetting owe."""

from __future__ import annotations

import asyncio
import datetime
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from celeriac import states
from celeriac.backends import BackendSpec, connect
from celeriac.errors import BackendUnreachable, EncodeError
from celeriac.errors import TimeoutError as ResultTimeout
from celeriac.message import Outcome
from celeriac.ports import ResultBackend
from celeriac.testing.conformance.backend_fixtures import BackendFixtures
from celeriac.testing.conformance.messages import PATIENCE_SECONDS, process, read_line
from celeriac.testing.conformance.outcomes import failure, store, success

VALUES: dict[str, Any] = {  # Any: what tasks return
    "none": None,
    "int": 42,
    "float": 0.5,
    "text": "grüß dich 🌱",
    "list": [1, [2, ["three"]]],
    "dict": {"a": {"b": [True, None]}},
    "large": "x" * 300_000,
}


class StoreTests(BackendFixtures):
    """What storing, fetching and forgetting owe."""

    @pytest.mark.parametrize("name", VALUES)
    def test_a_result_is_read_as_it_was_stored(
        self, client: ResultBackend, worker: ResultBackend, name: str
    ) -> None:
        outcome = success(VALUES[name])

        store(client, worker, outcome)

        [got] = client.wait([outcome.id], PATIENCE_SECONDS)
        assert (got.id, got.state, got.result) == (outcome.id, states.SUCCESS, VALUES[name])

    def test_everything_known_of_a_result_is_kept(
        self, make_backend: Callable[..., ResultBackend], client: ResultBackend, worker: ResultBackend
    ) -> None:
        outcome = success(
            3,
            children=[[[str(uuid.uuid4()), None], None]],
            date_done="2026-11-20T23:12:48.280674+00:00",
            group_id="group-1",
            parent_id="parent-1",
        )

        store(client, worker, outcome)

        [got] = client.wait([outcome.id], PATIENCE_SECONDS)
        assert got.date_done is not None
        done = datetime.datetime.fromisoformat(got.date_done)
        assert done == datetime.datetime(2026, 11, 20, 23, 12, 48, 280674, tzinfo=datetime.UTC)
        if self.keeps_relations:
            assert got.children == outcome.children
            assert (got.group_id, got.parent_id) == ("group-1", "parent-1")

    def test_an_extended_result_tells_how_it_came_about(
        self, make_backend: Callable[..., ResultBackend]
    ) -> None:
        if not self.keeps_extended:
            pytest.skip("this backend keeps results only")
        client, worker = make_backend(extended=True), make_backend(extended=True)
        outcome = success(
            3,
            extended={
                "name": "proj.add",
                "args": [1, 2],
                "kwargs": {"verbose": True},
                "worker": "celery@host",
                "retries": 1,
                "queue": "celery",
            },
        )

        store(client, worker, outcome)

        [got] = client.wait([outcome.id], PATIENCE_SECONDS)
        assert got.extended == outcome.extended

    def test_an_exception_comes_back_as_its_class(self, client: ResultBackend, worker: ResultBackend) -> None:
        outcome = failure(KeyError("nope", 42), traceback="Traceback (most recent call last):\n  boom\n")

        store(client, worker, outcome)

        [got] = client.wait([outcome.id], PATIENCE_SECONDS)
        assert got.state == states.FAILURE
        assert isinstance(got.result, KeyError)
        assert got.result.args == ("nope", 42)
        assert got.traceback == outcome.traceback

    def test_our_own_errors_come_back_as_ours(self, client: ResultBackend, worker: ResultBackend) -> None:
        outcome = failure(ResultTimeout("too slow"))

        store(client, worker, outcome)

        [got] = client.wait([outcome.id], PATIENCE_SECONDS)
        assert type(got.result) is ResultTimeout
        assert got.result.args == ("too slow",)

    def test_a_value_without_a_form_in_the_serializer_is_refused(self, worker: ResultBackend) -> None:
        with pytest.raises(EncodeError):
            worker.encode(success(threading.Lock()))

    def test_encoding_needs_no_store(self, worker: ResultBackend) -> None:
        outcome = success("pure")

        record = worker.encode(outcome)

        assert (record.id, record.state) == (outcome.id, states.SUCCESS)

    def test_a_custom_state_keeps_its_meta(self, client: ResultBackend, worker: ResultBackend) -> None:
        if not client.persistent:
            pytest.skip("results are read once here")
        outcome = Outcome(id=str(uuid.uuid4()), state="PROGRESS", result={"done": 3, "of": 10})

        store(client, worker, outcome)

        got = client.fetch([outcome.id])[outcome.id]
        assert (got.state, got.result) == ("PROGRESS", {"done": 3, "of": 10})

    def test_states_follow_each_other_until_success(
        self, client: ResultBackend, worker: ResultBackend
    ) -> None:
        if not client.persistent:
            pytest.skip("results are read once here")
        task_id = str(uuid.uuid4())
        steps = [
            (states.STARTED, {"pid": 1, "hostname": "celery@host"}),
            (states.RETRY, ValueError("again")),
            (states.FAILURE, ValueError("boom")),
            (states.SUCCESS, "done"),
        ]
        seen = []

        for state, result in steps:
            store(client, worker, Outcome(id=task_id, state=state, result=result))
            seen.append(client.fetch([task_id])[task_id].state)

        assert seen == [state for state, _ in steps]

    @pytest.mark.parametrize("later", [states.FAILURE, states.STARTED, states.REVOKED])
    def test_a_success_is_never_overwritten(
        self, client: ResultBackend, worker: ResultBackend, later: str
    ) -> None:
        if not client.persistent:
            pytest.skip("results are read once here")
        outcome = success("first")
        store(client, worker, outcome)

        result = {"pid": 1} if later == states.STARTED else ValueError("late")
        store(client, worker, Outcome(id=outcome.id, state=later, result=result))

        got = client.fetch([outcome.id])[outcome.id]
        assert (got.state, got.result) == (states.SUCCESS, "first")

    @pytest.mark.parametrize("end", [states.FAILURE, states.REVOKED])
    @pytest.mark.parametrize("together", [False, True], ids=["one by one", "in one batch"])
    def test_the_retry_of_a_run_before_comes_too_late_for_the_end_of_a_task(
        self, client: ResultBackend, worker: ResultBackend, end: str, together: bool
    ) -> None:
        task_id = str(uuid.uuid4())
        last = Outcome(id=task_id, state=end, result=ValueError("the end"))
        late = Outcome(id=task_id, state=states.RETRY, result=ValueError("again"))

        for outcomes in [[last, late]] if together else [[last], [late]]:
            store(client, worker, *outcomes)

        [got] = client.wait([task_id], PATIENCE_SECONDS)
        assert (got.state, got.result.args) == (end, ("the end",))
        if client.persistent:
            assert client.fetch([task_id])[task_id].state == end

    def test_within_a_batch_the_last_state_counts_unless_one_succeeded(
        self, client: ResultBackend, worker: ResultBackend
    ) -> None:
        if not client.persistent:
            pytest.skip("results are read once here")
        one, two = str(uuid.uuid4()), str(uuid.uuid4())

        store(
            client,
            worker,
            Outcome(id=one, state=states.STARTED, result={"pid": 1}),
            success("yes", id=two),
            success("done", id=one),
            failure(ValueError("late"), id=two),
        )

        got = client.fetch([one, two])
        assert (got[one].result, got[two].result) == ("done", "yes")

    def test_unknown_ids_are_left_out(self, client: ResultBackend, worker: ResultBackend) -> None:
        outcomes = [success(n) for n in range(20)]
        store(client, worker, *outcomes)

        list(client.wait([o.id for o in outcomes], PATIENCE_SECONDS))
        if not client.persistent:
            pytest.skip("results are read once here")
        got = client.fetch([*(o.id for o in outcomes), "unknown"])

        assert {task_id: outcome.result for task_id, outcome in got.items()} == {
            o.id: o.result for o in outcomes
        }

    def test_nothing_is_fetched_for_nothing(self, client: ResultBackend) -> None:
        assert client.fetch([]) == {}
        assert client.fetch(["unknown"]) == {}

    def test_a_forgotten_result_is_gone(self, client: ResultBackend, worker: ResultBackend) -> None:
        outcome, other = success(1), success(2)
        store(client, worker, outcome, other)
        list(client.wait([outcome.id, other.id], PATIENCE_SECONDS))

        client.forget([outcome.id])
        client.forget([outcome.id, "unknown"])

        assert outcome.id not in client.fetch([outcome.id])
        if client.persistent:
            assert client.fetch([other.id])[other.id].result == 2

    async def test_astore_does_the_same_on_a_loop(self, client: ResultBackend, worker: ResultBackend) -> None:
        outcome = success("async")
        reply_to = await asyncio.to_thread(client.reply_address)

        await worker.astore([worker.encode(outcome, reply_to=reply_to, correlation_id=outcome.id)])

        [got] = await asyncio.to_thread(lambda: list(client.wait([outcome.id], PATIENCE_SECONDS)))
        assert got.result == "async"

    def test_another_process_reads_and_writes(
        self, spec: BackendSpec, client: ResultBackend, worker: ResultBackend
    ) -> None:
        if not (client.persistent and self.across_processes):
            pytest.skip("other processes cannot see these results")
        mine = success({"from": "here"})
        store(client, worker, mine)

        with process("answer", spec.url, spec.options, mine.id) as peer:
            their_id = read_line(peer)
            [got] = client.wait([their_id], PATIENCE_SECONDS)

        assert got.result == {"read": {"from": "here"}}

    def test_a_backend_survives_a_fork(self, spec: BackendSpec, client: ResultBackend) -> None:
        if not (client.persistent and self.across_processes):
            pytest.skip("other processes cannot see these results")

        with process("store_around_fork", spec.url, spec.options) as peer:
            ids = msgspec.json.decode(read_line(peer), type=list[str])

        assert {task_id: outcome.result for task_id, outcome in client.fetch(ids).items()} == dict(
            zip(ids, ["before", "child", "parent"], strict=True)
        )

    def test_results_expire(self, make_backend: Callable[..., ResultBackend]) -> None:
        if not self.expires:
            pytest.skip("results do not expire here")
        backend, attempts = make_backend(expires_seconds=1), 0
        found: dict[str, Outcome] = {}
        while not found and attempts < 5:  # a busy machine may look only after a second
            attempts += 1
            outcome = success(1, date_done=_now())
            store(backend, backend, outcome)
            found = backend.fetch([outcome.id])
        assert outcome.id in found
        chord_id, parts = str(uuid.uuid4()), [success(n) for n in range(3)]
        one, *others = [[[part.id, None], None] for part in parts]
        if self.has_chords:
            backend.start_chord(chord_id, 3, [one, [["inner", None], others]])
            assert backend.chord_part(chord_id, 0, parts[0]) is None
            assert backend.chord_part(chord_id, 1, parts[1]) is None

        time.sleep(1.2)
        backend.cleanup()

        assert backend.fetch([outcome.id]) == {}
        if self.has_chords:  # a header may take longer than its results are kept
            everything = backend.chord_part(chord_id, 2, parts[2])
            assert everything is not None
            assert [part.result for part in everything] == [0, [1, 2]]

    def test_expired_results_and_groups_go_though_nobody_schedules_it(
        self, make_backend: Callable[..., ResultBackend]
    ) -> None:
        if not self.expires:
            pytest.skip("results do not expire here")
        backend, outcome = make_backend(expires_seconds=1), success(1, date_done=_now())
        store(backend, backend, outcome)
        group_id = str(uuid.uuid4())
        if self.has_groups:
            backend.save_group(group_id, [[group_id, None], []])

        time.sleep(1.2)
        store(backend, backend, success(2, date_done=_now()))

        assert backend.fetch([outcome.id]) == {}
        if self.has_groups:
            assert backend.restore_group(group_id) is None

    def test_an_unreachable_store_is_told_without_its_password(
        self, unreachable_url: str | None, spec: BackendSpec
    ) -> None:
        if unreachable_url is None:
            pytest.skip("this store is always there")
        backend = connect(msgspec.structs.replace(spec, url=unreachable_url))
        assert backend is not None

        began = time.monotonic()
        with pytest.raises(BackendUnreachable) as caught:
            backend.store([backend.encode(success(1))])
        took = time.monotonic() - began

        backend.close()
        assert took < 10.0
        assert "sekrit" not in str(caught.value)

    def test_a_closed_backend_opens_again(self, client: ResultBackend, worker: ResultBackend) -> None:
        if not client.persistent:
            pytest.skip("results are read once here")
        outcome = success(1)
        store(client, worker, outcome)
        client.close()
        client.close()

        assert client.fetch([outcome.id])[outcome.id].result == 1


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat()
