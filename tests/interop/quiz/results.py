"""Results, without a worker: what is stored is stored by hand."""

import copy
import json
import pickle
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

from celery import states
from celery.result import AsyncResult, EagerResult, GroupResult, ResultSet, result_from_tuple
from quiz.asking import error, error_text, new_app, question, told


class Mine(Exception):
    class Inner(Exception):
        pass


class Picky(Exception):
    def __init__(self, a, b):
        super().__init__(a, b)


class Keywords(Exception):
    def __init__(self, *, text):
        super().__init__(text)


def store(app, task_id, state, value, **options):
    """Store a result by hand; `update_state` is the way that both have."""
    task = app.tasks["celery.accumulate"]
    task.update_state(task_id=task_id, state=state, meta=value)
    return app.AsyncResult(task_id)


@question
def nothing_is_known():
    app = new_app()
    result = app.AsyncResult("unknown-id")
    return {
        "state": [result.state, result.status, result.result, result.info, result.traceback, result.children],
        "ready": [result.ready(), result.successful(), result.failed(), result.date_done, result.ignored],
        "more": [
            result.name,
            result.args,
            result.kwargs,
            result.worker,
            result.retries,
            result.queue,
            result.parent,
        ],
        "get": error(result.get, timeout=0.05),
        "native": result.supports_native_join,
        "maybe": result.maybe_throw(),
    }


@question
def identity():
    app = new_app()
    one, two = app.AsyncResult("a"), app.AsyncResult("a", parent=app.AsyncResult("p"))
    return [
        repr(one), str(one), one == two, one == "a", one != "b", hash(one) == hash("a"), one.task_id, one.id,
        two.as_tuple(), two.as_list(), result_from_tuple(two.as_tuple(), app=app) == two,
        result_from_tuple(two.as_tuple(), app=app).parent.id, copy.copy(two).parent.id, error(app.AsyncResult, None), error(app.AsyncResult, ""),
        pickle.loads(pickle.dumps(two)).id, one == 3, {one: 1}["a"],
    ]  # fmt: skip


@question
def values_of_every_kind():
    app = new_app(result_serializer="json")
    values = {
        "none": None, "true": True, "int": 2**70, "float": 1.5, "nan": float("nan"), "inf": float("inf"), "text": "grüß 🌱 \x00\x1f",
        "tuple": (1, (2,)), "dict": {"a": [1]}, "int keys": {1: 2}, "bytes": b"abc", "raw": b"\xff\xfe", "decimal": Decimal("1.50"),
        "uuid": UUID("12345678123456781234567812345678"), "datetime": datetime(2030, 1, 2, 3, 4, 5, 678, tzinfo=UTC),
        "date": datetime(2030, 1, 2).date(), "time": datetime(2030, 1, 2, 3, 4).time(), "nested": [{"a": Decimal(1)}],
        "lone surrogate": "\ud800", "empty": "", "long": "x" * 100_000, "bool keys": {True: 1, None: 2}, "__type__": {"__type__": "nope"},
    }  # fmt: skip
    return {
        name: error(
            lambda name=name, value=value: repr(store(app, f"value-{name}", "SUCCESS", value).get(timeout=1))
        )
        for name, value in values.items()
    }


@question
def values_without_a_form():
    app = new_app()
    return {
        "set": error_text(store, app, "bad-1", "SUCCESS", {1}),
        "object": error(store, app, "bad-2", "SUCCESS", object()),
        "complex": error_text(store, app, "bad-3", "SUCCESS", 1j),
        "nested": error_text(store, app, "bad-4", "SUCCESS", [{"a": {1}}]),
        "tuple key": error_text(store, app, "bad-5", "SUCCESS", {(1, 2): 3}),
    }


