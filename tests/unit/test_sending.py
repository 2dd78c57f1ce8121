"""From a call to a message: options, routes, times, hooks, batches, failures."""

from __future__ import annotations

import asyncio
import datetime
import os
import time
from collections.abc import Sequence
from typing import Any

import pytest

from celeriac import context
from celeriac.app import Celeriac
from celeriac.canvas import chain, chord, group
from celeriac.client import TaskCall
from celeriac.context import Context
from celeriac.errors import (
    BrokerUnreachable,
    EncodeError,
    NoMoment,
    PublishTimeout,
    TransportError,
    UsageError,
)
from celeriac.message import Outgoing
from desk import new_app

UTC = datetime.UTC


class Producer:
    """Keeps what it is given; fails as often as it is told to."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.batches: list[list[Outgoing]] = []
        self.deadlines: list[float] = []

    def send(self, batch: Sequence[Outgoing], *, deadline: float) -> None:
        self.deadlines.append(deadline)
        if self.failures:
            raise self.failures.pop(0)
        self.batches.append(list(batch))

    async def asend(self, batch: Sequence[Outgoing], *, deadline: float) -> None:
        self.send(batch, deadline=deadline)

    def close(self) -> None: ...

    @property
    def last(self) -> Outgoing:
        return self.batches[-1][-1]

    @property
    def headers(self) -> dict[str, Any]:
        return self.last.envelope.headers


@pytest.fixture
def producer() -> Producer:
    return Producer()


@pytest.fixture
def app(producer: Producer) -> Celeriac:
    app = new_app()
    app.client._producer = producer
    return app


@pytest.fixture
def add(app: Celeriac) -> Any:
    @app.task(name="proj.add")
    def add(x: int, y: int = 0) -> int:
        return x + y

    return add


def test_delay_sends_one_message_and_returns_the_result_to_come(add: Any, producer: Producer) -> None:
    result = add.delay(1, y=2)

    [[sent]] = producer.batches
    assert sent.envelope.headers["task"] == "proj.add"
    assert sent.envelope.headers["id"] == result.id == sent.envelope.properties.correlation_id
    assert sent.envelope.headers["root_id"] == result.id
    assert sent.envelope.body == b'[[1],{"y":2},{"callbacks":null,"errbacks":null,"chain":null,"chord":null}]'
    assert (sent.exchange, sent.routing_key) == ("", "celery")
    assert sent.queue is not None
    assert sent.queue.name == "celery"


def test_a_wrong_call_is_refused_before_it_is_sent(app: Celeriac, add: Any, producer: Producer) -> None:
    with pytest.raises(TypeError, match=r"add\(\) missing 1 required positional argument: 'x'"):
        add.delay()

    @app.task(typing=False)
    def loose(x: int) -> None: ...

    loose.delay()  # type: ignore[call-arg]  # the checker sees what `typing=False` lets pass
    assert len(producer.batches) == 1


def test_with_strict_typing_off_calls_are_not_checked() -> None:
    app = Celeriac("proj", strict_typing=False, broker="memory://loose", backend="disabled")

    @app.task
    def add(x: int) -> None: ...

    add.delay()  # type: ignore[call-arg]


def test_the_options_of_a_call_win_over_those_of_the_task(app: Celeriac, producer: Producer) -> None:
    @app.task(queue="slow", priority=3, serializer="json", expires=60, time_limit=9)
    def add(x: int) -> None: ...

    add.apply_async((1,))
    assert producer.last.routing_key == "slow"
    assert producer.last.envelope.properties.priority == 3
    assert producer.last.envelope.properties.expiration == "60000"
    assert producer.headers["timelimit"] == [9, None]

    add.apply_async((1,), queue="fast", priority=7, time_limit=20, soft_time_limit=10, shadow="shown")
    assert producer.last.routing_key == "fast"
    assert producer.last.envelope.properties.priority == 7
    assert producer.headers["timelimit"] == [20, 10]
    assert producer.headers["shadow"] == "shown"


def test_a_soft_limit_above_the_hard_one_is_refused(add: Any) -> None:
    with pytest.raises(ValueError, match="soft_time_limit must be less than or equal to time_limit"):
        add.apply_async((1,), time_limit=1, soft_time_limit=2)


@pytest.mark.parametrize("where", ["send_task", "later step", "member", "body", "against the task's own"])
def test_so_it_is_by_name_and_anywhere_in_a_workflow(
    app: Celeriac, add: Any, producer: Producer, where: str
) -> None:
    @app.task(name="proj.limited", time_limit=1)
    def limited(x: int = 0) -> int:
        return x

    wrong = add.s(1).set(time_limit=1, soft_time_limit=2)
    calls = {
        "send_task": lambda: app.send_task("proj.other", (), time_limit=1, soft_time_limit=2),
        "later step": lambda: chain(add.s(1), wrong).apply_async(),
        "member": lambda: group([add.s(1), wrong]).apply_async(),
        "body": lambda: chord([add.s(1), add.s(2)], wrong).apply_async(),
        "against the task's own": lambda: chain(add.s(1), limited.s().set(soft_time_limit=2)).apply_async(),
    }

    with pytest.raises(ValueError, match="soft_time_limit must be less than or equal to time_limit"):
        calls[where]()

    assert producer.batches == []


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("countdown", float("nan")),
        ("countdown", float("inf")),
        ("countdown", 1e18),
        ("countdown", "5"),
        ("eta", "tomorrow"),
        ("eta", 1e9),
        ("eta", datetime.timedelta(seconds=4)),
        ("expires", float("nan")),
        ("expires", 1e18),
        ("expires", "soon"),
        ("expires", datetime.timedelta(seconds=4)),
    ],
)
def test_what_says_no_time_is_refused_with_the_option_and_its_value(
    add: Any, producer: Producer, option: str, value: Any
) -> None:
    with pytest.raises(NoMoment) as refused:
        add.apply_async((1,), **{option: value})

    assert str(refused.value).startswith(f"The call was not sent: {option}={value!r} says no time (")
    assert producer.batches == []


def test_headers_become_headers_and_unknown_options_properties(add: Any, producer: Producer) -> None:
    add.apply_async((1,), headers={"mine": 1}, once={"key": 2}, message_group="g")

    assert producer.headers["mine"] == 1
    assert producer.last.envelope.properties.extra == {"once": {"key": 2}, "message_group": "g"}


def test_countdown_and_eta_become_a_moment_for_worker_and_broker(add: Any, producer: Producer) -> None:
    before = time.time()
    add.apply_async((1,), countdown=60)
    moment = datetime.datetime.fromisoformat(producer.headers["eta"])
    assert moment.utcoffset() == datetime.timedelta(0)
    assert before + 59 < moment.timestamp() < time.time() + 61
    assert producer.last.not_before == pytest.approx(moment.timestamp())

    add.apply_async((1,), eta=datetime.datetime(2030, 1, 2, 3, 4, 5))
    assert producer.headers["eta"] == "2030-01-02T03:04:05"
    assert producer.last.not_before == datetime.datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp()

    add.apply_async((1,), eta="2030-01-02T03:04:05+02:00")
    assert producer.headers["eta"] == "2030-01-02T03:04:05+02:00"
    assert producer.last.not_before == datetime.datetime(2030, 1, 2, 1, 4, 5, tzinfo=UTC).timestamp()

    add.delay(1)
    assert producer.headers["eta"] is None
    assert producer.last.not_before is None


def test_expires_is_seconds_a_moment_or_text(
    add: Any, producer: Producer, caplog: pytest.LogCaptureFixture
) -> None:
    add.apply_async((1,), expires=10)
    moment = datetime.datetime.fromisoformat(producer.headers["expires"])
    assert 8 < moment.timestamp() - time.time() < 11
    assert producer.last.envelope.properties.expiration == "10000"

    add.apply_async((1,), expires=datetime.datetime.now(UTC) + datetime.timedelta(seconds=30))
    assert 28_000 < int(producer.last.envelope.properties.expiration or 0) <= 30_000

    add.apply_async((1,), expires=datetime.datetime(2001, 1, 1, tzinfo=UTC))
    assert producer.headers["expires"] == "2001-01-01T00:00:00+00:00"
    assert producer.last.envelope.properties.expiration == "0"
    assert "expired before it is sent" in caplog.text


def test_inside_a_task_root_parent_and_children_are_noted(
    app: Celeriac, add: Any, producer: Producer
) -> None:
    request = Context(id="me", root_id="root", called_directly=False)
    context.push(add, request)
    try:
        child = add.delay(1)
        other = add.apply_async((1,), add_to_parent=False, root_id="r", parent_id="p")
    finally:
        context.pop()

    assert producer.batches[0][0].envelope.headers["root_id"] == "root"
    assert producer.batches[0][0].envelope.headers["parent_id"] == "me"
    assert producer.headers["root_id"] == "r"
    assert producer.headers["parent_id"] == "p"
    assert request.children == [child]
    assert other.id not in [c.id for c in request.children]


def test_priority_is_inherited_where_the_settings_say_so(producer: Producer) -> None:
    app = new_app(task_inherit_parent_priority=True)
    app.client._producer = producer

    @app.task
    def add(x: int) -> None: ...

    context.push(add, Context(id="me", called_directly=False, delivery_info={"priority": 6}))
    try:
        add.delay(1)
        add.apply_async((1,), priority=1)
    finally:
        context.pop()

    assert [batch[0].envelope.properties.priority for batch in producer.batches] == [6, 1]


def test_links_travel_as_lists_of_signatures(add: Any, producer: Producer) -> None:
    add.apply_async((1,), link=add.s(2), link_error=[add.si(3)])

    body = producer.last.envelope.body
    assert b'"callbacks":[{"task":"proj.add","args":[2]' in body
    assert b'"errbacks":[{"task":"proj.add","args":[3]' in body


def test_stamps_are_headers(add: Any, producer: Producer) -> None:
    add.apply_async((1,), stamped_headers=["team"], team="blue")

    assert producer.headers["stamped_headers"] == ["team"]
    assert producer.headers["stamps"] == {"team": "blue"}
    assert producer.last.envelope.properties.extra == {}


def test_serializer_and_compression_are_named_in_the_message(add: Any, producer: Producer) -> None:
    add.apply_async((1,), serializer="pickle", compression="zlib")

    assert producer.last.envelope.content_type == "application/x-python-serialize"
    assert producer.headers["compression"] == "application/x-gzip"


def test_what_cannot_be_serialized_is_not_sent(add: Any, producer: Producer) -> None:
    with pytest.raises(EncodeError):
        add.delay({1, 2})
    assert producer.batches == []


def test_protocol_1_is_sent_where_the_settings_say_so(producer: Producer) -> None:
    app = new_app(task_protocol=1)
    app.client._producer = producer

    @app.task(name="proj.add")
    def add(x: int) -> None: ...

    add.delay(1)

    assert producer.headers == {}
    assert b'"task":"proj.add"' in producer.last.envelope.body


def test_a_task_can_be_sent_by_name(app: Celeriac, producer: Producer) -> None:
    result = app.send_task("not.known.here", (1,), {"k": 2}, countdown=1, queue="far", task_id="my-id")

    assert result.id == "my-id"
    assert producer.headers["task"] == "not.known.here"
    assert producer.last.routing_key == "far"
    assert producer.headers["ignore_result"] is False


def test_a_result_nobody_keeps_is_marked_ignored(app: Celeriac, producer: Producer) -> None:
    @app.task(ignore_result=True)
    def fire(x: int) -> None: ...

    assert fire.delay(1).get() is None
    assert fire.apply_async((1,), ignore_result=False).ignored is False


def test_shadow_names_can_be_computed(app: Celeriac, producer: Producer) -> None:
    @app.task(shadow_name=lambda self, args, kwargs, options: f"add {args[0]}")
    def add(x: int) -> None: ...

    add.delay(5)

    assert producer.headers["shadow"] == "add 5"


def test_receivers_edit_the_message_before_it_is_sent(app: Celeriac, add: Any, producer: Producer) -> None:
    seen: dict[str, Any] = {}

    def before(sender: Any, headers: Any, properties: Any, body: Any, **kwargs: Any) -> None:
        seen.update(kwargs, sender=sender, body=body)
        headers["traceparent"] = "00"
        properties["priority"] = 9
        properties["mine"] = "x"

    def after(headers: Any, **kwargs: Any) -> None:
        seen["after"] = headers["id"]

    app.hooks.before_task_publish.connect(before)
    app.hooks.after_task_publish.connect(after)
    result = add.delay(1)

    assert producer.headers["traceparent"] == "00"
    assert producer.last.envelope.properties.priority == 9
    assert producer.last.envelope.properties.extra == {"mine": "x"}
    assert seen["after"] == result.id
    assert seen["sender"] == "proj.add"
    assert seen["routing_key"] == "celery"
    assert seen["body"][0] == (1,)


def test_a_batch_is_one_round_trip_and_nothing_when_it_raises(
    app: Celeriac, add: Any, producer: Producer
) -> None:
    with app.batch():
        add.delay(1)
        with app.batch():
            add.delay(2)
        assert producer.batches == []
    assert [len(batch) for batch in producer.batches] == [2]

    with pytest.raises(TypeError), app.batch():
        add.delay(3) + add.delay()
    assert len(producer.batches) == 1


def test_a_large_batch_goes_out_in_pieces(app: Celeriac, add: Any, producer: Producer) -> None:
    with app.batch():
        for number in range(1100):
            add.delay(number)

    assert [len(batch) for batch in producer.batches] == [500, 500, 100]


def test_many_calls_are_sent_at_once(app: Celeriac, producer: Producer) -> None:
    results = app.send_many([TaskCall(name="a", args=(1,)), TaskCall(name="b", options={"task_id": "x"})])

    assert [len(batch) for batch in producer.batches] == [2]
    assert results[1].id == "x"


async def test_sending_does_not_block_an_event_loop(app: Celeriac, add: Any) -> None:
    class Asynchronous(Producer):
        def send(self, batch: Sequence[Outgoing], *, deadline: float) -> None:
            raise AssertionError("blocking")

        async def asend(self, batch: Sequence[Outgoing], *, deadline: float) -> None:
            await asyncio.sleep(0)
            if self.failures:
                raise self.failures.pop(0)
            self.batches.append(list(batch))

    producer = Asynchronous(BrokerUnreachable("away"))
    app.client._producer = producer
    await add.adelay(1)
    await add.aapply_async((1,), queue="other")
    await app.client.asend("by.name")
    await asyncio.gather(*(add.adelay(n) for n in range(3)))

    assert [len(batch) for batch in producer.batches] == [1] * 6
    assert producer.batches[1][0].routing_key == "other"


def test_publishing_is_tried_again_as_the_policy_says(
    app: Celeriac, add: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("celeriac.client.time.sleep", pauses.append)
    producer = Producer(BrokerUnreachable("away"), BrokerUnreachable("away"), BrokerUnreachable("away"))
    app.client._producer = producer

    add.delay(1)

    assert pauses == [0, pytest.approx(0.2), pytest.approx(0.4)]
    assert len(producer.batches) == 1
    assert producer.deadlines[0] == 5.0
    assert all(later <= 5.0 for later in producer.deadlines)


@pytest.mark.parametrize(
    ("options", "failures", "tries"),
    [
        ({}, [BrokerUnreachable("away")] * 9, 4),
        ({"retry": False}, [BrokerUnreachable("away")] * 9, 1),
        ({"retry_policy": {"max_retries": 1}}, [BrokerUnreachable("away")] * 9, 2),
        ({}, [BrokerUnreachable("wrong password", retryable=False)], 1),
        ({}, [PublishTimeout("too slow")], 1),
        ({"timeout": 0.05}, [BrokerUnreachable("away")] * 9, 2),
    ],
)
def test_a_failure_that_stays_is_raised(
    app: Celeriac,
    add: Any,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    failures: list[Exception],
    tries: int,
) -> None:
    monkeypatch.setattr("celeriac.client.time.sleep", lambda seconds: None)
    producer = Producer(*failures)
    app.client._producer = producer

    with pytest.raises((BrokerUnreachable, PublishTimeout)):
        add.apply_async((1,), **options)

    assert len(producer.deadlines) == tries


@pytest.mark.parametrize(
    ("failure", "says_so"),
    [(TransportError("The connection was lost"), True), (BrokerUnreachable("away"), False)],
    ids=["lost", "never there"],
)
def test_a_message_that_is_sent_again_says_when_it_may_be_there_already(
    app: Celeriac, add: Any, failure: TransportError, says_so: bool
) -> None:
    producer = Producer(failure)
    app.client._producer = producer

    add.delay(1)

    assert ("celeriac_resent" in producer.headers) is says_so


def test_the_publish_budget_is_a_setting_and_covers_all_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    app = new_app(publish_timeout_seconds=0.3, task_publish_retry_policy={"max_retries": None})
    producer = Producer(*[BrokerUnreachable("away")] * 99)
    app.client._producer = producer

    @app.task
    def add() -> None: ...

    started = time.monotonic()
    with pytest.raises(BrokerUnreachable):
        add.delay()

    assert time.monotonic() - started < 1
    assert producer.deadlines[0] == 0.3
    assert producer.deadlines[-1] < 0.3


def test_a_setting_that_changes_counts_from_the_next_call_on(
    app: Celeriac, add: Any, producer: Producer
) -> None:
    add.delay(1)
    app.conf.task_default_queue = "elsewhere"
    add.delay(1)

    assert [batch[0].routing_key for batch in producer.batches] == ["celery", "elsewhere"]


def test_a_call_can_be_routed_by_the_settings(producer: Producer) -> None:
    app = new_app(task_routes={"proj.*": {"queue": "routed", "priority": 4}})
    app.client._producer = producer

    @app.task(name="proj.add")
    def add() -> None: ...

    add.delay()
    add.apply_async(priority=1)

    assert [batch[0].routing_key for batch in producer.batches] == ["routed", "routed"]
    assert [batch[0].envelope.properties.priority for batch in producer.batches] == [4, 1]


def test_the_origin_is_this_process_also_after_a_fork(add: Any, producer: Producer) -> None:
    add.delay(1)
    assert producer.headers["origin"].startswith(f"gen{os.getpid()}@")

    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            add.delay(1)
            os.write(writer, producer.headers["origin"].encode())
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        assert pipe.read().startswith(f"gen{pid}@")


def test_an_overridden_apply_async_is_what_delay_and_signatures_call(
    app: Celeriac, producer: Producer
) -> None:
    class Tenant(app.Task):  # type: ignore[name-defined,misc]
        def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
            headers = {**(options.pop("headers", None) or {}), "tenant": "t1"}
            return super().apply_async(args, kwargs, headers=headers, **options)

    @app.task(base=Tenant)
    def add(x: int) -> None: ...

    add.delay(1)
    assert producer.headers["tenant"] == "t1"
    add.s(1).apply_async(queue="q")
    assert producer.headers["tenant"] == "t1"
    (add.s(1) | add.s()).delay()
    assert producer.headers["tenant"] == "t1"


def test_a_misspelt_option_is_refused_before_anything_is_sent(app: Celeriac, producer: Producer) -> None:
    with pytest.raises(UsageError, match=r"no option 'countdwn' for a call of t; did you mean 'countdown'"):
        app.send_task("t", countdwn=60)

    assert producer.batches == []


def test_a_misspelt_option_is_sent_along_with_a_warning_in_a_celery_program(
    app: Celeriac, producer: Producer, caplog: pytest.LogCaptureFixture
) -> None:
    app.conf.strict = False

    app.send_task("t", countdwn=60)

    assert "did you mean 'countdown'" in caplog.text
    assert producer.last.envelope.properties.extra == {"countdwn": 60}


def test_options_that_resemble_none_of_ours_become_message_properties(
    app: Celeriac, producer: Producer, caplog: pytest.LogCaptureFixture
) -> None:
    app.send_task("t", once={"keys": ["x"]})

    assert producer.last.envelope.properties.extra == {"once": {"keys": ["x"]}}
    assert not caplog.records
