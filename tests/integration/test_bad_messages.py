"""Messages that no well-behaved client sends: the worker says so once, keeps them, and goes on."""

from __future__ import annotations

import base64
import json
import logging
import pickle
import sqlite3
import uuid
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import amqp
import pytest
import redis

from celeriac.app import Celeriac
from celeriac.errors import NotRegistered
from celeriac.message import Envelope, Props
from celeriac.testing.worker import start_worker
from celeriac.transports import blob

TIMEOUT = 90.0
PICKLE = "application/x-python-serialize"
JSON = "application/json"
EMBED: dict[str, Any] = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
GOOD = json.dumps([[1, 2], {}, EMBED]).encode()
BOMB = b"300 MB in 300 kB"

# Puts headers, a body and a content type into the queue, past everything of ours that checks them.
RawClient = Callable[[dict[str, Any], bytes, str | None], None]


def document(headers: dict[str, Any], body: bytes, content_type: str | None, **changes: Any) -> bytes:
    """Return the document that a message is on Redis; a property that is None is left out."""
    properties = {
        "correlation_id": headers.get("id"),
        "reply_to": "",
        "delivery_mode": 2,
        "delivery_info": {"exchange": "", "routing_key": "celery"},
        "priority": 0,
        "body_encoding": "base64",
        "delivery_tag": str(uuid.uuid4()),
        **changes,
    }
    whole = {
        "body": base64.b64encode(body).decode(),
        "content-encoding": "utf-8",
        "headers": headers,
        "properties": {key: value for key, value in properties.items() if value is not None},
        **({} if content_type is None else {"content-type": content_type}),
    }
    return json.dumps(whole).encode()


def lpush(url: str, message: bytes) -> None:
    """Put bytes into the list of the queue."""
    with redis.Redis.from_url(url) as server:
        server.lpush("celery", message)


def redis_client(url: str) -> RawClient:
    return lambda headers, body, content_type: lpush(url, document(headers, body, content_type))


def amqp_client(url: str) -> RawClient:
    host, _, vhost = url.removeprefix("amqp://guest:guest@").partition("/")

    def send(headers: dict[str, Any], body: bytes, content_type: str | None) -> None:
        properties: dict[str, Any] = {"application_headers": headers, "delivery_mode": 2}
        if content_type is not None:
            properties |= {"content_type": content_type, "content_encoding": "utf-8"}
        with amqp.Connection(host, "guest", "guest", virtual_host=vhost, confirm_publish=True) as connection:
            connection.channel().basic_publish(amqp.Message(body, **properties), "", "celery")

    return send


def sqlite_client(file: Path) -> RawClient:
    def send(headers: dict[str, Any], body: bytes, content_type: str | None) -> None:
        envelope = Envelope(headers=headers, body=body, content_type=content_type, properties=Props())
        connection = sqlite3.connect(file)
        with connection:
            cursor = connection.execute("INSERT INTO messages (blob) VALUES (?)", (blob.pack(envelope),))
            connection.execute(
                "INSERT INTO ready (queue, rank, id, handed, flags) VALUES ('celery', 255, ?, 0, 0)",
                (cursor.lastrowid,),
            )
        connection.close()

    return send


class Place:
    """An app with a broker and a task, and a way to send it nonsense."""

    def __init__(self, app: Celeriac, send: RawClient, url: str) -> None:
        self.app = app
        self.send = send
        self.url = url

        @app.task(name="add")
        def add(x: int, y: int) -> int:
            return x + y

        self.add = add

    def goes_on(self) -> None:
        """See that the worker runs tasks."""
        assert self.add.delay(1, 2).get(timeout=TIMEOUT) == 3

    def dead(self) -> list[str]:
        """Return the reasons of the dead letters."""
        return [letter.reason for letter in self.app.transport.graveyard().find("celery")]


