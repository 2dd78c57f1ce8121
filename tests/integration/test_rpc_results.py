"""rpc:// results when something goes wrong, and as Celery's own programs send them."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from celeriac import states
from celeriac.backends import BackendSpec, connect
from celeriac.backends.rpc import RpcBackend
from celeriac.codecs import Codecs
from celeriac.errors import BackendError, BackendUnreachable, BrokerUnreachable, ConfigError, DecodeError
from celeriac.message import Envelope, Outgoing, Props
from celeriac.testing.conformance.outcomes import store, success
from celeriac.transports.amqp import AmqpTransport
from servers import RabbitServer, free_port

PATIENCE_SECONDS = 60.0

Make = Callable[..., RpcBackend]


@pytest.fixture
def transport(rabbitmq_url: str) -> Iterator[AmqpTransport]:
    transport = AmqpTransport(rabbitmq_url, {})
    yield transport
    transport.close()


@pytest.fixture
def make(transport: AmqpTransport) -> Iterator[Make]:
    made: list[RpcBackend] = []

    def backend(**changes: object) -> RpcBackend:
        fields = {"url": "rpc://", "codecs": Codecs(), "transport": transport, **changes}
        found = connect(BackendSpec(**fields))  # type: ignore[arg-type]
        assert isinstance(found, RpcBackend)
        made.append(found)
        return found

    yield backend
    for found in made:
        found.close()


def send(transport: AmqpTransport, reply_to: str, task_id: str, body: bytes, content_type: str) -> None:
    """Send a result as a worker of Celery's own does."""
    envelope = Envelope(
        headers={},
        body=body,
        content_type=content_type,
        properties=Props(correlation_id=task_id, delivery_mode=1),
    )
    transport.producer().send([Outgoing(envelope=envelope, routing_key=reply_to)], deadline=PATIENCE_SECONDS)


def test_the_reply_queue_is_declared_as_celery_does(
    rabbitmq_server: RabbitServer, transport: AmqpTransport, make: Make
) -> None:
    client = make(expires_seconds=86400)

    name = client.reply_address()

    vhost = transport.address.rpartition("/")[2]
    seen = rabbitmq_server.ctl("list_queues", "-p", vhost, "name", "durable", "auto_delete", "arguments")
    assert [name, "false", "true", '[{"x-expires",86400000}]'] in [
        line.split("\t") for line in seen.splitlines()
    ]
    assert client.reply_address() == name
    client.close()
    assert name not in rabbitmq_server.ctl("list_queues", "-p", vhost, "name")


def test_a_result_of_celerys_own_worker_is_read(transport: AmqpTransport, make: Make) -> None:
    client = make()
    one, two = str(uuid.uuid4()), str(uuid.uuid4())
    reply_to = client.reply_address()

    body = '{"task_id":"%s","status":"SUCCESS","result":5,"traceback":null,"children":[]}'
    send(transport, reply_to, one, (body % one).encode(), "application/json")
    body = (
        '{"task_id":"%s","status":"FAILURE","result":{"exc_type":"ValueError","exc_message":["boom",42],'
        '"exc_module":"builtins"},"traceback":"Traceback …","children":[]}'
    )
    send(transport, reply_to, two, (body % two).encode(), "application/json")

    got = {outcome.id: outcome for outcome in client.wait([one, two], PATIENCE_SECONDS)}
    assert (got[one].state, got[one].result) == (states.SUCCESS, 5)
    assert got[two].state == states.FAILURE
    assert isinstance(got[two].result, ValueError)
    assert got[two].result.args == ("boom", 42)


@pytest.mark.parametrize("content_type", ["application/json", "application/x-python-serialize"])
def test_a_result_that_cannot_be_read_is_a_failure_that_says_so(
    transport: AmqpTransport, make: Make, content_type: str
) -> None:
    client, task_id = make(), str(uuid.uuid4())
    send(transport, client.reply_address(), task_id, b"\x80 what is this", content_type)

    [got] = client.wait([task_id], PATIENCE_SECONDS)

    assert got.state == states.FAILURE
    assert isinstance(got.result, DecodeError)


def test_nothing_is_sent_without_a_reply_queue(make: Make) -> None:
    worker = make()

    worker.store([worker.encode(success(1))])

    assert worker.fetch(["whatever"]) == {}


def test_a_result_for_a_client_that_is_gone_is_dropped(make: Make) -> None:
    worker = make()

    worker.store([worker.encode(success(1), reply_to="nobody", correlation_id="x")])


