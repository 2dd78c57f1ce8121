"""Results as they are stored."""

from __future__ import annotations

import json
import pickle
import sys
from typing import Any

import pytest

from celeriac import errors
from celeriac.codecs import Codecs
from celeriac.codecs.foreign import NAMES
from celeriac.errors import ContentRefused, DecodeError, EncodeError, SecurityError, TaskError
from celeriac.message import Outcome
from celeriac.wire.result import (
    StandIn,
    exception_from_wire,
    exception_to_wire,
    pack,
    pack_group,
    pack_message,
    pack_part,
    prepare_value,
    restore_value,
    unpack,
    unpack_group,
    unpack_part,
)

CODECS = Codecs()
SERIALIZERS = ["json", "yaml", "msgpack", "pickle"]


class Outer:
    class Inner(Exception):
        pass


class Two(Exception):
    def __init__(self, a: str, b: str) -> None:
        super().__init__(a + b)


class Needy(Two):
    def __init__(self, first: str, second: str) -> None:
        super().__init__(first, second)
        self.first = first

    def __str__(self) -> str:
        return self.first


class Unpicklable(Exception):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.hook = lambda: text


def again(outcome: Outcome, serializer: str = "json", compression: str | None = None) -> Outcome:
    return unpack(pack(outcome, CODECS, serializer, compression), CODECS, serializer=serializer)


def test_the_document_has_celerys_fields_in_celerys_order() -> None:
    outcome = Outcome(
        id="1", state="SUCCESS", result=5, children=[], date_done="2026-11-20T23:12:48+00:00",
        group_id="g", parent_id="p", extended={"name": "t", "stamp": "s"},
    )  # fmt: skip

    document = json.loads(pack(outcome, CODECS))

    assert list(document.items()) == [
        ("status", "SUCCESS"),
        ("result", 5),
        ("traceback", None),
        ("children", []),
        ("date_done", "2026-11-20T23:12:48+00:00"),
        ("group_id", "g"),
        ("parent_id", "p"),
        ("name", "t"),
        ("stamp", "s"),
        ("task_id", "1"),
    ]
    assert unpack(pack(outcome, CODECS), CODECS) == outcome


@pytest.mark.parametrize("result", [None, True, 2**70, "é", "\ud800", 1.5, float("inf"), [1], {"a": (1,)}])
def test_every_kind_of_value_is_written_as_pythons_json_writes_it(result: Any) -> None:
    outcome = Outcome(id="1", state="PROGRESS", result=result, group_id="g")

    document = json.loads(pack(outcome, CODECS))

    assert document == json.loads(json.dumps(document | {"result": result}))
    assert list(document) == [
        "status", "result", "traceback", "children", "date_done", "group_id", "task_id",
    ]  # fmt: skip


def test_a_json_serializer_of_the_users_own_writes_results_too() -> None:
    codecs = Codecs()
    codecs.register("json", lambda value: f"own {value['result']}", str, "application/json")

    assert pack(Outcome(id="1", state="SUCCESS", result=5), codecs) == b"own 5"


def test_group_and_parent_are_left_out_when_there_are_none() -> None:
    assert list(json.loads(pack(Outcome(id="1", state="STARTED"), CODECS))) == [
        "status", "result", "traceback", "children", "date_done", "task_id",
    ]  # fmt: skip


def test_a_result_message_has_fewer_fields() -> None:
    content_type, encoding, body = pack_message(
        Outcome(id="1", state="SUCCESS", result=5, children=[]), CODECS
    )

    assert (content_type, encoding) == ("application/json", "utf-8")
    assert json.loads(body) == {
        "task_id": "1", "status": "SUCCESS", "result": 5, "traceback": None, "children": [],
    }  # fmt: skip


@pytest.mark.parametrize("serializer", SERIALIZERS)
@pytest.mark.parametrize("state", ["FAILURE", "RETRY", "REVOKED"])
def test_exceptions_come_back_as_themselves(serializer: str, state: str) -> None:
    back = again(Outcome(id="1", state=state, result=Outer.Inner("boom", 42)), serializer).result

    assert type(back) is Outer.Inner
    assert back.args == ("boom", 42)


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_an_exception_as_the_value_of_a_success_is_no_failure(serializer: str) -> None:
    outcome = Outcome(id="1", state="SUCCESS", result=ValueError("x"))

    if serializer == "pickle":
        assert type(again(outcome, serializer).result) is ValueError
    else:
        with pytest.raises(EncodeError):
            pack(outcome, CODECS, serializer)


