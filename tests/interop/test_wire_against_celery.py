"""Real Celery reads what we write, and we read what it writes."""

from __future__ import annotations

import base64
import datetime
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import redis

from celeriac import errors
from celeriac.codecs import Codecs
from celeriac.codecs.compress import compress, decompress
from celeriac.codecs.foreign import NAMES
from celeriac.codecs.signed import Signer
from celeriac.message import Outcome
from celeriac.wire import virtual
from celeriac.wire.result import pack, unpack
from celeriac.wire.task import TaskMessage, compose, compose_v1, seal, unpack_call, unpack_headers, upgrade
from certificates import certificate_pem, key_pem, rsa_key

pytestmark = pytest.mark.timeout(400)  # the first test waits for the environment to be made

Real = Callable[..., list[Any]]
HERE = Path(__file__).resolve().parent
CODECS = Codecs()
ALL = CODECS.accept_set(["json", "yaml", "msgpack", "pickle"])
PLAIN: list[Any] = [
    [1, -1, 2**70, 1.5, 1e300, True, None, "é\U0001f600\u2028", ""],
    {"": 1, "a": {"b": [[], {}]}},
]
EXTENDED: list[Any] = [
    datetime.datetime(2030, 1, 2, 3, 4, 5, 678),
    datetime.datetime(2030, 1, 2, tzinfo=datetime.UTC),
    datetime.datetime(2030, 1, 2, tzinfo=datetime.timezone(datetime.timedelta(hours=-5, minutes=-30))),
    datetime.date(2030, 1, 2),
    datetime.time(3, 4, 5, 6),
    datetime.time(3, 4, tzinfo=datetime.UTC),
    Decimal("1.50"),
    Decimal("-Infinity"),
    UUID("12345678-1234-5678-1234-567812345678"),
    b"abc",
    b"\xff\xfe",
    b"",
    float("inf"),
]
JSON_ONLY: list[Any] = [*PLAIN, EXTENDED, {"deep": [{"er": EXTENDED}]}, "\ud800"]
VALUES = {
    "json": JSON_ONLY,
    "yaml": [*PLAIN, datetime.date(2030, 1, 2), datetime.datetime(2030, 1, 2, 3, 4, 5)],
    "msgpack": [[*PLAIN[0][:2], *PLAIN[0][3:]], PLAIN[1], b"\xff", b"abc"],
    "pickle": [*JSON_ONLY, (1, (2,)), {3}, datetime.timedelta(1), 1j],
}
CASES = [(serializer, value) for serializer, values in VALUES.items() for value in values]
FORMATS = ["zlib", "gzip", "bzip2", "bzip", "lzma", "xz", "brotli", "zstd", "zstandard"]


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def unb64(text: str) -> bytes:
    return base64.b64decode(text)


def test_celery_decodes_what_we_encode(real: Real) -> None:
    questions = []
    for serializer, value in CASES:
        content_type, encoding, data = CODECS.encode(value, serializer)
        questions.append(("loads", {"content_type": content_type, "encoding": encoding, "data": b64(data)}))

    answers = real(*questions)

    assert answers == [repr(value) for _, value in CASES]


def test_we_decode_what_celery_encodes(real: Real) -> None:
    answers = real(
        *(("dumps", {"value": repr(value), "serializer": serializer}) for serializer, value in CASES)
    )

    for (serializer, value), answer in zip(CASES, answers, strict=True):
        assert answer["content_type"] == CODECS.content_type(serializer)
        assert answer["encoding"] == CODECS.encode(1, serializer)[1]
        back = CODECS.decode(unb64(answer["data"]), answer["content_type"], answer["encoding"], ALL)
        assert repr(back) == repr(value)


def test_we_refuse_what_celery_refuses_in_its_words(real: Real) -> None:
    refused = ["{1, 2}", "1j", "datetime.timedelta(1)", "bytearray(b'x')", "range(3)", "{(1,): 2}"]

    answers = real(*(("dumps", {"value": value, "serializer": "json"}) for value in refused))

    for value, answer in zip(refused, answers, strict=True):
        assert answer["error"] == "kombu.exceptions.EncodeError"
        with pytest.raises(errors.EncodeError) as caught:
            CODECS.encode(eval(value, {"datetime": datetime}), "json")
        assert str(caught.value) == answer["text"]