def test_waiting_goes_on_through_a_restart_of_the_broker(rabbitmq_server: RabbitServer, make: Make) -> None:
    client, worker = make(), make()
    first, second = success("before"), success("after")
    store(client, worker, first)
    assert next(client.wait([first.id], PATIENCE_SECONDS)).result == "before"

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lambda: list(client.wait([second.id], PATIENCE_SECONDS * 2)))
        rabbitmq_server.kill()
        with pytest.raises(BackendUnreachable):
            worker.store([worker.encode(success(0), reply_to="x")])
        rabbitmq_server.start()
        record = worker.encode(second, reply_to=client._queue.name)
        until = time.monotonic() + PATIENCE_SECONDS
        while not waiting.done():  # the client declares its queue anew when it is back
            assert time.monotonic() < until
            worker.store([record])
            time.sleep(0.1)
        [got] = waiting.result()

    assert got.result == "after"


def test_a_call_after_a_restart_of_the_broker_has_a_queue_for_its_result(
    rabbitmq_server: RabbitServer, transport: AmqpTransport, make: Make
) -> None:
    client, outcome = make(), success("not lost")
    reply_to = client.reply_address()
    rabbitmq_server.kill()
    rabbitmq_server.start()

    # Who calls a task does this, and the result may be there before anybody waits for it.
    assert client.reply_address() == reply_to
    send(transport, "nobody", "call", b"[]", "application/json")
    store(client, make(), outcome)

    assert next(client.wait([outcome.id], PATIENCE_SECONDS)).result == "not lost"


def test_many_results_come_to_many_threads(make: Make) -> None:
    client, worker = make(), make()
    outcomes = [success(n) for n in range(2000)]
    reply_to = client.reply_address()
    records = [worker.encode(outcome, reply_to=reply_to) for outcome in outcomes]

    def wait(part: int) -> list[int]:
        return [o.result for o in client.wait([o.id for o in outcomes[part::4]], PATIENCE_SECONDS)]

    with ThreadPoolExecutor(5) as pool:
        got = [pool.submit(wait, part) for part in range(4)]
        for start in range(0, 2000, 250):
            worker.store(records[start : start + 250])
        seen = sorted(value for future in got for value in future.result())

    assert seen == list(range(2000))


def test_a_look_sees_everything_that_was_sent_before(make: Make) -> None:
    client, worker = make(), make()
    for round_ in range(30):
        outcomes = [success(n) for n in range(round_ * 20 + 1)]
        store(client, worker, *outcomes)

        assert len(client.fetch([outcome.id for outcome in outcomes])) == len(outcomes)


def test_a_forked_child_has_a_queue_of_its_own(make: Make) -> None:
    client, worker = make(), make()
    mine = success("parent")
    store(client, worker, mine)
    address = client.reply_address()
    reading, writing = os.pipe()

    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            outcome = success("child")
            store(client, worker, outcome)
            [got] = client.wait([outcome.id], PATIENCE_SECONDS)
            os.write(writing, f"{got.result} {client.reply_address() == address}".encode())
            client.close()
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    said = os.read(reading, 100)
    os.close(reading)
    assert os.waitpid(pid, 0)[1] == 0

    assert said == b"child False"
    [got] = client.wait([mine.id], PATIENCE_SECONDS)
    assert got.result == "parent"


def test_groups_and_chords_are_refused_with_advice(make: Make) -> None:
    client = make()

    with pytest.raises(BackendError, match="redis://"):
        client.save_group("g", [])
    with pytest.raises(NotImplementedError, match=r"chords.*redis://"):
        client.start_chord("c", 1, [])


def test_another_broker_than_rabbitmq_is_a_mistake_in_the_settings() -> None:
    with pytest.raises(ConfigError, match="amqp://"):
        connect(BackendSpec(url="rpc://", codecs=Codecs(), transport=None))


def test_a_broker_that_is_away_is_told(make: Make) -> None:
    transport = AmqpTransport(f"amqp://u:sekrit@127.0.0.1:{free_port()}//", {})
    client = make(transport=transport)

    with pytest.raises(BrokerUnreachable) as sending:
        client.reply_address()
    with pytest.raises(BackendUnreachable) as storing:
        client.store([client.encode(success(1), reply_to="x")])

    for caught in (sending, storing):
        assert "sekrit" not in str(caught.value)
    transport.close()


def test_a_waiting_thread_does_not_hinder_another_that_is_served(make: Make) -> None:
    client, worker = make(), make()
    never, soon = str(uuid.uuid4()), success("soon")
    client.reply_address()
    began = threading.Event()

    def wait_in_vain() -> None:
        waiting = client.wait([never], 3.0)
        began.set()
        with pytest.raises(Exception, match="not ready in"):
            next(waiting)

    thread = threading.Thread(target=wait_in_vain)
    thread.start()
    began.wait(PATIENCE_SECONDS)
    store(client, worker, soon)
    start = time.monotonic()
    [got] = client.wait([soon.id], PATIENCE_SECONDS)
    took = time.monotonic() - start
    thread.join(PATIENCE_SECONDS)

    assert got.result == "soon"
    assert took < 1.0
