"""Results: what is known of a task, and waiting for it."""

from __future__ import annotations

import asyncio
import io
import itertools
import pickle
import threading
from typing import Any

import pytest

from celeriac import allow_join_result, context
from celeriac.app import Celeriac
from celeriac.context import Context
from celeriac.errors import IncompleteStream, TaskRevokedError, TimeoutError  # noqa: A004
from celeriac.message import Outcome
from celeriac.progress import Progress
from celeriac.result import (
    AsyncResult,
    EagerResult,
    GroupResult,
    ResultSet,
    assert_will_not_block,
    result_from_tuple,
)
from desk import new_app


@pytest.fixture
def app() -> Celeriac:
    return new_app(results=True)


def store(app: Celeriac, id: str, result: Any = None, state: str = "SUCCESS", **more: Any) -> None:
    assert app.backend is not None
    app.backend.store([app.backend.encode(Outcome(id=id, state=state, result=result, **more))])


def test_of_an_unknown_id_nothing_is_known(app: Celeriac) -> None:
    result = app.AsyncResult("nobody")

    assert (result.state, result.status, result.result, result.info) == ("PENDING", "PENDING", None, None)
    assert (result.ready(), result.successful(), result.failed()) == (False, False, False)
    assert (result.traceback, result.children, result.date_done, result.worker) == (None, None, None, None)


def test_a_success_has_a_value(app: Celeriac) -> None:
    store(app, "1", {"n": [1, 2]}, children=[], date_done="2030-01-02T03:04:05+00:00")
    result = app.AsyncResult("1")

    assert result.get(timeout=1) == {"n": [1, 2]}
    assert (result.ready(), result.successful(), result.failed()) == (True, True, False)
    assert result.date_done is not None
    assert result.date_done.year == 2030
    assert result.children == []


def test_a_failure_is_raised_as_its_own_class_with_the_traceback_kept(app: Celeriac) -> None:
    store(app, "1", KeyError("x"), "FAILURE", traceback="Traceback: here")
    result = app.AsyncResult("1")

    for _ in range(2):
        with pytest.raises(KeyError, match="x"):
            result.get(timeout=1)
    assert isinstance(result.get(timeout=1, propagate=False), KeyError)
    assert isinstance(result.result, KeyError)
    assert result.traceback == "Traceback: here"
    assert result.failed()
    with pytest.raises(KeyError):
        result.maybe_throw()
    assert isinstance(result.maybe_throw(propagate=False), KeyError)


def test_a_revoked_task_raises_and_a_custom_state_has_its_meta(app: Celeriac) -> None:
    store(app, "1", TaskRevokedError("revoked"), "REVOKED")
    store(app, "2", {"done": 3}, "PROGRESS")

    with pytest.raises(TaskRevokedError):
        app.AsyncResult("1").get(timeout=1)
    assert app.AsyncResult("2").state == "PROGRESS"
    assert app.AsyncResult("2").info == {"done": 3}
    assert not app.AsyncResult("2").ready()


def test_waiting_ends_when_the_result_arrives_or_time_is_up(app: Celeriac) -> None:
    result = app.AsyncResult("1")
    with pytest.raises(TimeoutError):
        result.get(timeout=0.05)

    threading.Timer(0.05, store, (app, "1", 5)).start()
    assert result.wait(timeout=5) == 5


def test_callbacks_of_get_are_called(app: Celeriac) -> None:
    store(app, "1", 5)
    seen: list[Any] = []
    result = app.AsyncResult("1")

    result.get(callback=lambda *told: seen.append(told), on_message=lambda m: seen.append(m["status"]))

    assert seen == ["SUCCESS", ("1", 5)]


def test_while_it_waits_it_calls_on_interval(app: Celeriac) -> None:
    ticks: list[int] = []

    def tick() -> None:
        ticks.append(1)
        if len(ticks) == 3:
            store(app, "1", "done")

    assert app.AsyncResult("1").get(timeout=5, interval=0.01, on_interval=tick) == "done"
    assert len(ticks) == 3
    with pytest.raises(TimeoutError):
        app.AsyncResult("2").get(timeout=0.05, interval=0.01, on_interval=tick)


def test_then_is_called_once_the_outcome_is_seen(app: Celeriac) -> None:
    seen: list[Any] = []
    good, bad = app.AsyncResult("1"), app.AsyncResult("2")
    good.then(seen.append)
    bad.then(seen.append, on_error=lambda exc: seen.append(repr(exc)))
    store(app, "1", 5)
    store(app, "2", KeyError("x"), "FAILURE")
    assert seen == []

    good.get(timeout=1)
    assert bad.ready()

    assert seen == [good, "KeyError('x')"]
    good.then(seen.append)
    assert seen[-1] is good


