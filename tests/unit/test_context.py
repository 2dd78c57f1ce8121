"""The stack of running tasks, and what a request looks like."""

from __future__ import annotations

import threading

import pytest

from celeriac import context
from celeriac.context import Context


class Task:
    name = "t"


def test_every_header_is_an_attribute_and_missing_ones_have_defaults() -> None:
    request = Context({"id": "1", "traceparent": "00-abc"}, retries=2)

    assert (request.id, request.traceparent, request.retries) == ("1", "00-abc", 2)
    assert (request.called_directly, request.root_id, request.children) == (True, None, [])
    assert request.get("traceparent") == "00-abc"
    assert request.get("nothing", 3) == 3
    with pytest.raises(AttributeError):
        request.nothing  # noqa: B018


def test_requests_take_any_attribute() -> None:
    request = Context()
    request.my_own = 1

    assert request.my_own == 1
    request.clear()
    assert request.get("my_own") is None


def test_requests_do_not_share_their_children() -> None:
    one, two = Context(), Context()
    one.children.append("x")

    assert two.children == []


def test_the_innermost_call_of_each_task_is_its_request() -> None:
    outer_task, inner_task = Task(), Task()
    outer, inner = Context(id="1"), Context(id="2")

    context.push(outer_task, outer)
    context.push(inner_task, inner)
    try:
        assert context.request_of(outer_task) is outer
        assert context.request_of(inner_task) is inner
        assert context.request_of(Task()) is context.EMPTY
    finally:
        context.pop()
        context.pop()
    assert context.current() is None


def test_a_plain_call_inside_a_task_is_not_the_parent_of_what_it_sends() -> None:
    sent, called = Task(), Task()
    context.push(sent, Context(id="1", called_directly=False))
    context.push(called, Context(id=None))
    try:
        frame = context.worker_frame()
        assert frame is not None
        assert frame.task is sent
    finally:
        context.pop()
        context.pop()


def test_threads_have_stacks_of_their_own() -> None:
    context.push(Task(), Context())
    seen = []
    thread = threading.Thread(target=lambda: seen.append(context.current()))
    thread.start()
    thread.join()
    context.pop()

    assert seen == [None]


def test_waiting_blocks_inside_a_task_unless_allowed() -> None:
    assert not context.join_blocks()
    context.push(Task(), Context(called_directly=False))
    try:
        assert context.join_blocks()
        with context.allow_join_result():
            assert not context.join_blocks()
            with context.denied_join_result():
                assert context.join_blocks()
        assert context.join_blocks()
    finally:
        context.pop()


def test_a_request_sends_itself_again_with_all_that_it_had() -> None:
    request = Context(
        id="1",
        group="g",
        timelimit=[10, 5],
        stamped_headers=["a"],
        stamps={"a": 1},
        callbacks=[{"task": "x"}],
    )

    options = request.as_execution_options()

    assert options["task_id"] == "1"
    assert options["group_id"] == "g"
    assert (options["time_limit"], options["soft_time_limit"]) == (10, 5)
    assert options["a"] == 1
    assert options["link"] == [{"task": "x"}]