def test_exceptions_are_written_with_qualname_arguments_and_module() -> None:
    assert exception_to_wire(Outer.Inner("boom", 42), CODECS) == {
        "exc_type": "Outer.Inner",
        "exc_message": ["boom", 42],
        "exc_module": __name__,
    }


def test_arguments_without_a_form_become_their_repr() -> None:
    assert exception_to_wire(KeyError({1, 2}, 3), CODECS)["exc_message"] == ["{1, 2}", 3]


@pytest.mark.parametrize("cls", list(NAMES))
def test_our_errors_go_under_celerys_names_and_come_back_as_ours(cls: type[BaseException]) -> None:
    wire = exception_to_wire(cls("why"), CODECS)

    assert (wire["exc_module"], wire["exc_type"]) == NAMES[cls]
    assert type(exception_from_wire(json.loads(json.dumps(wire)))) is cls


def test_errors_of_the_broker_are_what_peers_know_as_operational_errors() -> None:
    wire = exception_to_wire(errors.BrokerUnreachable("gone"), CODECS)

    assert (wire["exc_module"], wire["exc_type"]) == ("kombu.exceptions", "OperationalError")


@pytest.mark.parametrize(
    ("value", "args"),
    [
        ({"exc_type": "ValueError", "exc_module": "builtins", "exc_message": ["a", 1]}, ("a", 1)),
        ({"exc_type": "ValueError", "exc_module": "builtins", "exc_message": "plain"}, ("plain",)),
        ({"exc_type": "ValueError", "exc_module": "builtins", "exc_message": []}, ()),
        ({"exc_type": "ValueError", "exc_module": "builtins"}, ("",)),
    ],
)
def test_messages_are_arguments_or_the_one_argument(value: dict[str, Any], args: tuple[Any, ...]) -> None:
    error = exception_from_wire(value)

    assert type(error) is ValueError
    assert error.args == args


@pytest.mark.parametrize("module", ["not.loaded", __name__, None, "", 5])
def test_a_class_that_is_not_here_is_stood_in_for(module: Any) -> None:
    value = {"exc_type": "Gone", "exc_module": module, "exc_message": ["a", {"b": 1}]}

    error = exception_from_wire(value)

    assert isinstance(error, StandIn)
    assert type(error).__name__ == "Gone"
    assert error.args == ("a", {"b": 1})
    assert type(exception_from_wire(value)) is type(error)
    assert pickle.loads(pickle.dumps(error)).args == error.args


def test_a_stand_in_goes_on_under_its_own_name() -> None:
    value = {"exc_type": "Far.Away", "exc_module": "not.loaded", "exc_message": ["a"]}

    assert exception_to_wire(exception_from_wire(value), CODECS) == value


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("posixpath", "os.system"),
        ("posixpath", "os.error"),
        ("builtins", "int"),
        ("builtins", "eval"),
        ("builtins", "object.__subclasses__"),
        ("builtins", "ValueError.__class__"),
        ("sys", "modules"),
        (__name__, "Outer"),
        (__name__, "errors.TaskError"),
    ],
)
def test_names_of_anything_else_are_refused(module: str, name: str) -> None:
    value = {"exc_type": name, "exc_module": module, "exc_message": ["id"]}

    try:
        error = exception_from_wire(value)
    except SecurityError as exc:
        assert "Expected an exception class" in str(exc)  # noqa: PT017 - both endings are safe
    else:
        assert isinstance(error, StandIn)


def test_nothing_is_imported_for_a_result() -> None:
    assert "wave" not in sys.modules

    error = exception_from_wire({"exc_type": "Error", "exc_module": "wave", "exc_message": []})

    assert isinstance(error, StandIn)
    assert "wave" not in sys.modules


@pytest.mark.parametrize("name", ["a b", "", "x\0y", "\ud800", "a..b", "<locals>", "f.<locals>.E"])
def test_odd_names_do_no_harm(name: str) -> None:
    error = exception_from_wire({"exc_type": name, "exc_module": "m", "exc_message": ["x"]})

    assert isinstance(error, StandIn)
    repr(error)


def test_an_exception_is_caught_by_its_class_though_its_constructor_wants_something_else() -> None:
    error = exception_from_wire(exception_to_wire(Two("a", "b"), CODECS))

    assert type(error) is Two
    assert str(error) == "ab"


def test_an_exception_that_is_nothing_without_its_constructor_becomes_a_plain_one_that_says_so() -> None:
    error = exception_from_wire(exception_to_wire(Needy("a", "b"), CODECS))

    assert type(error) is Exception
    assert str(error) == f"{Needy}(['ab'])"