def test_a_forgotten_result_is_unknown_again(app: Celeriac) -> None:
    store(app, "1", 5)
    store(app, "0", 4)
    result = app.AsyncResult("1", parent=app.AsyncResult("0"))
    assert result.get(timeout=1) == 5

    result.forget()

    assert result.state == "PENDING"
    assert app.AsyncResult("0").state == "PENDING"


def test_extended_results_tell_of_the_call(app: Celeriac) -> None:
    extended = {"name": "t", "args": [1], "kwargs": {}, "worker": "w@h", "retries": 2, "queue": "celery"}
    extended_app = new_app(results=True, result_extended=True)
    store(extended_app, "1", 5, extended=extended)
    result = extended_app.AsyncResult("1")

    assert (result.name, result.args, result.kwargs) == ("t", [1], {})
    assert (result.worker, result.retries, result.queue) == ("w@h", 2, "celery")


def test_inside_a_task_waiting_is_refused_unless_allowed(app: Celeriac) -> None:
    store(app, "1", 5)
    result = app.AsyncResult("1")
    context.push(object(), Context(called_directly=False))
    try:
        with pytest.raises(RuntimeError, match=r"Never call result\.get\(\) within a task"):
            result.get(timeout=1)
        with pytest.raises(RuntimeError):
            app.ResultSet([result]).get(timeout=1)
        with pytest.raises(RuntimeError):
            assert_will_not_block()
        assert result.get(timeout=1, disable_sync_subtasks=False) == 5
        with allow_join_result():
            assert app.AsyncResult("1").get(timeout=1) == 5
    finally:
        context.pop()


def test_without_a_backend_reading_says_what_to_do() -> None:
    result = new_app().AsyncResult("1")

    with pytest.raises(NotImplementedError, match="result_backend"):
        result.get()
    with pytest.raises(NotImplementedError, match="result_backend"):
        result.state  # noqa: B018


def test_results_are_compared_and_hashed_by_id(app: Celeriac) -> None:
    one, same, other = app.AsyncResult("1"), AsyncResult("1"), app.AsyncResult("2")

    assert one == same == "1"
    assert one != other
    assert len({one, same, other}) == 2
    assert (str(one), repr(one), one.task_id) == ("1", "<AsyncResult: 1>", "1")
    with pytest.raises(ValueError, match="valid id"):
        AsyncResult(None)  # type: ignore[arg-type]  # programs do so by mistake


def test_results_travel_as_tuples_and_pickles(app: Celeriac) -> None:
    last = app.AsyncResult("2", parent=app.AsyncResult("1"))
    group = app.GroupResult("g", [last, app.AsyncResult("3")])

    assert last.as_tuple() == (("2", (("1", None), None)), None)
    assert last.as_list() == ["2", "1"]
    assert group.as_tuple() == (("g", None), [last.as_tuple(), (("3", None), None)])
    back = result_from_tuple([["g", None], [[["2", [["1", None], None]], None], [["3", None], None]]], app)
    assert back == group
    assert isinstance(back, GroupResult)
    assert back.results[0].parent == "1"
    copy = pickle.loads(pickle.dumps(last))
    assert (copy, copy.parent) == (last, "1")
    assert pickle.loads(pickle.dumps(EagerResult("1", 5, "SUCCESS"))).get() == 5
    assert result_from_tuple(last) is last


def test_a_chain_raises_what_an_earlier_step_raised(app: Celeriac) -> None:
    first = app.AsyncResult("1")
    last = app.AsyncResult("3", parent=app.AsyncResult("2", parent=first))
    store(app, "1", KeyError("early"), "FAILURE")

    with pytest.raises(KeyError, match="early"):
        last.get(timeout=1)
    with pytest.raises(TimeoutError):
        app.AsyncResult("3", parent=app.AsyncResult("1")).get(timeout=0.05, follow_parents=False)


def test_a_chord_raises_what_its_part_raised(app: Celeriac) -> None:
    body = app.AsyncResult("b", parent=app.GroupResult("g", [app.AsyncResult("1"), app.AsyncResult("2")]))
    store(app, "1", 1)
    store(app, "2", KeyError("part"), "FAILURE")
    store(app, "b", RuntimeError("Dependency 2 raised"), "FAILURE")

    with pytest.raises(KeyError, match="part"):
        body.get(timeout=1)
    fresh = app.AsyncResult("b", parent=body.parent)
    with pytest.raises(RuntimeError):
        fresh.get(timeout=1, follow_parents=False)