def failures():
    return {
        "built in": KeyError("x", 1),
        "none": ValueError(),
        "own": Mine("a", {"b": [1]}),
        "inner": Mine.Inner("a"),
        "picky": Picky(1, 2),
        "keywords": Keywords(text="a"),
        "unserializable": ValueError("a", {1, }, object),
        "os": OSError(2, "No such file", "name"),
        "unicode": UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        "group": ValueError(("a", "b")),
    }  # fmt: skip


def seen(result):
    exc = result.result
    return [
        result.state,
        type(exc).__name__,
        type(exc).__module__,
        repr(exc) if "object" not in repr(exc) else "…",
        isinstance(exc, Exception),
    ]


@question
def exceptions_as_json():
    app = new_app()
    known = {name: exc for name, exc in failures().items() if name != "keywords"}
    return {name: seen(store(app, f"exc-{name}", "FAILURE", exc)) for name, exc in known.items()}


@question
def an_exception_that_does_not_take_its_own_arguments():
    return seen(store(new_app(), "keywords", "FAILURE", failures()["keywords"]))


@question
def exceptions_as_pickles():
    app = new_app(result_serializer="pickle", accept_content=["json", "pickle"])
    return {name: seen(store(app, f"pickled-{name}", "FAILURE", exc)) for name, exc in failures().items()}


@question
def getting_a_failure():
    app = new_app()
    result = store(app, "failed", "FAILURE", Mine("x"))
    return {
        "get": error_text(result.get, timeout=1),
        "quiet": repr(result.get(timeout=1, propagate=False)),
        "maybe": error_text(result.maybe_throw),
        "reraise": error_text(result.maybe_reraise),
        "quiet maybe": repr(result.maybe_throw(propagate=False)),
        "throw": error_text(result.throw, KeyError("other")),
        "flags": [result.failed(), result.successful(), result.ready(), result.state],
    }


@question
def getting_other_states():
    app = new_app()
    revoked = store(app, "revoked", "REVOKED", Mine("x"))
    retry = store(app, "retried", "RETRY", Mine("x"))
    custom = store(app, "custom", "HALF", {"n": 1})
    started = store(app, "started", "STARTED", {"pid": 1})
    ignored = app.AsyncResult("ignored")
    ignored.ignored = True
    return [
        error_text(revoked.get, timeout=1), revoked.ready(), retry.ready(), retry.state, repr(retry.result), error(retry.get, timeout=0.05),
        custom.state, custom.info, custom.ready(), error(custom.get, timeout=0.05), started.info, error(started.get, timeout=0.05), ignored.get(),
    ]  # fmt: skip


@question
def callbacks_of_get():
    app, heard = new_app(), []
    result = store(app, "called-back", "SUCCESS", 42)
    result.get(timeout=1, callback=lambda task_id, value: heard.append([task_id, value]))
    result.then(lambda r: heard.append(["then", r.id]))
    return heard


@question
def forgetting():
    app = new_app()
    result = store(app, "forgotten", "SUCCESS", 42)
    before = result.state
    result.forget()
    return before, app.AsyncResult("forgotten").state, result.state


@question
def sets_of_results():
    app = new_app()
    one, two, bad = (
        store(app, "set-1", "SUCCESS", 1),
        store(app, "set-2", "SUCCESS", 2),
        store(app, "set-3", "FAILURE", Mine("x")),
    )
    both, with_bad = app.ResultSet([one, two]), app.ResultSet([one, bad, app.AsyncResult("set-unknown")])
    both.add(one)
    heard = []
    found = {
        "get": [both.get(timeout=1), both.join(timeout=1), len(both), both.completed_count(), both.ready(), both.successful()],
        "bad": [error_text(with_bad.join, timeout=1), with_bad.failed(), with_bad.successful(), with_bad.waiting(), with_bad.ready(), with_bad.completed_count()],
        "order": [r.id for r in both], "item": both[1].id, "callback": both.get(timeout=1, callback=lambda i, v: heard.append([i, v])) or None,
        "heard": sorted(heard), "equal": both == app.ResultSet([one, two]),
    }  # fmt: skip
    both.discard("nope")
    found["remove"] = [error(both.remove, "nope"), both.remove(one), len(both)]
    both.clear()
    found["clear"] = len(both)
    found["empty"] = app.ResultSet([]).get()
    return found