def test_refused_content_is_refused_in_celerys_words(real: Real) -> None:
    kinds = ["application/x-python-serialize", "application/x-yaml", "application/nope"]

    answers = real(
        *(
            (
                "loads",
                {
                    "content_type": kind,
                    "encoding": "utf-8",
                    "data": b64(b"x"),
                    "accept": ["application/json"],
                },
            )
            for kind in kinds
        )
    )

    for kind, answer in zip(kinds, answers, strict=True):
        with pytest.raises(errors.ContentRefused) as caught:
            CODECS.decode(b"x", kind, "utf-8", CODECS.accept_set(["json"]))
        assert (answer["error"], answer["text"]) == ("kombu.exceptions.ContentDisallowed", str(caught.value))


def test_compression_is_read_both_ways(real: Real) -> None:
    text = b"the quick brown fox " * 100

    packed = {name: compress(name, text) for name in FORMATS}
    read = real(*(("decompress", {"name": mime, "data": b64(data)}) for data, mime in packed.values()))
    written = real(*(("compress", {"name": name, "data": b64(text)}) for name in FORMATS))

    assert [unb64(answer) for answer in read] == [text] * len(FORMATS)
    for name, answer in zip(FORMATS, written, strict=True):
        assert answer["mime"] == packed[name][1]
        assert decompress(answer["mime"], unb64(answer["data"]), max_bytes=len(text)) == text


# --- results --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("serializer", ["json", "yaml", "msgpack", "pickle"])
def test_celery_reads_our_exceptions_as_its_own_classes(real: Real, serializer: str) -> None:
    ours = [*(cls("why") for cls in NAMES), ValueError("boom", 42), KeyError(("a",)), OSError(2, "gone")]
    packed = [
        pack(Outcome(id="1", state="FAILURE", result=exc, traceback="tb\n"), CODECS, serializer)
        for exc in ours
    ]

    answers = real(*(("read_result", {"data": b64(data), "serializer": serializer}) for data in packed))

    for exc, answer in zip(ours, answers, strict=True):
        name = ".".join(NAMES.get(type(exc), (type(exc).__module__, type(exc).__qualname__)))
        assert answer["type"] == name
        assert (answer["state"], answer["traceback"]) == ("FAILURE", "tb\n")
        if type(exc) not in (
            errors.Retry,
            errors.Reject,
            errors.TransportError,
        ):  # Celery's own have other args
            assert answer["args"] == (
                repr(exc.args).replace("('a',)", "['a']") if serializer != "pickle" else repr(exc.args)
            )


@pytest.mark.parametrize("serializer", ["json", "yaml", "msgpack", "pickle"])
def test_we_read_celerys_exceptions_as_our_own_classes(real: Real, serializer: str) -> None:
    theirs = {name: cls for cls, name in NAMES.items() if cls not in (errors.Retry, errors.Reject)}

    answers = real(
        *(
            (
                "write_result",
                {"state": "FAILURE", "error": [module, name, "('why',)"], "serializer": serializer},
            )
            for module, name in theirs
        )
    )

    for cls, answer in zip(theirs.values(), answers, strict=True):
        outcome = unpack(unb64(answer), CODECS, serializer=serializer)
        assert outcome.state == "FAILURE"
        assert type(outcome.result) is cls
        assert str(outcome.result) == str(cls("why"))
        assert outcome.traceback == "Traceback …\n"


def test_exceptions_that_only_one_side_has_become_stand_ins(real: Real) -> None:
    class Local(Exception):
        pass

    data = pack(Outcome(id="1", state="FAILURE", result=Local("why", 1)), CODECS)
    answer, written, pickled = real(
        ("read_result", {"data": b64(data)}),
        ("write_result", {"state": "FAILURE", "error": ["__main__", "CustomError", "('why', 1)"]}),
        (
            "write_result",
            {"state": "FAILURE", "error": ["zlib", "error", "(lambda: 1,)"], "serializer": "pickle"},
        ),
    )

    assert answer["args"] == "('why', 1)"
    ours = unpack(unb64(written), CODECS).result
    assert (type(ours).__name__, ours.args) == ("CustomError", ("why", 1))
    wrapped = unpack(unb64(pickled), CODECS, serializer="pickle").result
    assert type(wrapped).__name__ == "error"