def test_children_and_what_is_below_them_can_be_collected(app: Celeriac) -> None:
    store(app, "1", "a", children=[(("2", None), None)])
    store(app, "2", "b", children=[(("g", None), [(("3", None), None)])])
    store(app, "3", "c", children=[])
    result = app.AsyncResult("1")

    assert [(str(node), value) for node, value in result.collect()] == [
        ("1", "a"),
        ("2", "b"),
        ("g", ["c"]),
        ("3", "c"),
    ]
    assert result.get_leaf() == "c"
    assert {str(node): [str(n) for n in below] for node, below in result.graph.items()} == {
        "1": ["2"],
        "2": ["g"],
        "g": ["3"],
        "3": [],
    }
    with pytest.raises(IncompleteStream):
        list(app.AsyncResult("unknown").iterdeps())


def test_a_set_of_results_keeps_its_order(app: Celeriac) -> None:
    results = app.ResultSet([app.AsyncResult(id) for id in "123"])
    assert results.waiting()
    for id in "321":
        store(app, id, int(id))

    assert results.get(timeout=1) == [1, 2, 3]
    assert results.join_native(timeout=1) == [1, 2, 3]
    assert (results.ready(), results.successful(), results.failed(), results.waiting()) == (
        True,
        True,
        False,
        False,
    )
    assert results.completed_count() == len(results) == 3
    assert sorted(id for id, _ in results.iter_native(timeout=1)) == ["1", "2", "3"]
    seen: list[Any] = []
    assert results.join(callback=lambda *told: seen.append(told)) == []
    assert seen == [("1", 1), ("2", 2), ("3", 3)]


def test_a_set_raises_the_first_failure(app: Celeriac) -> None:
    results = app.ResultSet([app.AsyncResult("1"), app.AsyncResult("2")])
    store(app, "1", 1)
    store(app, "2", KeyError("x"), "FAILURE")

    with pytest.raises(KeyError):
        results.get(timeout=1)
    assert [repr(value) for value in results.get(timeout=1, propagate=False)] == ["1", "KeyError('x')"]
    assert results.failed()
    with pytest.raises(KeyError):
        results.maybe_throw()
    with pytest.raises(TimeoutError):
        app.ResultSet([app.AsyncResult("9")]).get(timeout=0.05)


def test_a_set_can_be_changed(app: Celeriac) -> None:
    one, two = app.AsyncResult("1"), app.AsyncResult("2")
    results = app.ResultSet([one])
    results.add(two)
    results.add(two)
    results.update([one, app.AsyncResult("3")])
    assert [str(result) for result in results] == ["1", "2", "3"]

    results.remove("1")
    results.discard(one)
    with pytest.raises(KeyError):
        results.remove(one)
    assert results[0] == two
    results.clear()
    assert len(results) == 0
    assert ResultSet([]) == results


def test_a_group_is_saved_and_restored(app: Celeriac) -> None:
    group = app.GroupResult("g", [app.AsyncResult("1"), app.AsyncResult("2")])
    group.save()

    assert app.GroupResult.restore("g") == group
    assert app.GroupResult.restore("nobody") is None
    assert (str(group), bool(group), bool(app.GroupResult())) == ("g", True, False)
    assert repr(group) == "<GroupResult: g [1, 2]>"
    assert group.as_list() == ["g", "1", "2"]
    assert group == "g"
    group.delete()
    assert app.GroupResult.restore("g") is None


def test_revoking_goes_through_the_apps_control(app: Celeriac) -> None:
    told: list[Any] = []

    class Control:
        def __init__(self, app: Any) -> None: ...

        def revoke(self, id: Any, **options: Any) -> None:
            told.append((id, options["terminate"]))

    app.control_cls = Control
    app.AsyncResult("1").revoke(terminate=True)
    app.GroupResult("g", [app.AsyncResult("2"), app.AsyncResult("3")]).revoke()

    assert told == [("1", True), (["2", "3"], False)]


async def test_results_can_be_awaited(app: Celeriac) -> None:
    results = [app.AsyncResult(str(number)) for number in range(20)]

    async def answer() -> None:
        for number in range(20):
            await asyncio.to_thread(store, app, str(number), number)

    answering = asyncio.create_task(answer())
    assert await asyncio.gather(*results) == list(range(20))
    await answering
    assert await app.AsyncResult("3") == 3
    assert await app.ResultSet([app.AsyncResult("4"), app.AsyncResult("5")]) == [4, 5]


async def test_awaiting_raises_and_can_be_given_up(app: Celeriac) -> None:
    store(app, "1", KeyError("x"), "FAILURE")
    with pytest.raises(KeyError):
        await app.AsyncResult("1")

    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(_wait(app.AsyncResult("2")), 0.05)
    store(app, "2", 1)  # lets the waiting thread end
    context.push(object(), Context(called_directly=False))
    try:
        with pytest.raises(RuntimeError, match="Never call"):
            await app.AsyncResult("3")
    finally:
        context.pop()


async def _wait(result: AsyncResult[Any]) -> Any:
    return await result