def test_large_arguments_of_an_exception_are_cut() -> None:
    wire = exception_to_wire(ValueError("x" * 10_000_000, list(range(100_000)), "kept"), CODECS)

    assert wire["exc_message"][0].endswith("xxx... (10000000 characters)")
    assert wire["exc_message"][1].startswith("[0, 1, 2,")
    assert wire["exc_message"][2] == "kept"
    assert len(json.dumps(wire)) < 40_000


def test_one_hostile_result_does_not_spoil_the_reading_of_others() -> None:
    hostile = {"exc_type": "system", "exc_module": "os", "exc_message": "id"}
    data = json.dumps({"task_id": "1", "status": "FAILURE", "result": hostile}).encode()

    assert isinstance(unpack(data, CODECS).result, SecurityError)


@pytest.mark.parametrize("value", ["text", {"custom": 1}, None, 5])
def test_a_failure_that_is_no_exception_is_still_one_to_the_reader(value: Any) -> None:
    error = restore_value("FAILURE", value)

    assert type(error) is TaskError
    assert error.args == (value,)


def test_unpicklable_exceptions_are_wrapped_and_unwrapped() -> None:
    back = again(Outcome(id="1", state="FAILURE", result=Unpicklable("why")), "pickle").result

    assert type(back).__name__ == "Unpicklable"
    assert back.args == ("why",)


def test_exceptions_that_do_not_unpickle_are_wrapped_too() -> None:
    back = again(Outcome(id="1", state="FAILURE", result=Two("a", "b")), "pickle").result

    assert isinstance(back, StandIn)
    assert back.args == ("ab",)


@pytest.mark.parametrize("compression", ["zlib", "zstd"])
def test_compressed_results_have_the_mark_of_celery_5_7(compression: str) -> None:
    outcome = Outcome(id="1", state="SUCCESS", result="x" * 1000)

    data = pack(outcome, CODECS, compression=compression)

    assert data.startswith(b"\x00celery-compressed\x00application/")
    assert unpack(data, CODECS) == outcome
    with pytest.raises(DecodeError):
        unpack(data, CODECS, max_bytes=100)


def test_a_result_without_an_id_takes_the_one_it_was_asked_for() -> None:
    assert unpack(b'{"status": "SUCCESS", "result": 1}', CODECS, task_id="k") == Outcome(
        id="k", state="SUCCESS", result=1
    )


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{",
        b"{}",
        b'{"status": "SUCCESS"}',
        b'{"task_id": "1"}',
        b'{"task_id": 1, "status": "S"}',
    ],
)
def test_what_is_no_result_is_a_decode_error(data: bytes) -> None:
    with pytest.raises(DecodeError):
        unpack(data, CODECS)


def test_a_serializer_that_is_not_accepted_is_refused() -> None:
    data = pack(Outcome(id="1", state="SUCCESS", result=1), CODECS, "pickle")

    with pytest.raises(ContentRefused):
        unpack(data, CODECS, CODECS.accept_set(["json"]), serializer="pickle")


def test_groups_keep_their_shape() -> None:
    shape = [["g", None], [[["a", None], None], [["b", None], None]]]

    assert json.loads(pack_group(shape, CODECS)) == {"result": shape}
    assert unpack_group(pack_group(shape, CODECS), CODECS) == shape
    with pytest.raises(DecodeError):
        unpack_group(b"[]", CODECS)


def test_chord_parts_are_four_values() -> None:
    assert pack_part(Outcome(id="1", state="SUCCESS", result=3), CODECS) == b'[1,"1","SUCCESS",3]'

    back = unpack_part(pack_part(Outcome(id="1", state="FAILURE", result=ValueError("x")), CODECS), CODECS)

    assert (back.id, back.state, type(back.result)) == ("1", "FAILURE", ValueError)


@pytest.mark.parametrize("data", [b"[]", b"[1, 2, 3, 4]", b"{}", b"x"])
def test_what_is_no_chord_part_is_a_decode_error(data: bytes) -> None:
    with pytest.raises(DecodeError):
        unpack_part(data, CODECS)


def test_prepared_values_of_the_database_are_values_or_dicts() -> None:
    assert prepare_value("SUCCESS", {1, 2}, CODECS) == {1, 2}
    assert prepare_value("FAILURE", ValueError("boom", 42), CODECS) == {
        "exc_type": "ValueError", "exc_message": ["boom", 42], "exc_module": "builtins",
    }  # fmt: skip
    assert restore_value("SUCCESS", {"exc_type": "ValueError"}) == {"exc_type": "ValueError"}
    assert restore_value("REVOKED", None) is None