@pytest.mark.parametrize("serializer", ["json", "yaml", "msgpack", "pickle"])
def test_values_of_results_are_read_both_ways(real: Real, serializer: str) -> None:
    values = VALUES[serializer]

    packed = [pack(Outcome(id="1", state="SUCCESS", result=value), CODECS, serializer) for value in values]
    read = real(*(("read_result", {"data": b64(data), "serializer": serializer}) for data in packed))
    written = real(
        *(
            ("write_result", {"state": "SUCCESS", "value": repr(value), "serializer": serializer})
            for value in values
        )
    )

    assert [answer["value"] for answer in read] == [repr(value) for value in values]
    back = [unpack(unb64(answer), CODECS, serializer=serializer).result for answer in written]
    assert repr(back) == repr(values)


def test_our_result_document_is_celerys_to_the_key(real: Real) -> None:
    (written,) = real(("write_result", {"state": "SUCCESS", "value": "5"}))

    theirs = json.loads(unb64(written))
    ours = json.loads(pack(Outcome(id="1", state="SUCCESS", result=5, children=[]), CODECS))
    assert list(ours) == list(theirs)


def test_signatures_in_pickles_are_read_both_ways(real: Real) -> None:
    class Signature(dict[str, Any]):
        pass

    Signature.__module__ = "celeriac.canvas.signature"
    fields: dict[str, Any] = {
        "task": "t",
        "args": (),
        "kwargs": {},
        "options": {},
        "subtask_type": None,
        "immutable": False,
    }
    ours = CODECS.encode(Signature(fields), "pickle")[2]

    pickled, read = real(("pickle_signature", {}), ("unpickle", {"data": b64(ours)}))

    assert read["type"] == "celery.canvas.Signature"
    plain, chain = CODECS.decode(unb64(pickled), "application/x-python-serialize", "binary", ALL)
    assert (plain["task"], plain["args"]) == ("t", (1, 2))
    assert [step["task"] for step in chain["kwargs"]["tasks"]] == ["a", "b"]


# --- signed messages ------------------------------------------------------------------------------------


@pytest.mark.parametrize("digest", ["sha256", "sha512"])
@pytest.mark.parametrize("inner", ["json", "pickle"])
def test_signed_messages_are_read_both_ways(real: Real, tmp_path: Path, digest: str, inner: str) -> None:
    pems: dict[str, tuple[bytes, bytes]] = {}
    for name in ("ours", "theirs", "stranger"):
        pems[name] = (key_pem(rsa_key(name)), certificate_pem(rsa_key(name), name, serial=len(pems) + 1))
        (tmp_path / f"{name}.key").write_bytes(pems[name][0])
    (tmp_path / "store").mkdir()
    for name in ("ours", "theirs"):
        (tmp_path / "store" / f"{name}.pem").write_bytes(pems[name][1])
    signer = {}
    for name in ("ours", "stranger"):
        signer[name] = Codecs()
        Signer(
            *pems[name],
            [pems["ours"][1], pems["theirs"][1]],
            now=datetime.datetime.now(datetime.UTC),
            digest=digest,
            serializer=inner,
        ).register_on(signer[name])
    value = [[1, b"\x00\x01\xff"], {}, {"callbacks": None}]
    content_type, encoding, data = signer["ours"].encode(value, "auth")
    strange = signer["stranger"].encode(value, "auth")[2]
    common = {"content_type": content_type, "encoding": encoding}

    _, read, refused, written = real(
        (
            "secure",
            {
                "key": str(tmp_path / "theirs.key"),
                "cert": str(tmp_path / "store" / "theirs.pem"),
                "store": str(tmp_path / "store" / "*.pem"),
                "digest": digest,
                "serializer": inner,
            },
        ),
        ("loads", {**common, "data": b64(data)}),
        ("loads", {**common, "data": b64(strange)}),
        ("dumps", {"value": repr(value), "serializer": "auth"}),
    )

    assert read == repr(value)
    assert "stranger" in refused["text"]
    assert (written["content_type"], written["encoding"]) == (content_type, encoding)
    accept = signer["ours"].accept_set(["auth"])
    assert signer["ours"].decode(unb64(written["data"]), content_type, encoding, accept) == value