@question
def groups_of_results():
    app = new_app()
    children = [store(app, f"group-{n}", "SUCCESS", n) for n in range(3)]
    made = app.GroupResult("the-group", children)
    made.save()
    restored = app.GroupResult.restore("the-group")
    made.delete()
    return [
        repr(made), restored == made, [r.id for r in restored], restored.join(timeout=1), app.GroupResult.restore("the-group"),
        made.as_tuple(), result_from_tuple(made.as_tuple(), app=app) == made, bool(made), bool(app.GroupResult(None, [])), made == "the-group",
        [r.id for r in made.children], made.get(timeout=1), str(made), error(app.GroupResult.restore, None),
    ]  # fmt: skip


@question
def results_of_eager_members():
    made = ResultSet([EagerResult("a", 1, "SUCCESS"), EagerResult("b", 2, "SUCCESS")], app=new_app())
    return made.get(), [repr(r) for r in made]


@question
def without_a_backend():
    app = new_app(backend="disabled")
    result = app.AsyncResult("x")
    return (
        error(result.get),
        error(result.forget),
        type(app.backend).__name__ in {"DisabledBackend", "NoneType"},
    )


@question
def states_of_results_are_text():
    return [states.SUCCESS, str(states.state("SUCCESS")), told(states.state) == "type"]


@question
def module_level_results():
    app = new_app("current")
    result = AsyncResult("x")
    return result.app.main == app.main, GroupResult("g", []).id, ResultSet([]).results


HOSTILE = [
    {"exc_type": "system", "exc_message": ["true"], "exc_module": "os"},
    {"exc_type": "os.system", "exc_message": ["true"], "exc_module": "subprocess"},
    {"exc_type": "Popen", "exc_message": ["true"], "exc_module": "subprocess"},
    {"exc_type": "eval", "exc_message": ["1"], "exc_module": "builtins"},
    {"exc_type": "object", "exc_message": [], "exc_module": "builtins"},
]


@question
def names_of_what_is_no_exception():
    """Stored as what they are: real Celery raises where ours has the error as the result."""
    app = new_app()
    return [
        error(lambda n=n, value=value: raised(store(app, f"hostile-{n}", "FAILURE", value)))
        for n, value in enumerate(HOSTILE)
    ]


def raised(result):
    value = result.get(timeout=1)
    raise value


@question
def ways_of_joining():
    app, heard = new_app(), []
    for n in range(3):
        store(app, f"join-{n}", "SUCCESS", n)
    for n in (4, 5):
        store(app, f"join-{n}", "FAILURE", Mine(n))

    def group_of(*numbers):
        return app.GroupResult("joined", [app.AsyncResult(f"join-{n}") for n in numbers])

    def hear(*what):
        heard.append(what)

    found = {
        "join": [group_of(0, 1, 2).join(timeout=1), group_of(0, 1, 2).join_native(timeout=1), group_of(0, 1, 2).get(timeout=1)],
        "called back": [way(group_of(0, 1), callback=hear, timeout=1) or None for way in (GroupResult.join, GroupResult.join_native, GroupResult.get)],
        "iter": sorted([id, meta["status"], meta["result"]] for id, meta in group_of(0, 1, 2).iter_native(timeout=1)),
        "meta": sorted(next(iter(group_of(0).iter_native(timeout=1)))[1]),
        "errors": [error_text(group_of(0, 5, 4).join, timeout=1), error(group_of(5, 4).get, timeout=1)],
        "kept": [repr(group_of(0, 5, 4).join(timeout=1, propagate=False)), repr(group_of(0, 5).join_native(timeout=1, propagate=False))],
        "late": [error(group_of(0, 9).join, timeout=0.05), error(group_of(0, 9).join_native, timeout=0.05)],
        "counts": [group_of(0, 1, 4, 9).completed_count(), group_of(0, 1, 4, 9).ready(), group_of(0, 9).waiting(), group_of(0, 1).waiting()],
        "native": [group_of(0).supports_native_join, group_of().results, len(group_of(0, 1)), group_of(0, 1)[1].id],
        "thrown": [error_text(group_of(0, 4, 5).maybe_throw), error_text(group_of(0, 4).maybe_reraise), group_of(0, 1).maybe_throw(callback=hear)],
        "names": [hasattr(group_of(0), name) for name in ("iterate", "join", "iter_native", "then", "subtasks", "add", "update")],
    }  # fmt: skip
    group_of(0, 1).forget()
    return {**found, "heard": sorted(map(repr, heard)), "forgotten": app.AsyncResult("join-1").state}


