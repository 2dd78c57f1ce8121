"""The Redis result backend beside real Celery, and when its server goes away."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from celeriac import states
from celeriac.backends import BackendSpec, connect
from celeriac.backends.redis import RedisBackend
from celeriac.codecs import Codecs
from celeriac.errors import BackendError, BackendUnreachable
from celeriac.message import Outcome
from celeriac.testing.conformance.outcomes import failure, success
from redis_probe import command
from servers import RedisServer

PATIENCE_SECONDS = 60.0

Make = Callable[..., RedisBackend]


@pytest.fixture
def make(redis_url: str) -> Iterator[Make]:
    made: list[RedisBackend] = []

    def make_backend(url: str = redis_url, **changes: Any) -> RedisBackend:
        backend = connect(BackendSpec(url=url, codecs=Codecs(), **changes))
        assert isinstance(backend, RedisBackend)
        made.append(backend)
        return backend

    yield make_backend
    for backend in made:
        backend.close()


@pytest.fixture
def backend(make: Make) -> RedisBackend:
    return make()


def store(backend: RedisBackend, *outcomes: Outcome) -> None:
    backend.store([backend.encode(outcome) for outcome in outcomes])


class TestDocuments:
    """What lies under a key."""

    def test_a_result_is_celerys_document_under_celerys_key(self, redis_url: str, make: Make) -> None:
        backend = make(expires_seconds=3600)
        outcome = success(5, children=[])

        store(backend, outcome)

        key = f"celery-task-meta-{outcome.id}"
        assert json.loads(command(redis_url, "GET", key)) == {
            "status": "SUCCESS",
            "result": 5,
            "traceback": None,
            "children": [],
            "date_done": "2026-11-20T23:12:48.280674+00:00",
            "task_id": outcome.id,
        }
        assert 3590 < command(redis_url, "TTL", key) <= 3600

    def test_results_that_never_expire_have_no_end(self, redis_url: str, make: Make) -> None:
        backend, outcome = make(expires_seconds=None), success(5)

        store(backend, outcome)

        assert command(redis_url, "TTL", f"celery-task-meta-{outcome.id}") == -1

    @pytest.mark.parametrize(
        "document",
        [
            '{"status": "SUCCESS", "result": "theirs", "task_id": "%s"}',
            '{"task_id": "%s", "result": "theirs", "status": "SUCCESS"}',
        ],
        ids=["celery", "another order"],
    )
    async def test_a_success_of_somebody_else_stays(
        self, redis_url: str, backend: RedisBackend, document: str
    ) -> None:
        task_id = str(uuid.uuid4())
        command(redis_url, "SET", f"celery-task-meta-{task_id}", document % task_id)

        store(backend, failure(ValueError("late"), id=task_id))
        await backend.astore([backend.encode(failure(ValueError("later"), id=task_id))])

        assert backend.fetch([task_id])[task_id].result == "theirs"

    def test_what_nobody_can_read_is_overwritten(self, redis_url: str, backend: RedisBackend) -> None:
        outcome = success("ours")
        command(redis_url, "SET", f"celery-task-meta-{outcome.id}", b"\x80 what is this")

        store(backend, outcome)

        assert backend.fetch([outcome.id])[outcome.id].result == "ours"

    @pytest.mark.parametrize(("prefix", "shown"), [("res", "res_"), ("res:", "res:"), ("res-", "res-")])
    def test_a_key_prefix_gets_its_separator(
        self, redis_url: str, make: Make, prefix: str, shown: str
    ) -> None:
        backend, outcome = make(options={"global_keyprefix": prefix}), success(1)

        store(backend, outcome)

        assert command(redis_url, "EXISTS", f"{shown}celery-task-meta-{outcome.id}") == 1

    def test_the_old_settings_name_the_server_too(self, redis_server: RedisServer, make: Make) -> None:
        database = redis_server.fresh_url().rpartition("/")[2]
        options = {"redis_host": "127.0.0.1", "redis_port": redis_server.port, "redis_db": database}
        backend, outcome = make("redis", options=options), success(1)

        store(backend, outcome)

        there = command(f"{redis_server.url}/{database}", "EXISTS", f"celery-task-meta-{outcome.id}")
        assert there == 1


class TestWaiting:
    """Listening, and going on when the server was away."""

    def test_nothing_is_subscribed_to_unless_somebody_waits(
        self, redis_url: str, backend: RedisBackend
    ) -> None:
        outcome = success(1)
        channel = f"celery-task-meta-{outcome.id}"
        waiting = backend.wait([outcome.id], PATIENCE_SECONDS)
        assert command(redis_url, "PUBSUB", "NUMSUB", channel) == [channel.encode(), 0]

        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(next, waiting)
            while command(redis_url, "PUBSUB", "NUMSUB", channel)[1] == 0:
                pass
            store(backend, outcome)
            assert future.result(PATIENCE_SECONDS).result == 1

        list(waiting)
        backend.fetch([outcome.id])  # the good-bye goes along with whatever is asked next
        assert command(redis_url, "PUBSUB", "NUMSUB", channel)[1] == 0

    def test_a_connection_that_listened_serves_other_calls_afterwards(self, backend: RedisBackend) -> None:
        outcomes = [success(n) for n in range(700)]
        store(backend, *outcomes)

        for _ in range(3):
            got = {o.id: o.result for o in backend.wait([o.id for o in outcomes], PATIENCE_SECONDS)}
            assert got == {o.id: o.result for o in outcomes}
            assert len(backend.fetch([o.id for o in outcomes])) == 700

    @pytest.mark.parametrize("way", ["killed", "frozen"])
    def test_who_waits_gets_the_result_after_the_server_was_away(
        self, redis_server: RedisServer, make: Make, redis_url: str, way: str
    ) -> None:
        client, worker = make(), make()
        outcome = success("after all")
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(lambda: list(client.wait([outcome.id], PATIENCE_SECONDS)))
            while command(redis_url, "PUBSUB", "NUMSUB", f"celery-task-meta-{outcome.id}")[1] == 0:
                pass

            if way == "killed":
                redis_server.kill()
                redis_server.start()
            else:
                redis_server.freeze()
                time.sleep(0.3)
                redis_server.thaw()
            store(worker, outcome)

            [got] = future.result(PATIENCE_SECONDS)
        assert got.result == "after all"

    def test_an_unread_connection_that_died_is_replaced(
        self, redis_server: RedisServer, backend: RedisBackend
    ) -> None:
        outcome = success(1)
        store(backend, outcome)
        redis_server.restart()

        assert backend.fetch([outcome.id])[outcome.id].result == 1

    def test_a_wrong_password_is_told(self, redis_server: RedisServer, make: Make) -> None:
        backend = make(f"redis://nobody:guess@127.0.0.1:{redis_server.port}/0")

        with pytest.raises(BackendUnreachable, match="WRONGPASS") as caught:
            backend.fetch(["x"])

        assert "guess" not in str(caught.value)

    def test_what_the_server_refuses_is_an_error_of_the_backend(
        self, redis_url: str, backend: RedisBackend
    ) -> None:
        command(redis_url, "LPUSH", "celery-taskset-meta-odd", "a list")

        with pytest.raises(BackendError, match="WRONGTYPE"):
            backend.restore_group("odd")


class TestChords:
    """Chords that real workers take part in."""

    def test_a_part_that_a_real_worker_noted_counts(self, redis_url: str, backend: RedisBackend) -> None:
        chord, ours = str(uuid.uuid4()), success(2)
        backend.start_chord(chord, 2, [])
        part = '[1, "their-id", "SUCCESS", {"their": 1}]'
        command(redis_url, "ZADD", f"celery-taskset-meta-{chord}.j", 0, part)

        everything = backend.chord_part(chord, 1, ours)

        assert everything is not None
        assert [(o.id, o.result) for o in everything] == [("their-id", {"their": 1}), (ours.id, 2)]

    def test_parts_lie_where_real_workers_look(self, redis_url: str, backend: RedisBackend) -> None:
        chord, ours = str(uuid.uuid4()), success(3)
        backend.start_chord(chord, 2, [])

        assert backend.chord_part(chord, 7, ours) is None

        key = f"celery-taskset-meta-{chord}"
        assert command(redis_url, "GET", f"{key}.s") == b"2"
        [(part, score)] = command(redis_url, "ZRANGE", f"{key}.j", 0, -1, "WITHSCORES")
        assert (json.loads(part), score) == ([1, ours.id, "SUCCESS", 3], 7.0)
        assert command(redis_url, "TTL", f"{key}.j") > 86000

    def test_a_chord_that_grew_waits_for_its_extra_parts(self, redis_url: str, backend: RedisBackend) -> None:
        chord = str(uuid.uuid4())
        backend.start_chord(chord, 1, [])
        command(redis_url, "INCRBY", f"celery-taskset-meta-{chord}.t", 1)

        assert backend.chord_part(chord, 0, success(1)) is None
        assert backend.chord_part(chord, None, success(2)) is not None

    def test_a_claim_of_celery_itself_is_left_alone(self, redis_url: str, backend: RedisBackend) -> None:
        chord = str(uuid.uuid4())
        backend.start_chord(chord, 1, [])
        command(redis_url, "SET", f"celery-taskset-meta-{chord}.c", uuid.uuid4().hex)

        assert backend.chord_part(chord, 0, success(1)) is None

    def test_a_part_that_comes_again_leaves_the_body_to_the_celery_worker_that_completed_the_chord(
        self, redis_url: str, backend: RedisBackend
    ) -> None:
        chord, ours = str(uuid.uuid4()), success(2)
        backend.start_chord(chord, 2, [])
        assert backend.chord_part(chord, 1, ours) is None
        part = f'[1, "{uuid.uuid4()}", "SUCCESS", 1]'
        command(redis_url, "ZADD", f"celery-taskset-meta-{chord}.j", 0, part)

        assert backend.chord_part(chord, 1, ours) is None

    def test_an_ended_chord_leaves_only_the_word_that_it_is_done(
        self, redis_url: str, backend: RedisBackend
    ) -> None:
        chord = str(uuid.uuid4())
        backend.start_chord(chord, 1, [])
        backend.chord_part(chord, 0, success(1))

        backend.end_chord(chord)

        assert command(redis_url, "KEYS", "*") == [f"celery-taskset-meta-{chord}.c".encode()]
        assert command(redis_url, "GET", f"celery-taskset-meta-{chord}.c") == b"done"

    @pytest.mark.parametrize("broken", [False, True], ids=["all succeed", "one fails"])
    def test_a_group_inside_a_header_is_one_part(self, backend: RedisBackend, broken: bool) -> None:
        chord, inner = str(uuid.uuid4()), str(uuid.uuid4())
        one, two, three = success("a"), success("b"), success("c")
        if broken:
            two = failure(ValueError("boom"), id=two.id)
        members = [
            [[one.id, None], None],
            [[inner, None], [[[two.id, None], None], [[three.id, None], None]]],
        ]
        backend.start_chord(chord, 3, [[chord, None], members])
        store(backend, one, two, three)

        assert backend.chord_part(chord, 0, one) is None
        assert backend.chord_part(chord, 1, two) is None
        everything = backend.chord_part(chord, 1, three)

        assert everything is not None
        assert everything[0].result == "a"
        if broken:
            assert (everything[1].state, everything[1].id) == (states.FAILURE, two.id)
        else:
            assert (everything[1].state, everything[1].result) == (states.SUCCESS, ["b", "c"])

    def test_parts_may_be_kept_without_order(self, redis_url: str, make: Make) -> None:
        backend = make(options={"result_chord_ordered": False})
        chord = str(uuid.uuid4())
        backend.start_chord(chord, 2, [])

        backend.chord_part(chord, 1, success("first done"))
        assert command(redis_url, "LLEN", f"celery-taskset-meta-{chord}.j") == 1
        everything = backend.chord_part(chord, 0, success("second done"))

        assert everything is not None
        assert [o.result for o in everything] == ["first done", "second done"]
