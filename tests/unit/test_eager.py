"""Tasks that run right here: ``apply()`` and ``task_always_eager``."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from celeriac import chain, chord, group, signature
from celeriac.app import Celeriac
from celeriac.errors import AlwaysEagerIgnored, EncodeError, Ignore
from celeriac.result import AsyncResult
from desk import Desk, new_app


@pytest.fixture
def app() -> Celeriac:
    return new_app()


@pytest.fixture
def eager() -> Celeriac:
    return new_app(task_always_eager=True)


def test_apply_runs_the_task_and_returns_its_result(app: Celeriac) -> None:
    @app.task(bind=True)
    def me(self: Any, x: int) -> tuple[Any, ...]:
        request = self.request
        return request.id, request.is_eager, request.called_directly, request.args, request.mine, x

    result = me.apply((1,), task_id="my-id", headers={"mine": "h"})

    assert result.get() == ("my-id", True, False, (1,), "h", 1)
    assert (result.state, result.ready(), result.successful()) == ("SUCCESS", True, True)
    assert app.transport.size("celery") == 0


def test_apply_keeps_the_exception_unless_told_to_throw(app: Celeriac) -> None:
    @app.task
    def fail() -> None:
        raise KeyError("x")

    result = fail.apply()

    assert (result.state, result.failed()) == ("FAILURE", True)
    assert "KeyError: 'x'" in (result.traceback or "")
    with pytest.raises(KeyError):
        result.get()
    assert isinstance(result.get(propagate=False), KeyError)
    with pytest.raises(KeyError):
        fail.apply(throw=True)


def test_task_eager_propagates_throws_by_default() -> None:
    app = new_app(task_eager_propagates=True)

    @app.task
    def fail() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        fail.apply()


def test_retries_happen_at_once(app: Celeriac) -> None:
    runs = []

    @app.task(bind=True, default_retry_delay=3600)
    def flaky(self: Any, x: int) -> int:
        runs.append((self.request.id, self.request.retries))
        if self.request.retries < 2:
            raise self.retry(exc=KeyError("x"))
        return x

    result = flaky.apply((7,), task_id="i")

    assert result.get() == 7
    assert runs == [("i", 0), ("i", 1), ("i", 2)]

    flaky.max_retries = 1
    with pytest.raises(KeyError):
        flaky.apply((7,)).get()


def test_coroutine_tasks_run_to_their_end(app: Celeriac) -> None:
    @app.task
    async def double(x: int) -> int:
        return 2 * x

    assert double.apply((2,)).get() == 4


async def test_coroutine_tasks_run_also_where_a_loop_is_running(eager: Celeriac) -> None:
    @eager.task(bind=True)
    async def double(self: Any, x: int) -> tuple[int, bool]:
        return 2 * x, self.request.is_eager

    assert (await double.adelay(2)).get() == (4, True)


def test_an_ignored_task_has_no_result(app: Celeriac) -> None:
    @app.task
    def nothing() -> None:
        raise Ignore

    assert nothing.apply().state == "IGNORED"


def test_callbacks_and_errbacks_run_right_here(app: Celeriac) -> None:
    seen: list[Any] = []

    @app.task
    def note(x: Any) -> None:
        seen.append(x)

    @app.task
    def on_error(request: Any, exc: Any, traceback: Any) -> None:
        seen.append((request.id, repr(exc)))

    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    @app.task
    def fail() -> None:
        raise KeyError("x")

    add.apply((1, 2), link=[note.s(), note.si("fixed")])
    fail.apply(task_id="f", link_error=[on_error.s(), note.s()])

    assert seen == [3, "fixed", ("f", "KeyError('x')"), "f"]


def test_always_eager_runs_instead_of_sending(eager: Celeriac) -> None:
    @eager.task
    def add(x: int, y: int) -> int:
        return x + y

    result = add.apply_async((1, 2), countdown=3600, queue="nowhere")

    assert result.get() == 3
    assert eager._transport is None


def test_always_eager_sends_arguments_through_the_serializer(eager: Celeriac) -> None:
    @eager.task
    def show(x: Any) -> str:
        return type(x).__name__

    assert show.delay((1, 2)).get() == "list"
    assert show.delay(datetime.date(2030, 1, 2)).get() == "date"
    assert show.apply_async(((1, 2),), serializer="pickle").get() == "tuple"
    with pytest.raises(EncodeError):
        show.delay({1})


def test_always_eager_tasks_may_not_wait_for_each_other(eager: Celeriac) -> None:
    @eager.task
    def inner() -> int:
        return 1

    @eager.task
    def outer() -> int:
        return inner.delay().get()

    with pytest.raises(RuntimeError, match=r"Never call result\.get\(\) within a task"):
        outer.delay().get()
    assert outer.apply().get() == 1 or outer.apply().failed()


def test_sending_by_name_sends_and_warns(eager: Celeriac) -> None:
    with pytest.warns(AlwaysEagerIgnored):
        eager.send_task("by.name")
    assert eager.transport.size("celery") == 1


def test_always_eager_workflows_run_to_their_end(eager: Celeriac) -> None:
    @eager.task
    def add(x: int, y: int) -> int:
        return x + y

    @eager.task
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    assert chain(add.s(1, 2), add.s(3)).delay().get() == 6
    assert group(add.s(n, n) for n in range(3)).delay().get() == [0, 2, 4]
    assert chord([add.s(n, n) for n in range(3)])(total.s()).get() == 6
    assert (add.s(1, 1) | group(add.s(1), add.s(2)) | total.s() | add.s(100)).delay().get() == 107
    assert add.chunks([(1, 1), (2, 2), (3, 3)], 2)().get() == [[2, 4], [6]]
    assert add.starmap([(1, 1), (2, 2)]).delay().get() == [2, 4]


def test_apply_of_a_workflow_keeps_the_parents(app: Celeriac) -> None:
    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    result = chain(add.s(1, 2), add.s(3), add.s(4)).apply()

    assert result.get() == 10
    assert result.parent.get() == 6
    assert result.parent.parent.get() == 3


def test_replace_puts_another_task_in_its_place(app: Celeriac) -> None:
    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    @app.task(bind=True)
    def delegate(self: Any, x: int) -> Any:
        return self.replace(add.s(x, 100))

    assert delegate.apply((1,)).get() == 101


def test_eager_results_are_stored_where_the_settings_say_so() -> None:
    app = new_app(results=True, task_store_eager_result=True)

    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    result = add.apply((1, 2))

    assert app.AsyncResult(result.id).get(timeout=1) == 3


def test_an_eager_result_knows_nothing_of_a_backend(app: Celeriac) -> None:
    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    result = add.apply((1, 2))

    assert isinstance(result, AsyncResult)
    assert (result.children, result.supports_native_join) == (None, False)
    assert repr(result) == f"<EagerResult: {result.id}>"
    result.forget()
    result.revoke()
    assert result.state == "REVOKED"


class Kinds:
    """Tasks whose values look otherwise when they have travelled."""

    def __init__(self, app: Celeriac) -> None:
        @app.task(name="pair")
        def pair(*given: Any) -> Any:
            return repr(given), {1: (2, datetime.date(2030, 1, 2))}

        @app.task(name="odd")
        def odd(*given: Any) -> Any:
            return {1}

        @app.task(name="becomes", bind=True)
        def becomes(self: Any, sig: Any) -> Any:
            return self.replace(signature(sig, app=app))

        @app.task(name="again", bind=True)
        def again(self: Any, given: Any) -> Any:
            if not self.request.retries:
                raise self.retry(args=((given,),), countdown=0)
            return repr(given)

        self.pair, self.odd, self.becomes, self.again = pair, odd, becomes, again


@pytest.mark.parametrize(
    "build",
    [
        lambda t: t.pair.s((1, 2)),
        lambda t: t.pair.s((1, 2)) | t.pair.s((3,)) | t.pair.s(),
        lambda t: group(t.pair.s((1,)), t.pair.s() | t.pair.s()),
        lambda t: chord([t.pair.s((1,)), t.pair.s()], t.pair.s((3,))),
        lambda t: t.pair.s() | group(t.pair.s(), t.pair.s((1,))) | t.pair.s(),
        lambda t: t.pair.map([(1,), (2,)]),
        lambda t: t.pair.chunks([((1,),), ((2,),)], 1),
        lambda t: t.becomes.s(t.pair.s((1,))),
        lambda t: t.again.s((1,)),
    ],
    ids=["task", "chain", "group", "chord", "chain to chord", "map", "chunks", "replace", "retry"],
)
def test_serialized_all_the_same_workflows_give_here_what_a_worker_gives(build: Any) -> None:
    app = new_app(results=True, task_eager_serializes=True)
    t = Kinds(app)

    here = build(t).apply().get()

    sent = build(t).apply_async()
    Desk(app).run_all()
    assert here == sent.get(timeout=1)


def test_what_no_serializer_takes_is_passed_on_here_unless_the_settings_say_otherwise() -> None:
    app, strict = new_app(), new_app(task_eager_serializes=True)
    t, u = Kinds(app), Kinds(strict)

    assert (t.odd.s() | t.odd.s()).apply().get() == {1}
    with pytest.raises(EncodeError):
        (u.odd.s() | u.pair.s()).apply()
    with pytest.raises(EncodeError):
        u.pair.s({1}).apply()
    assert u.odd.s().apply().state == "FAILURE"
    assert u.odd.apply(ignore_result=True).get() == {1}
