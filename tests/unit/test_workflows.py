"""Chains, groups and chords from end to end: sent, run one by one, waited for."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from celeriac import chain, chord, group, signature
from celeriac.app import Celeriac
from celeriac.errors import ChordError, ConfigError, EncodeError
from desk import Desk, new_app


class Tasks:
    def __init__(self, app: Celeriac) -> None:
        @app.task(name="add")
        def add(x: int, y: int) -> int:
            return x + y

        @app.task(name="total")
        def total(numbers: list[int]) -> int:
            return sum(numbers)

        @app.task(name="same")
        def same(x: Any) -> Any:
            return x

        @app.task(name="fail")
        def fail(*args: Any) -> None:
            raise KeyError("x")

        self.seen: list[Any] = []
        seen = self.seen

        @app.task(name="note")
        def note(x: Any) -> None:
            seen.append(x)

        @app.task(name="told")
        def told(request: Any, exc: BaseException, traceback: str) -> None:
            seen.append((request.id, repr(exc), "KeyError: 'x'" in traceback))

        self.add, self.total, self.same, self.fail, self.note, self.told = add, total, same, fail, note, told


@pytest.fixture
def app() -> Celeriac:
    return new_app(results=True)


@pytest.fixture
def t(app: Celeriac) -> Tasks:
    return Tasks(app)


@pytest.fixture
def desk(app: Celeriac) -> Desk:
    return Desk(app)


def test_each_step_of_a_chain_gets_the_result_of_the_one_before(t: Tasks, desk: Desk) -> None:
    result = chain(t.add.s(1, 2), t.add.s(3), t.add.s(4)).apply_async()
    desk.run_all()

    assert result.get(timeout=1) == 10
    assert (result.parent.get(timeout=1), result.parent.parent.get(timeout=1)) == (6, 3)
    first, second, third = desk.requests
    assert [r.id for r in desk.requests] == [result.parent.parent.id, result.parent.id, result.id]
    assert (second.parent_id, third.parent_id) == (first.id, second.id)
    assert {r.root_id for r in desk.requests} == {first.id}
    assert result.parent.parent.children == [result.parent]


def test_options_of_a_chain_are_for_its_first_step_and_its_id_for_the_last(t: Tasks, desk: Desk) -> None:
    desk.app.router.add("special")
    result = (t.add.s(1, 2) | t.add.s(3)).apply_async(queue="special", task_id="the-end", countdown=0)
    desk.run_all()

    assert result.id == "the-end"
    assert [r.delivery_info["routing_key"] for r in desk.requests] == ["special", "celery"]


def test_an_immutable_step_ignores_the_result_before_it(t: Tasks, desk: Desk) -> None:
    result = chain(t.add.s(1, 2), t.add.si(10, 10)).apply_async()
    desk.run_all()

    assert result.get(timeout=1) == 20


def test_when_a_step_fails_the_rest_fails_with_it_and_errbacks_run_once(t: Tasks, desk: Desk) -> None:
    workflow = chain(t.add.s(1, 2), t.fail.s(), t.add.s(1), t.add.s(2))
    result = workflow.on_error(t.told.s()).apply_async()
    desk.run_all()

    with pytest.raises(KeyError):
        result.get(timeout=1)
    assert (result.state, result.parent.state, result.parent.parent.state) == ("FAILURE",) * 3
    assert result.parent.parent.parent.get(timeout=1) == 3
    assert t.seen == [(result.parent.parent.id, "KeyError('x')", True)]


def test_a_group_returns_the_results_of_its_members_in_order(t: Tasks, desk: Desk) -> None:
    result = group(t.add.s(n, n) for n in range(5)).apply_async()
    desk.run_all()

    assert result.get(timeout=1) == [0, 2, 4, 6, 8]
    assert {r.group for r in desk.requests} == {result.id}
    assert sorted(r.group_index or 0 for r in desk.requests) == [0, 1, 2, 3, 4]


def test_groups_inside_groups_are_flattened_and_chains_end_in_them(t: Tasks, desk: Desk) -> None:
    result = group(
        t.add.s(1, 1), group(t.add.s(2, 2), t.add.s(3, 3)), chain(t.add.s(4, 4), t.add.s(1))
    ).apply_async()
    desk.run_all()

    assert result.get(timeout=1) == [2, 4, 6, 9]


def test_partial_arguments_go_to_every_member(t: Tasks, desk: Desk) -> None:
    result = group(t.add.s(1), t.add.s(2)).apply_async((10,))
    desk.run_all()

    assert result.get(timeout=1) == [11, 12]


def test_an_empty_group_has_an_empty_result(app: Celeriac) -> None:
    assert group(app=app).apply_async().get(timeout=1) == []


def test_the_body_of_a_chord_gets_all_results(t: Tasks, desk: Desk) -> None:
    result = chord([t.add.s(n, n) for n in range(4)])(t.total.s())
    desk.run_all()

    assert result.get(timeout=1) == 12
    assert result.parent.get(timeout=1) == [0, 2, 4, 6]
    body = desk.requests[-1]
    assert body.group == result.parent.id
    assert body.parent_id == desk.requests[-2].id


def test_a_chord_without_header_runs_its_body_at_once(t: Tasks, desk: Desk) -> None:
    result = chord([])(t.total.s())
    desk.run_all()

    assert result.get(timeout=1) == 0


@pytest.mark.parametrize(
    ("build", "value"),
    [
        (lambda t: t.add.s(1, 1) | group(t.add.s(1), t.add.s(2)) | t.total.s(), 7),
        (lambda t: t.add.s(1, 1) | group(t.add.s(1), t.add.s(2)) | t.total.s() | t.add.s(100), 107),
        (lambda t: group(t.add.s(1, 1), t.add.s(2, 2)) | t.total.s() | t.add.s(1) | t.add.s(1), 8),
        (lambda t: group(t.add.s(1, 1), t.add.s(2, 2)) | group(t.total.s(), t.total.s()), [6, 6]),
        (
            lambda t: chord([t.add.s(1, 1), t.add.s(2, 2)], t.total.s()) | group(t.add.s(1), t.add.s(2)),
            [7, 8],
        ),
        (lambda t: chord([chord([t.add.s(1, 1)], t.total.s()), t.add.s(2, 2)], t.total.s()), 6),
        (lambda t: chord([chain(t.add.s(1, 1), t.add.s(1)), t.add.s(2, 2)], t.total.s()), 7),
        (lambda t: chord([t.add.s(1, 1), group(t.add.s(2, 2), t.add.s(3, 3))], t.total.s()), 12),
        (lambda t: chord([chain(t.add.s(0, 1), group(t.add.s(1), t.add.s(2)))], t.same.s()), [[2, 3]]),
        (lambda t: t.add.s(1, 1) | group(t.add.s(1)), 3),
        (lambda t: t.add.s(1, 1) | group(t.add.s(1), t.add.s(2)), [3, 4]),
    ],
)
def test_workflows_of_all_kinds(t: Tasks, desk: Desk, build: Any, value: Any) -> None:
    result = build(t).apply_async()
    desk.run_all()

    assert desk.errors == []
    assert result.get(timeout=1) == value


def test_workflows_run_as_well_from_their_dict_form(app: Celeriac, t: Tasks, desk: Desk) -> None:
    workflow = t.add.s(1, 1) | group(t.add.s(1), t.add.s(2)) | t.total.s() | t.add.s(100)

    result = signature(app.codecs.json.decode(app.codecs.json.encode(workflow)), app=app).apply_async()
    desk.run_all()

    assert result.get(timeout=1) == 107


def test_a_chord_whose_part_fails_never_runs_its_body(t: Tasks, desk: Desk) -> None:
    result = chord([t.add.s(1, 1), t.fail.s()])(t.total.s().on_error(t.note.s()))
    desk.run_all()

    with pytest.raises(KeyError):
        result.get(timeout=1)
    failed = result.parent.results[1].id
    assert isinstance(result.result, ChordError)
    assert str(result.result) == f"Dependency {failed} raised KeyError('x')"
    assert t.seen == [result.id]
    assert "total" not in [name for name, _ in desk.endings]


def test_a_chord_that_fails_fails_everything_behind_it(t: Tasks, desk: Desk) -> None:
    inner = chord([t.fail.s(), t.add.s(1, 1)], t.total.s())
    result = (chord([inner, t.add.s(1, 1)], t.total.s()) | t.add.s(1) | t.add.s(2)).apply_async()
    desk.run_all()

    with pytest.raises((ChordError, KeyError)):
        result.get(timeout=1)
    with pytest.raises(ChordError):
        result.get(timeout=1, follow_parents=False)


def test_a_chain_that_is_a_part_of_a_chord_fails_the_chord_wherever_it_fails(t: Tasks, desk: Desk) -> None:
    result = chord([chain(t.fail.s(), t.add.s(1)), t.add.s(1, 1)])(t.total.s())
    desk.run_all()

    with pytest.raises(KeyError):
        result.get(timeout=1)


def test_chords_need_a_backend(t: Tasks) -> None:
    app = new_app()

    @app.task
    def part() -> None: ...

    with pytest.raises(NotImplementedError, match="result backend"):
        chord([part.s()])(part.si())
    assert app.transport.size("celery") == 0


def test_a_chain_that_comes_to_a_chord_where_no_backend_is_fails_with_that_advice() -> None:
    app = new_app()
    t, desk = Tasks(app), Desk(app)
    (t.add.s(1, 2) | group(t.add.s(1), t.add.s(2)) | t.total.s()).apply_async(link_error=t.told.s())

    desk.run_all()

    assert [(name, ending.state) for name, ending in desk.endings] == [("add", "FAILURE")]
    assert "Set result_backend" in repr(desk.endings[0][1].value)
    assert len(t.seen) == 1


def test_callbacks_get_the_result(t: Tasks, desk: Desk) -> None:
    result = t.add.apply_async((1, 2), link=[t.note.s(), t.note.si("fixed"), group(t.note.s(), t.note.s())])
    desk.run_all()

    assert sorted(t.seen, key=str) == [3, 3, 3, "fixed"]
    assert len(result.children or []) == 2
    assert {r.parent_id for r in desk.requests[1:]} == {result.id}


def test_errbacks_are_called_here_or_sent_as_their_parameters_say(t: Tasks, desk: Desk) -> None:
    seen = t.seen

    @desk.app.task(bind=True, name="bound")
    def bound(self: Any, id: str) -> None:
        seen.append(("bound", id))

    result = t.fail.apply_async((), link_error=[t.told.s(), t.note.s(), bound.s(), t.note.si("fixed")])
    desk.run_all()

    assert t.seen[0] == (result.id, "KeyError('x')", True)
    assert sorted(map(str, t.seen[1:])) == sorted([result.id, str(("bound", result.id)), "fixed"])


def test_an_errback_that_cannot_be_sent_is_logged_and_the_others_are_applied(
    t: Tasks, desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    seen = t.seen

    @desk.app.task(name="takes nothing")
    def takes_nothing() -> None:
        seen.append("takes nothing")

    errbacks = [t.note.s(), takes_nothing.s(), t.note.si("fixed"), t.note.si(1) | takes_nothing.si()]
    result = t.fail.apply_async((), link_error=errbacks)
    desk.run_all()

    assert desk.errors == []
    assert sorted(map(str, t.seen)) == sorted([result.id, "fixed", "1", "takes nothing"])
    assert "Errback takes nothing of task" in caplog.text
    assert len({request.group for request in desk.requests[1:3]}) == 1


def test_what_is_linked_to_a_chord_when_it_is_sent_is_linked_as_before(t: Tasks, desk: Desk) -> None:
    good = chord([t.add.s(1, 2)], group(t.same.s(), t.same.s()))
    bad = chord([t.fail.s()], group(t.same.s(), t.same.s()))

    good.apply_async(link=t.note.si("linked"), link_error=t.note.si("not called"))
    bad.apply_async(link=t.note.si("not called"), link_error=[t.note.si("told")])
    desk.run_all()

    assert sorted(t.seen) == ["linked", "told", "told"]


def test_a_failure_is_stored_before_an_errback_is_sent(t: Tasks, desk: Desk) -> None:
    seen = t.seen

    @desk.app.task(name="looks")
    def looks(id: str) -> None:
        seen.append(desk.app.AsyncResult(id).state)

    t.fail.apply_async((), link_error=looks.s())
    desk.run_all()

    assert seen == ["FAILURE"]


def test_a_result_that_cannot_be_encoded_sends_no_callbacks(t: Tasks, desk: Desk) -> None:
    @desk.app.task(name="unencodable")
    def unencodable() -> Any:
        return {1}

    result = unencodable.apply_async(link=t.note.si(1))
    desk.run_all()

    assert t.seen == []
    with pytest.raises(EncodeError):
        result.get(timeout=1)


def test_a_task_can_put_others_in_its_place(t: Tasks, desk: Desk) -> None:
    add, total = t.add, t.total

    @desk.app.task(bind=True, name="delegate")
    def delegate(self: Any, what: str) -> Any:
        others: dict[str, Callable[[], Any]] = {
            "task": lambda: add.s(1, 2),
            "chain": lambda: chain(add.s(1, 2), add.s(3)),
            "group": lambda: group(add.s(1, 1), add.s(2, 2)),
            "chord": lambda: chord([add.s(1, 1), add.s(2, 2)], total.s()),
        }
        return self.replace(others[what]())

    results = {what: delegate.delay(what) for what in ("task", "chain", "group", "chord")}
    chained = chain(delegate.s("group"), total.s()).apply_async()
    in_chord = chord([delegate.s("task"), add.s(5, 5)])(total.s())
    linked = delegate.apply_async(("task",), link=t.note.s())
    desk.run_all()

    assert {what: result.get(timeout=1) for what, result in results.items()} == {
        "task": 3,
        "chain": 6,
        "group": [2, 4],
        "chord": 6,
    }
    assert chained.get(timeout=1) == 6
    assert in_chord.get(timeout=1) == 13
    assert linked.get(timeout=1) == 3
    assert t.seen == [3]


def test_what_cannot_replace_a_task_is_refused(t: Tasks) -> None:
    t.add.push_request(called_directly=False, id="1")
    try:
        with pytest.raises(ConfigError, match="empty chain"):
            t.add.replace(chain())
        with pytest.raises(ConfigError, match="part of a chord"):
            t.add.replace(t.add.s(1).set(chord={}))
    finally:
        t.add.pop_request()


def test_maps_and_chunks_run_many_calls_in_one_message(t: Tasks, desk: Desk) -> None:
    starmap = t.add.starmap([(1, 1), (2, 2)]).delay()
    mapped = t.total.map([[1, 2], [3]]).delay()
    chunked = t.add.chunks([(n, n) for n in range(5)], 2)()
    desk.run_all()

    assert starmap.get(timeout=1) == [2, 4]
    assert mapped.get(timeout=1) == [3, 3]
    assert chunked.get(timeout=1) == [[0, 2], [4, 6], [8]]
    assert len(desk.requests) == 5


def test_maps_are_routed_as_the_task_they_run() -> None:
    app = new_app(task_routes={"add": "sums"})
    t = Tasks(app)
    app.router.add("sums")

    t.add.starmap([(1, 1)]).delay()
    t.add.chunks([(1, 1)], 1)()

    assert (app.transport.size("sums"), app.transport.size("celery")) == (2, 0)


def test_progress_can_be_told_while_a_task_runs(app: Celeriac, desk: Desk) -> None:
    states = []

    @app.task(bind=True)
    def slow(self: Any) -> str:
        self.update_state(state="PROGRESS", meta={"n": 1})
        result = app.AsyncResult(self.request.id)
        states.append((result.state, result.info))
        return "done"

    result = slow.delay()
    desk.run_all()

    assert states == [("PROGRESS", {"n": 1})]
    assert result.get(timeout=1) == "done"


def test_tasks_sent_by_a_task_are_its_children(t: Tasks, app: Celeriac, desk: Desk) -> None:
    add = t.add

    @app.task(name="parent")
    def parent() -> None:
        add.delay(1, 1)
        group(add.s(1, 1), add.s(2, 2)).delay()

    result = parent.delay()
    desk.run_all()

    assert [type(child).__name__ for child in result.children or []] == ["AsyncResult", "GroupResult"]


def test_ignored_results_are_not_stored_but_counted(t: Tasks, app: Celeriac, desk: Desk) -> None:
    @app.task(name="quiet", ignore_result=True)
    def quiet() -> int:
        return 5

    @app.task(name="loud", ignore_result=True, store_errors_even_if_ignored=True)
    def loud() -> None:
        raise KeyError("x")

    result = chord([quiet.s(), quiet.s()])(t.total.s())
    alone, failed = quiet.delay(), loud.delay()
    desk.run_all()

    assert result.get(timeout=1) == 10
    assert app.AsyncResult(alone.id).state == "PENDING"
    assert app.AsyncResult(failed.id).state == "FAILURE"


def test_chord_unlock_waits_for_the_header_and_applies_the_body(t: Tasks, app: Celeriac, desk: Desk) -> None:
    header = group(t.add.s(1, 1), t.add.s(2, 2)).apply_async()
    body = t.total.s()
    result = body.freeze()
    unlock = app.tasks["celery.chord_unlock"]
    members = [member.as_tuple() for member in header.results]

    unlock.apply_async((header.id, body), {"result": members, "interval": 0})
    desk.run_all()

    assert result.get(timeout=1) == 6


@pytest.mark.parametrize(
    ("build", "value"),
    [
        (lambda t, c: t.add.s(1, 1) | c, [[3, 7], [11]]),
        (lambda t, c: c | t.same.s(), [[3, 7], [11]]),
        (lambda t, c: t.add.s(1, 1) | c | t.same.s(), [[3, 7], [11]]),
        (lambda t, c: group(c, t.add.s(1, 1)), [[3, 7], [11], 2]),
        (lambda t, c: chord([c, t.add.s(1, 1)], t.same.s()), [[3, 7], [11], 2]),
        (lambda t, c: chord([t.add.s(1, 1)], c), [[3, 7], [11]]),
        (lambda t, c: chain(c), [[3, 7], [11]]),
        (lambda t, c: t.become.s(c), [[3, 7], [11]]),
        (lambda t, c: t.add.s(1, 1) | t.become.si(c) | t.same.s(), [[3, 7], [11]]),
        (lambda t, c: chord([t.become.s(c), t.add.s(1, 1)], t.same.s()), [[[3, 7], [11]], 2]),
    ],
    ids=[
        *("last", "first", "between", "in a group", "in a header", "as a body", "alone in a chain"),
        *("in place of a task", "in place of a step", "in place of a part"),
    ],
)
@pytest.mark.parametrize("how", [lambda c: c, dict], ids=["chunks", "dict form"])
def test_chunks_inside_a_workflow_are_the_group_that_they_send(
    t: Tasks, desk: Desk, build: Any, value: Any, how: Any
) -> None:
    @desk.app.task(bind=True, name="become")
    def become(self: Any, sig: Any) -> Any:
        return self.replace(signature(sig, app=desk.app))

    t.become = become  # type: ignore[attr-defined]
    chunks = t.add.chunks([(1, 2), (3, 4), (5, 6)], 2).set(priority=7)

    workflow = build(t, signature(how(chunks), app=desk.app))
    result, here = workflow.apply_async(), workflow.apply()
    desk.run_all()

    assert desk.errors == []
    assert result.get(timeout=1) == here.get() == value
    assert {r.delivery_info["priority"] for r in desk.requests if r.task == "celery.starmap"} == {7}


def test_an_empty_chain_is_no_member_of_a_group(t: Tasks, desk: Desk) -> None:
    nothing = chain(app=desk.app)
    made = group(nothing, t.add.s(1, 2), nothing)
    result, here = made.apply_async(), made.apply()
    joined = chord([t.add.s(1, 2), nothing], t.total.s()).apply_async()
    desk.run_all()

    assert result.get(timeout=1) == here.get() == [3]
    assert len(made.freeze().results) == 1
    assert joined.get(timeout=1) == 3


@pytest.mark.parametrize(
    ("nest", "value"),
    [
        (lambda t, inner: chord([inner, t.add.si(0, 1)], t.total.s()), 17),
        (lambda t, inner: chord([t.add.si(0, 1)], inner), 1),
        (lambda t, inner: group(inner, t.add.si(0, 1)) | t.total.s() | t.add.s(1), 33),
        (lambda t, inner: group(inner, t.add.si(0, 1)), [1] * 17),
        (lambda t, inner: chain(t.add.si(0, 1), group(inner, t.add.si(0, 1)), t.total.s()), 17),
    ],
    ids=["header in header", "body in body", "chord in chain in chord", "group", "chain in chord"],
)
def test_workflows_are_nested_to_any_depth(t: Tasks, desk: Desk, nest: Any, value: Any) -> None:
    workflow: Any = t.add.si(0, 1)
    for _ in range(16):
        workflow = nest(t, workflow)

    result = signature(json.loads(json.dumps(workflow)), app=desk.app).apply_async()
    desk.run_all()

    assert desk.errors == []
    assert result.get(timeout=1) == value
