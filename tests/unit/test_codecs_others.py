"""Pickle, YAML and MessagePack."""

from __future__ import annotations

import datetime
import pickle
import pickletools
import subprocess
import sys
from typing import Any

import pytest

from celeriac import errors
from celeriac.codecs import Codecs
from celeriac.codecs.foreign import NAMES
from celeriac.errors import ConfigError, ContentRefused, DecodeError, EncodeError

CALL = ([1, "é", None, 2.5], {"a": {"b": [True]}}, {"callbacks": None})


def again(value: Any, serializer: str) -> Any:
    codecs = Codecs()
    content_type, encoding, data = codecs.encode(value, serializer)
    return codecs.decode(data, content_type, encoding, codecs.accept_set([serializer]))


class Signature(dict[str, Any]):
    """A dict of a class of its own, as signatures are."""


Signature.__module__ = "celeriac.canvas.signature"


@pytest.mark.parametrize(
    ("serializer", "announced"),
    [
        ("pickle", ("application/x-python-serialize", "binary")),
        ("yaml", ("application/x-yaml", "utf-8")),
        ("msgpack", ("application/x-msgpack", "binary")),
    ],
)
def test_a_body_survives_every_serializer(serializer: str, announced: tuple[str, str]) -> None:
    assert Codecs().encode(CALL, serializer)[:2] == announced

    args, kwargs, embed = again(CALL, serializer)
    assert (list(args), kwargs, embed) == CALL


def test_pickle_keeps_tuples_and_objects() -> None:
    value = ((1, 2), {3}, datetime.date(2030, 1, 2))

    assert again(value, "pickle") == value


@pytest.mark.parametrize("serializer", ["pickle", "yaml", "msgpack", "json"])
def test_signatures_travel_as_dicts(serializer: str) -> None:
    inner = Signature(task="b", args=(1,))

    back = again([Signature(task="a", args=(inner,))], serializer)

    assert back[0]["task"] == "a"
    assert dict(back[0]["args"][0])["task"] == "b"


def test_bytes_and_text_are_told_apart_by_msgpack() -> None:
    assert again([b"\xff", "x", {1: 2}], "msgpack") == [b"\xff", "x", {1: 2}]


@pytest.mark.parametrize("serializer", ["yaml", "msgpack", "pickle"])
def test_values_without_a_form_are_refused(serializer: str) -> None:
    with pytest.raises(EncodeError):
        Codecs().encode([lambda: 1], serializer)


@pytest.mark.parametrize(
    ("serializer", "data"),
    [
        ("yaml", b"a: [b"),
        ("yaml", b"!!python/object/apply:os.getcwd []"),
        ("msgpack", b"\xc1"),
        ("msgpack", b"\x92\x01"),
        ("pickle", b"\x80\x05."),
        ("pickle", b"cposix\nno_such_name\n."),
        ("pickle", b"c__main__\nnowhere\n."),
    ],
)
def test_broken_bytes_are_a_decode_error(serializer: str, data: bytes) -> None:
    codecs = Codecs()
    content_type = codecs.content_type(serializer)

    with pytest.raises(DecodeError):
        codecs.decode(data, content_type, None, frozenset([content_type]))


def test_pickle_is_never_read_unless_it_is_accepted_by_name() -> None:
    codecs = Codecs()
    content_type, encoding, data = codecs.encode([1], "pickle")

    with pytest.raises(ContentRefused, match="disabled content of type pickle"):
        codecs.decode(data, content_type, encoding)
    with pytest.raises(ContentRefused, match="untrusted content of type pickle"):
        codecs.decode(data, content_type, encoding, codecs.accept_set(["json", "yaml", "msgpack"]))


@pytest.mark.parametrize("cls", list(NAMES))
def test_our_errors_are_pickled_under_the_names_that_peers_have(cls: type[BaseException]) -> None:
    codecs = Codecs()

    data = codecs.encode(cls("why"), "pickle")[2]

    texts = {argument for _, argument, _ in pickletools.genops(data) if isinstance(argument, str)}
    assert ":".join(NAMES[cls]) in texts
    assert not any("celeriac" in text for text in texts)
    back = codecs.decode(
        data, "application/x-python-serialize", "binary", frozenset(["application/x-python-serialize"])
    )
    assert type(back) is cls
    assert str(back) == str(cls("why"))


def test_pickles_of_real_celery_are_read_without_celery() -> None:
    def stack_global(module: str, name: str) -> bytes:
        return b"".join(
            [
                b"\x8c",
                bytes([len(module)]),
                module.encode(),
                b"\x8c",
                bytes([len(name)]),
                name.encode(),
                b"\x93",
            ]
        )

    error = b"\x80\x04" + stack_global("celery.exceptions", "ChordError") + b"\x8c\x01x\x85R."
    wrapped = stack_global("celery.utils.serialization", "UnpickleableExceptionWrapper")
    wrapper = b"\x80\x04" + wrapped + b"(\x8c\x01m\x8c\x01E\x8c\x01a\x85\x8c\x04texttR."
    signature = b"\x80\x04" + stack_global("celery.canvas", "signature") + b"}\x8c\x04task\x8c\x01as\x85R."
    program = (
        "from celeriac.codecs import Codecs; c = Codecs(); t = c.content_type('pickle');"
        f"print([c.decode(d, t, None, frozenset([t])) for d in {[error, wrapper, signature]!r}])"
    )

    shown = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONPATH": "src"}, capture_output=True, text=True, check=True
    ).stdout

    assert shown.strip() == "[ChordError('x'), UnpickleableError('m', 'E', ('a',), 'text'), {'task': 'a'}]"


def test_a_subclass_of_ours_keeps_its_own_name() -> None:
    error = again(LocalError("x"), "pickle")

    assert type(error) is LocalError
    assert pickle.loads(pickle.dumps(error)).args == ("x",)


class LocalError(errors.TaskError):
    pass


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    from celeriac.codecs import msgpacked

    msgpacked._msgpack.cache_clear()
    monkeypatch.setitem(sys.modules, "msgpack", None)

    with pytest.raises(ConfigError, match=r"pip install celeriac\[msgpack\]"):
        Codecs().encode([1], "msgpack")
    with pytest.raises(DecodeError, match=r"pip install celeriac\[msgpack\]"):
        Codecs().decode(b"\x90", "application/x-msgpack", "binary")
    msgpacked._msgpack.cache_clear()