@question
def groups_within_groups():
    app, heard = new_app(), []
    one, two, three = (store(app, f"nested-{n}", "SUCCESS", n) for n in (1, 2, 3))
    inner = app.GroupResult("inner", [two, three], parent=app.AsyncResult("before"))
    outer = app.GroupResult("outer", [one, inner])
    back = result_from_tuple(json.loads(json.dumps(outer.as_tuple())), app=app)
    return [
        outer.as_tuple(), back == outer, repr(back), back.results[1].parent.id, outer.get(timeout=1), outer.join(timeout=1),
        outer.get(timeout=1, callback=lambda *what: heard.append(what)) or None, sorted(heard), outer.ready(), outer.successful(), outer.failed(),
        outer.completed_count(), outer.waiting(), [r.id for r in outer.children], outer.maybe_throw(),
    ]  # fmt: skip


@question
def what_get_calls():
    app, called = new_app(), []
    store(app, "failed", "FAILURE", Mine("x"))
    raised = error_text(app.AsyncResult("failed").get, timeout=1, callback=lambda *what: called.append(what))
    before = repr(called)
    value = app.AsyncResult("failed").get(
        timeout=1, propagate=False, callback=lambda *what: called.append(what)
    )
    return raised, before, repr(value), repr(called)


@question
def intervals_of_waiting():
    ticks = []
    late = error(
        new_app().AsyncResult("x").get, timeout=0.3, interval=0.02, on_interval=lambda: ticks.append(1)
    )
    return late, len(ticks) > 1


@question
def on_message_of_what_is_there():
    app, heard = new_app(), []
    return error(store(app, "there", "SUCCESS", 1).get, timeout=1, on_message=heard.append), len(heard)


@question
def what_an_eager_result_knows():
    app = new_app()

    @app.task(name="t")
    def add(x, y):
        return x + y

    @app.task(name="u")
    def fail():
        raise Mine("x")

    made = {"done": add.apply((1, 2), task_id="i"), "failed": fail.apply(task_id="j")}
    plain = (
        "id", "task_id", "state", "status", "result", "info", "children", "parent", "name", "supports_native_join", "ignored",
    )  # fmt: skip
    calls = ("ready", "successful", "failed", "as_tuple", "as_list", "forget", "get", "wait", "maybe_throw")
    return {
        name: [
            [repr(error(getattr, result, one)) for one in plain],
            [repr(error_text(getattr(result, one))) for one in calls],
            [repr(result), str(result), repr(copy.copy(result)), repr(pickle.loads(pickle.dumps(result)))],
            [repr(result.get(propagate=False)), "Traceback" in (result.traceback or "")],
        ]
        for name, result in made.items()
    }


@question
def collecting_from_eager_results():
    app = new_app()

    @app.task(name="t")
    def give(x):
        return x

    done = give.apply((1,), task_id="i")
    return [
        error(lambda: [[node.id, value] for node, value in done.collect()]),
        error(done.get_leaf),
        error(lambda: [[parent, node.id] for parent, node in done.iterdeps()]),
    ]