@pytest.fixture(
    params=[
        "sqlite",
        pytest.param("redis", marks=pytest.mark.redis),
        pytest.param("rabbitmq", marks=pytest.mark.rabbitmq),
    ]
)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'broker.db'}"
        send = sqlite_client(tmp_path / "broker.db")
    else:
        url = request.getfixturevalue(f"{request.param}_url")
        send = redis_client(url) if request.param == "redis" else amqp_client(url)
    results = tmp_path / "results"
    results.mkdir()
    app = Celeriac("bad", broker=url, backend=f"file://{results}", set_as_current=False)
    app.conf.publish_timeout_seconds = 2 * TIMEOUT  # Redis is deaf while it copies 100 MB
    if request.param == "redis":
        app.conf.broker_transport_options = {"socket_timeout": 2 * TIMEOUT}
    yield Place(app, send, url)
    app.close()


def v2(**headers: Any) -> dict[str, Any]:
    """Return the headers of a task that there is."""
    return {"lang": "py", "task": "add", "id": str(uuid.uuid4()), **headers}


BAD: dict[str, tuple[dict[str, Any], bytes, str | None]] = {
    "two elements": (v2(), b"[[1, 2], {}]", JSON),
    "four elements": (v2(), b"[[1, 2], {}, {}, {}]", JSON),
    "no content type": (v2(), GOOD, None),
    "a content type that is not accepted": (v2(), pickle.dumps(((1, 2), {}, EMBED)), PICKLE),
    "a content type that nobody knows": (v2(), GOOD, "application/nonsense"),
    "a body that is not JSON": (v2(), b"\xff{ what is this", JSON),
    "a body that is nothing": (v2(), b"", JSON),
    "args that are no list": (v2(), json.dumps([7, {}, EMBED]).encode(), JSON),
    "kwargs that are no object": (v2(), json.dumps([[1, 2], [3], EMBED]).encode(), JSON),
    "embed that is no object": (v2(), b"[[1, 2], {}, 7]", JSON),
    "a compression that it has not": (v2(compression="application/x-gzip"), GOOD, JSON),
    "a compression that nobody knows": (v2(compression="nonsense"), GOOD, JSON),
    "an eta that is no time": (v2(eta="tomorrow"), GOOD, JSON),
    "an eta that is a number": (v2(eta=17), GOOD, JSON),
    "expires that is no time": (v2(expires="never"), GOOD, JSON),
    "an id that is a number": (v2(id=17), GOOD, JSON),
    "no id": ({"task": "add"}, GOOD, JSON),
    "a task that is a number": (v2(task=17), GOOD, JSON),
    "an unknown task": (v2(task="no.such.task"), GOOD, JSON),
    "neither a task header nor a dict": ({}, GOOD, JSON),
    "a dict without a task": ({}, b'{"id": "x"}', JSON),
    "protocol 1 without an id": ({}, b'{"task": "add", "args": [1, 2]}', JSON),
    "protocol 1 with an eta that is no time": ({}, b'{"task": "add", "id": "x", "eta": "soon"}', JSON),
    "protocol 1 with half a character as its id": ({}, b'{"task": "add", "id": "\\ud800"}', JSON),
    "protocol 1 with an endless number": (
        {},
        b'{"task": "add", "id": "x", "retries": 1%s}' % (b"0" * 30),
        JSON,
    ),
    "protocol 1 that cannot be read": ({}, b"\xff", JSON),
    "a body nested beyond reason": (v2(), b"[" * 200_000, JSON),
    "retries that are no number": (v2(retries="many"), GOOD, JSON),
    "a time limit that is no pair": (v2(timelimit=[5]), GOOD, JSON),
    "time limits that are no numbers": (v2(timelimit=["soon", "later"]), GOOD, JSON),
    "callbacks that are no list": (v2(), json.dumps([[1, 2], {}, {**EMBED, "callbacks": 7}]).encode(), JSON),
    "a callback that is no signature": (
        v2(),
        json.dumps([[1, 2], {}, {**EMBED, "callbacks": [7]}]).encode(),
        JSON,
    ),
    "a chain that is no list": (v2(), json.dumps([[1, 2], {}, {**EMBED, "chain": 7}]).encode(), JSON),
    "a chord that is no signature": (v2(), json.dumps([[1, 2], {}, {**EMBED, "chord": 7}]).encode(), JSON),
    "compressed bytes that are cut off": (
        v2(compression="application/x-gzip"),
        zlib.compress(GOOD)[:-5],
        JSON,
    ),
    "compressed bytes that would fill the memory": (
        v2(compression="application/x-gzip"),
        BOMB,
        JSON,
    ),
}