# --- whole messages -------------------------------------------------------------------------------------


def listed(server: redis.Redis, queue: str) -> bytes:
    found = server.lpop(queue)
    assert isinstance(found, bytes)
    return found


@pytest.fixture
def server(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


def test_our_message_has_the_keys_of_celerys(real_on_redis: Real, server: redis.Redis) -> None:
    real_on_redis(("send", {"task": "peer.add", "args": "(2, 3)", "kwargs": "{'z': 1}", "options": {}}))
    theirs = json.loads(listed(server, "celery"))
    message = TaskMessage(
        task="peer.add", id=theirs["headers"]["id"], args=(2, 3), kwargs={"z": 1}, ignore_result=False
    )

    ours = json.loads(virtual.encode(seal(*compose(message), CODECS), "", "celery"))

    assert ours.keys() == theirs.keys()
    assert ours["properties"].keys() == theirs["properties"].keys()
    for key in ("origin", "reply_to", "delivery_tag"):
        for document in (ours, theirs):
            document["headers"].pop(key, None)
            document["properties"].pop(key, None)
    assert ours["headers"] == theirs["headers"]
    assert ours["properties"] == theirs["properties"]
    assert json.loads(unb64(ours["body"])) == json.loads(unb64(theirs["body"]))


def test_we_read_the_messages_of_a_real_client(real_on_redis: Real, server: redis.Redis) -> None:
    forms = [(serializer, name) for serializer in VALUES for name in (None, "zlib", "bzip2", "xz", "zstd")]
    common = {"time_limit": 9, "priority": 5, "expires": 60, "headers": {"mine": 1}}

    answers = real_on_redis(
        *(
            (
                "send",
                {
                    "task": "peer.add",
                    "args": "(2, 'é')",
                    "kwargs": "{'k': [None]}",
                    "options": {**common, "serializer": serializer, "compression": name},
                },
            )
            for serializer, name in forms
        )
    )

    assert answers == [True] * len(forms)
    for serializer, name in reversed(forms):
        envelope, exchange, _ = virtual.decode(listed(server, "celery\x06\x163"))
        headers = unpack_headers(envelope)
        call = unpack_call(
            envelope.body,
            envelope.content_type,
            envelope.content_encoding,
            headers.compression,
            CODECS,
            CODECS.accept_set([serializer]),
            10_000,
        )
        assert (list(call.args), call.kwargs, call.chain) == ([2, "é"], {"k": [None]}, None)
        assert (exchange, headers.task, headers.timelimit) == ("", "peer.add", (9, None))
        assert (headers.compression is None) == (name is None)
        assert envelope.headers["mine"] == 1
        assert envelope.properties.expiration == "60000"
        assert envelope.properties.correlation_id == headers.id


def test_we_read_protocol_1_of_a_real_client(
    each_celery_python: Path, redis_url: str, server: redis.Redis
) -> None:
    program = (
        "from celery import Celery, signature;"
        f"app = Celery('old', broker={redis_url!r}, task_protocol=1);"
        "app.send_task('t', (1, 2), {'a': 3}, countdown=10, link=[signature('next')], headers={'mine': 1})"
    )
    subprocess.run([each_celery_python, "-W", "ignore", "-c", program], check=True)

    envelope = virtual.decode(listed(server, "celery"))[0]
    new = upgrade(envelope, CODECS, CODECS.accept_set(["json"]))

    headers = unpack_headers(new)
    call = unpack_call(new.body, new.content_type, new.content_encoding, None, CODECS, ALL, 10_000)
    assert (headers.task, call.args, call.kwargs) == ("t", [1, 2], {"a": 3})
    assert headers.eta is not None
    assert call.callbacks is not None
    assert call.callbacks[0]["task"] == "next"


@pytest.fixture
def worker(celery_python: Path, redis_url: str, tmp_path: Path) -> Iterator[None]:
    """A real worker on the same Redis; it ends with the test."""
    log = tmp_path / "worker.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [celery_python, "-W", "ignore", "-m", "celery", "-A", "peer", "worker", "-P", "solo",
             "-l", "INFO", "--without-gossip", "--without-mingle", "--without-heartbeat"],
            cwd=HERE,
            env={
                "PATH": os.environ["PATH"],
                "PEER_REDIS_URL": redis_url,
                "PEER_EXTENDED": "1",
                "C_FORCE_ROOT": "1",  # the worker accepts pickle, and tests in containers run as root
            },
            stdout=output,
            stderr=output,
        )  # fmt: skip
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        print(log.read_text())