def test_progress_is_stored_with_the_state_and_read_back(app: Celeriac) -> None:
    @app.task(bind=True)
    def work(self: Any) -> None:
        self.update_progress(3, 12, "packing")

    work.push_request(id="1", called_directly=False)
    try:
        work.run()
    finally:
        work.pop_request()
    result = app.AsyncResult("1")

    assert (result.state, result.info) == ("PROGRESS", {"done": 3, "total": 12, "message": "packing"})
    assert result.progress is not None
    assert (result.progress.done, result.progress.total, result.progress.fraction) == (3, 12, 0.25)
    assert result.progress.message == "packing"


@pytest.mark.parametrize(
    ("meta", "progress"),
    [
        ({"current": 1, "total": 4}, Progress(1, 4)),
        ({"done": 1.5}, Progress(1.5)),
        ({"done": 9, "total": 4, "status": "late"}, Progress(9, 4, "late")),
        ({"done": True}, None),
        ({"done": "1"}, None),
        ({"n": 1}, None),
        ([1, 2], None),
    ],
)
def test_progress_in_the_states_of_others_is_understood(
    app: Celeriac, meta: Any, progress: Progress | None
) -> None:
    store(app, "1", meta, "MINE")
    assert app.AsyncResult("1").progress == progress

    store(app, "1", {"current": 1, "total": 4})
    assert app.AsyncResult("1").progress is None


def test_on_message_is_told_of_every_state_while_it_waits(app: Celeriac) -> None:
    seen: list[Any] = []
    steps = iter([("PROGRESS", {"done": 1}), ("PROGRESS", {"done": 2}), ("SUCCESS", "end")])

    def next_step(meta: Any = None) -> None:
        if meta is not None:
            seen.append((meta["status"], meta["result"]))
        for state, value in itertools.islice(steps, 1):
            store(app, "1", value, state)

    next_step()

    assert app.AsyncResult("1").get(timeout=5, on_message=next_step) == "end"
    assert seen == [("PROGRESS", {"done": 1}), ("PROGRESS", {"done": 2}), ("SUCCESS", "end")]


async def test_a_group_is_iterated_as_its_results_come(app: Celeriac) -> None:
    group = app.GroupResult("g", [app.AsyncResult(str(number)) for number in range(3)])
    store(app, "2", "first")
    seen: list[Any] = []

    async for result in group:
        seen.append((result.id, result.result))
        if len(seen) < 3:
            store(app, str(len(seen) - 1), "later")

    assert seen == [("2", "first"), ("0", "later"), ("1", "later")]
    assert await group == ["later", "later", "first"]


def test_only_who_sent_it_knows_of_a_queued_task_at_a_broker_that_cannot_be_searched(app: Celeriac) -> None:
    @app.task
    def nothing() -> None: ...

    now, later = nothing.delay(), nothing.apply_async(countdown=600)

    assert (now.state, now.known_state, now.exists()) == ("PENDING", "QUEUED", True)
    assert (later.state, later.known_state) == ("PENDING", "SCHEDULED")
    assert app.AsyncResult(now.id).known_state == "UNKNOWN"
    assert not app.AsyncResult("never heard of").exists()
    store(app, now.id, 5)
    assert app.AsyncResult(now.id).known_state == "SUCCESS"


def test_the_graph_can_be_drawn_and_sorted(app: Celeriac) -> None:
    store(app, "top", children=[[["left", None], None], [["right", None], None]])
    store(app, "left", children=[[["below", None], None]])
    store(app, "right", children=[])
    store(app, "below", children=[])
    file = io.StringIO()

    graph = app.AsyncResult("top").build_graph(formatter=lambda result: f'"{result.id}"')
    graph.to_dot(file)

    assert r'"\"top\"" -> "\"left\"";' in file.getvalue()
    assert file.getvalue().count("->") == 3
    assert [result.id for result in graph.topsort()] == ["below", "left", "right", "top"]
    assert graph.valency_of(app.AsyncResult("top")) == 3
    assert {str(result) for result in graph.edges()} == {"top", "left"}


def test_what_programs_for_celery_do_with_the_promise_of_a_result(app: Celeriac) -> None:
    seen: list[Any] = []
    result = app.AsyncResult("1")
    result.on_ready.then(seen.append)
    assert not result.on_ready.ready

    store(app, "1", 5)

    assert result.on_ready.ready
    assert seen == [result]


def test_results_are_compressed_as_the_setting_says() -> None:
    app = new_app(results=True, result_compression="zlib")
    store(app, "1", "x" * 10_000)

    assert app.backend is not None
    payload = app.backend.encode(Outcome(id="1", state="SUCCESS", result="x" * 10_000)).payload

    assert len(payload) < 1000
    assert app.AsyncResult("1").get(timeout=1) == "x" * 10_000