def json_id(body: bytes) -> str:
    """Return the id that a message of protocol 1 has in its body; what is said when there is none to tell."""
    try:
        return str(json.loads(body)["id"]).encode().decode()
    except (ValueError, KeyError, TypeError, RecursionError):
        return "without an id"


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_message_is_told_once_and_kept_and_the_worker_goes_on(
    place: Place, bad: str, caplog: pytest.LogCaptureFixture
) -> None:
    headers, body, content_type = BAD[bad]
    if body == BOMB:  # a second of work, which not every process of the run has to do
        body = zlib.compress(b'[["' + b"x" * 300_000_000 + b'", 1], {}, {}]')

    with start_worker(place.app, pool="threads", concurrency=1):
        place.goes_on()  # and the queue is there
        place.send(dict(headers), body, content_type)
        place.goes_on()

    [told] = errors(caplog)
    assert str(headers.get("id") or json_id(body)) in told
    assert len(place.dead()) == 1
    assert place.app.transport.size("celery") == 0


def test_an_unknown_task_is_told_to_its_caller(place: Place) -> None:
    headers = v2(task="no.such.task")

    with start_worker(place.app, pool="threads"):
        place.goes_on()
        place.send(headers, GOOD, JSON)
        result = place.app.AsyncResult(headers["id"])
        error = result.get(timeout=TIMEOUT, propagate=False)

    assert result.state == "FAILURE"
    assert isinstance(error, NotRegistered)
    assert error.args == ("no.such.task",)


@pytest.mark.timeout(300)
def test_a_body_of_100_mb_is_kept(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    headers = v2()

    with start_worker(place.app, pool="threads"):
        place.goes_on()
        place.send(headers, b'[["' + b"x" * 100_000_000 + b'", 1], {}, {}]', JSON)
        error = place.app.AsyncResult(headers["id"]).get(timeout=4 * TIMEOUT, propagate=False)
        place.goes_on()

    assert "are allowed" in str(error)
    # A slow machine may say more: Redis counts as gone while it is busy with so much.
    assert len([line for line in errors(caplog) if headers["id"] in line]) == 1, errors(caplog)
    assert len(place.dead()) == 1


RAW = {
    "no JSON": b"what is this",
    "no object": b"[1, 2]",
    "no body": b'{"headers": {"task": "add", "id": "x"}, "properties": {}}',
    "a body that is no text": b'{"body": 7, "headers": {"task": "add", "id": "x"}, "properties": {}}',
    "a body that is no base64": (
        b'{"body": "x", "headers": {"task": "add", "id": "x"}, "properties": {"body_encoding": "base64"}}'
    ),
    "headers that are no object": b'{"body": "", "headers": [1], "properties": {}}',
    "no UTF-8": b'{"body": "\xff"}',
    "half a character as its id": b'{"body": "", "headers": {"task": "add", "id": "\\ud800"}}',
    "nothing": b"",
}


@pytest.mark.parametrize("place", [pytest.param("redis", marks=pytest.mark.redis)], indirect=True)
@pytest.mark.parametrize("raw", RAW)
def test_what_is_no_message_in_a_redis_list_is_kept(
    place: Place, raw: str, caplog: pytest.LogCaptureFixture
) -> None:
    with start_worker(place.app, pool="threads"):
        lpush(place.url, RAW[raw])
        place.goes_on()

    [told] = errors(caplog)
    assert told.encode()  # whatever it holds, a log file takes it
    assert len(place.dead()) == 1


@pytest.mark.parametrize("place", [pytest.param("redis", marks=pytest.mark.redis)], indirect=True)
@pytest.mark.parametrize("missing", ["delivery_tag", "delivery_info", "body_encoding"])
def test_a_message_on_redis_runs_without_properties_that_a_real_worker_may_die_without(
    place: Place, missing: str
) -> None:
    headers = v2()
    message = document(headers, GOOD, JSON, **{missing: None})
    if missing == "body_encoding":  # then the body is plain text
        message = json.dumps({**json.loads(message), "body": GOOD.decode()}).encode()

    with start_worker(place.app, pool="threads"):
        lpush(place.url, message)
        assert place.app.AsyncResult(headers["id"]).get(timeout=TIMEOUT) == 3

    assert place.dead() == []