def ran(server: redis.Redis, message: TaskMessage, envelopes: list[bytes]) -> Outcome:
    """Put envelopes into the queue and return the outcome that the real worker publishes for the message."""
    channel = f"celery-task-meta-{message.id}"
    deadline = time.monotonic() + 60
    with server.pubsub() as pubsub:  # type: ignore[no-untyped-call]  # the client has no types here
        pubsub.subscribe(channel)
        assert pubsub.get_message(timeout=5) is not None
        server.lpush("celery", *envelopes)
        while time.monotonic() < deadline:
            found = pubsub.get_message(ignore_subscribe_messages=True, timeout=5)
            if found is not None:
                outcome = unpack(found["data"], CODECS, CODECS.accept_set(["json"]))
                if outcome.state in ("SUCCESS", "FAILURE"):
                    return outcome
    raise AssertionError("the real worker has not stored a result")


@pytest.mark.usefixtures("worker")
def test_a_real_worker_runs_our_messages(server: redis.Redis) -> None:
    def envelope(message: TaskMessage, serializer: str = "json", compression: str | None = None) -> bytes:
        return virtual.encode(seal(*compose(message), CODECS, serializer, compression), "", "celery")

    value = [datetime.date(2030, 1, 2), {"x": b"\xff"}]
    message = TaskMessage(
        task="peer.echo", id="m-1", args=value, kwargs={"k": Decimal("1.5")}, retries=2, priority=4,
        timelimit=(100, 50.5), group="g", group_index=3, parent_id="p", origin="gen1@us", reply_to="oid",
        stamped_headers=["s"], stamps={"s": ["v"]}, headers={"when": datetime.date(2031, 1, 1).isoformat()},
    )  # fmt: skip

    outcome = ran(server, message, [envelope(message)])

    assert outcome.state == "SUCCESS"
    assert outcome.result == {
        "call": repr((tuple(value), {"k": Decimal("1.5")})), "id": "m-1", "root_id": "m-1", "parent_id": "p",
        "group": "g", "group_index": 3, "retries": 2, "timelimit": [100, 50.5], "origin": "gen1@us",
        "reply_to": "oid", "correlation_id": "m-1", "priority": 4, "headers": {"when": "2031-01-01"},
        "stamps": {"s": ["v"]}, "argsrepr": repr(value),
    }  # fmt: skip
    assert (outcome.group_id, outcome.parent_id) == ("g", "p")
    assert outcome.extended is not None
    assert outcome.extended["name"] == "peer.echo"

    for serializer in ("yaml", "msgpack", "pickle"):
        for compression in (None, "zlib", "bzip2", "xz", "brotli", "zstd"):
            plain = TaskMessage(task="peer.add", id=f"{serializer}-{compression}", args=("é", "ü"))
            assert ran(server, plain, [envelope(plain, serializer, compression)]).result == "éü"

    failing = TaskMessage(task="peer.fail", id="m-2", args=["why", {"a": 1}])
    error = ran(server, failing, [envelope(failing)])
    assert (error.state, type(error.result).__name__, error.result.args) == (
        "FAILURE", "CustomError", ("why", {"a": 1}),
    )  # fmt: skip
    assert error.traceback is not None
    assert error.traceback.startswith("Traceback")

    chained = TaskMessage(
        task="peer.add", id="m-3", args=[1, 2],
        chain=[{"task": "peer.add", "args": [10], "kwargs": {}, "options": {"task_id": "m-4"},
                "subtask_type": None, "immutable": False}],
    )  # fmt: skip
    last = TaskMessage(task="peer.add", id="m-4")
    assert ran(server, last, [envelope(chained)]).result == 13

    old = TaskMessage(task="peer.add", id="m-5", args=[3, 4])
    assert ran(server, old, [virtual.encode(seal(*compose_v1(old), CODECS), "", "celery")]).result == 7
