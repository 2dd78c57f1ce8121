"""A hundred exceptions that are hard to store: whatever a task raises, its caller hears what it was."""

from __future__ import annotations

import asyncio
import contextlib
import decimal
import io
import itertools
import json
import logging
import pickle
import socket
import subprocess
import threading
import urllib.error
import xml.parsers.expat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from celeriac.app import Celeriac
from celeriac.errors import EncodeError
from celeriac.saferepr import saferepr
from celeriac.testing.worker import start_worker

LARGEST_BYTES = 600_000  # of what is kept of one failure


class KeywordOnly(Exception):
    def __init__(self, *, code: int) -> None:
        super().__init__(f"code {code}")


class TwoNeeded(Exception):
    def __init__(self, first: object, second: object) -> None:
        super().__init__("two needed")


class NoSuper(Exception):
    def __init__(self, first: object) -> None:
        self.first = first


class Stateful(Exception):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


class BadStr(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class BadRepr(Exception):
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class BadBoth(BadStr, BadRepr):
    pass


class NoTextStr(Exception):
    def __str__(self) -> str:
        return 5  # type: ignore[return-value]  # noqa: PLE0307 - that is the point


class ExitingStr(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


class BadReduce(Exception):
    def __reduce__(self) -> NoReturn:
        raise TypeError("not to be pickled")


class WrongReduce(Exception):
    def __reduce__(self) -> Any:
        return dict, ()


class BadArgs(Exception):
    @property
    def args(self) -> Any:  # type: ignore[override]
        raise RuntimeError("no args")


class OddArgs(Exception):
    args = "text"  # type: ignore[assignment]


class Everything(Exception):
    def __getattr__(self, name: str) -> Any:
        raise ValueError(f"no {name}")


class Outer:
    class Inner(Exception):
        pass

    class In:
        class Innermost(Exception):
            pass


class Falsy(Exception):
    def __bool__(self) -> bool:
        return False


class Equal(Exception):
    def __eq__(self, other: object) -> NoReturn:
        raise RuntimeError("not to be compared")

    __hash__ = None  # type: ignore[assignment]


class BadNotes(Exception):
    __notes__ = 5  # type: ignore[assignment]


class Slotted(Exception):
    __slots__ = ("extra",)


class Meta(type):
    def __repr__(cls) -> str:
        raise RuntimeError("no repr of the class")


class OfMeta(Exception, metaclass=Meta):
    pass


class Odd:
    """An argument that nothing can serialise."""

    def __repr__(self) -> str:
        return "<odd>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("odd")


class OddRepr(Odd):
    def __repr__(self) -> str:
        raise RuntimeError("odder")


def local() -> Exception:
    class Local(Exception):
        pass

    return Local("local")


def renamed() -> Exception:
    cls = type("Strange name; import os", (Exception,), {"__module__": "no.such.module"})
    return cls("renamed")  # type: ignore[no-any-return]


def unnamed() -> Exception:
    return type("", (Exception,), {})("unnamed")  # type: ignore[no-any-return]


def moduleless() -> Exception:
    return type("Moduleless", (Exception,), {"__module__": None})("moduleless")  # type: ignore[no-any-return]


def caused() -> Exception:
    try:
        try:
            raise KeyError("the root")
        except KeyError as exc:
            raise ValueError("above") from exc
    except ValueError as exc:
        return exc


def in_context() -> Exception:
    try:
        try:
            raise KeyError("the root")
        except KeyError:
            raise ValueError("meanwhile")  # noqa: B904 - that is the point
    except ValueError as exc:
        return exc


def cause_of_itself() -> Exception:
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    return one


def long_chain() -> Exception:
    exc = ValueError("link 0")
    for number in range(1, 400):
        nxt = ValueError(f"link {number}")
        nxt.__cause__ = exc
        exc = nxt
    return exc


def unpicklable_cause() -> Exception:
    exc = ValueError("above")
    exc.__cause__ = Stateful("below")
    return exc


def noted() -> Exception:
    exc = ValueError("noted")
    exc.__notes__ = ["a note"]
    return exc


def self_argument() -> Exception:
    exc = ValueError("itself")
    exc.args = ("itself", exc)
    return exc


def cyclic() -> Exception:
    ring: list[Any] = ["cyclic"]
    ring.append(ring)
    return ValueError(ring)


def deep() -> Exception:
    nested: list[Any] = ["deep"]
    for _ in range(5000):
        nested = [nested]
    return ValueError("deep", nested)


def recursion() -> Exception:
    def down() -> None:
        down()

    try:
        down()
    except RecursionError as exc:
        return exc
    raise AssertionError


def of_a_deep_stack() -> Exception:
    def down(depth: int) -> None:
        if depth:
            return other(depth - 1)
        raise ValueError("at the bottom")

    def other(depth: int) -> None:
        down(depth)

    try:
        down(150)
    except ValueError as exc:
        return exc
    raise AssertionError


def caught(function: Callable[[], Any]) -> Exception:
    try:
        function()
    except Exception as exc:
        return exc
    raise AssertionError


def bound_to_a_generator() -> Exception:
    return StopIteration(number for number in range(3))


NASTY: dict[str, tuple[Callable[[], BaseException], str, str]] = {
    # name: (how to make it, the type's name, what its text says)
    "plain": (lambda: ValueError("boom"), "ValueError", "boom"),
    "no arguments": (ValueError, "ValueError", ""),
    "None": (lambda: ValueError(None), "ValueError", "None"),
    "several": (lambda: ValueError("a", 1, None, 2.5), "ValueError", "2.5"),
    "unicode": (lambda: ValueError("żółw \N{TURTLE} \u202e"), "ValueError", "\N{TURTLE}"),
    "NUL": (lambda: ValueError("nul \0 byte"), "ValueError", "byte"),
    "terminal": (lambda: ValueError("\x1b[31mred"), "ValueError", "red"),
    "bytes": (lambda: ValueError(b"\xff\xfe raw"), "ValueError", "raw"),
    "bytearray": (lambda: ValueError(bytearray(b"raw")), "ValueError", "raw"),
    "memoryview": (lambda: ValueError("view", memoryview(b"raw")), "ValueError", "view"),
    "set": (lambda: ValueError({"in a set"}), "ValueError", "in a set"),
    "tuple": (lambda: ValueError(("in", ("a", "tuple"))), "ValueError", "tuple"),
    "dict": (lambda: ValueError({"key": "of a dict"}), "ValueError", "of a dict"),
    "odd keys": (lambda: ValueError({(1, 2): "odd key"}), "ValueError", "odd key"),
    "NaN": (lambda: ValueError(float("nan")), "ValueError", "nan"),
    "infinite": (lambda: ValueError(float("-inf")), "ValueError", "inf"),
    "huge number": (lambda: ValueError("number", 10**400), "ValueError", "number"),
    "number beyond text": (lambda: ValueError("beyond", 1 << 20_000), "ValueError", "beyond"),
    "decimal": (lambda: ValueError(decimal.Decimal("1.50")), "ValueError", "1.50"),
    "complex": (lambda: ValueError(1 + 2j), "ValueError", "2j"),
    "class": (lambda: ValueError("class", Outer), "ValueError", "class"),
    "function": (lambda: ValueError("function", local), "ValueError", "function"),
    "lambda": (lambda: ValueError("lambda", lambda: 1), "ValueError", "lambda"),
    "module": (lambda: ValueError("module", json), "ValueError", "module"),
    "lock": (lambda: ValueError("lock", threading.Lock()), "ValueError", "lock"),
    "file": (lambda: ValueError("file", io.BytesIO(b"x")), "ValueError", "file"),
    "socket": (lambda: ValueError("socket", _closed_socket()), "ValueError", "socket"),
    "generator": (lambda: ValueError("generator", (n for n in range(3))), "ValueError", "generator"),
    "iterator": (lambda: ValueError("iterator", itertools.count()), "ValueError", "iterator"),
    "logger": (lambda: ValueError("logger", logging.getLogger("x")), "ValueError", "logger"),
    "odd": (lambda: ValueError("argument", Odd()), "ValueError", "argument"),
    "odd without repr": (lambda: ValueError("argument", OddRepr()), "ValueError", "argument"),
    "exception argument": (lambda: ValueError(KeyError("inside")), "ValueError", "inside"),
    "unpicklable argument": (lambda: ValueError(Stateful("inside")), "ValueError", "inside"),
    "itself": (self_argument, "ValueError", "itself"),
    "cyclic": (cyclic, "ValueError", "cyclic"),
    "deep": (deep, "ValueError", "deep"),
    "huge": (lambda: ValueError("x" * 30_000_000), "ValueError", "xxx"),
    "huge bytes": (lambda: ValueError(b"x" * 5_000_000), "ValueError", "xxx"),
    "huge list": (lambda: ValueError("list", list(range(500_000))), "ValueError", "list"),
    "many arguments": (lambda: ValueError("many", *range(100_000)), "ValueError", "many"),
    "many lines": (lambda: ValueError("line\n" * 200_000), "ValueError", "line"),
    "keyword only": (lambda: KeywordOnly(code=5), "KeywordOnly", "code 5"),
    "two needed": (lambda: TwoNeeded(1, 2), "TwoNeeded", "two needed"),
    "no super": (lambda: NoSuper("kept"), "NoSuper", "kept"),
    "stateful": (lambda: Stateful("state"), "Stateful", "state"),
    "bad str": (lambda: BadStr("bad str"), "BadStr", ""),
    "bad repr": (lambda: BadRepr("bad repr"), "BadRepr", "bad repr"),
    "bad both": (lambda: BadBoth("bad"), "BadBoth", ""),
    "str is no text": (lambda: NoTextStr("five"), "NoTextStr", ""),
    "str exits": (lambda: ExitingStr("exits"), "ExitingStr", ""),
    "bad reduce": (lambda: BadReduce("reduced"), "BadReduce", "reduced"),
    "wrong reduce": (lambda: WrongReduce("reduced"), "WrongReduce", "reduced"),
    "bad args": (lambda: BadArgs("hidden"), "BadArgs", ""),
    "odd args": (lambda: OddArgs("hidden"), "OddArgs", ""),
    "bad getattr": (lambda: Everything("no attributes"), "Everything", "no attributes"),
    "inner": (lambda: Outer.Inner("inner"), "Inner", "inner"),
    "innermost": (lambda: Outer.In.Innermost("innermost"), "Innermost", "innermost"),
    "local": (local, "Local", "local"),
    "renamed": (renamed, "", "renamed"),
    "unnamed": (unnamed, "", "unnamed"),
    "moduleless": (moduleless, "Moduleless", "moduleless"),
    "falsy": (lambda: Falsy("falsy"), "Falsy", "falsy"),
    "no equality": (lambda: Equal("equal"), "Equal", "equal"),
    "bad notes": (lambda: BadNotes("notes"), "BadNotes", "notes"),
    "slotted": (lambda: Slotted("slots"), "Slotted", "slots"),
    "metaclass": (lambda: OfMeta("meta"), "OfMeta", "meta"),
    "caused": (caused, "ValueError", "above"),
    "in context": (in_context, "ValueError", "meanwhile"),
    "cause of itself": (cause_of_itself, "ValueError", "one"),
    "long chain": (long_chain, "ValueError", "link 399"),
    "unpicklable cause": (unpicklable_cause, "ValueError", "above"),
    "noted": (noted, "ValueError", "noted"),
    "group": (lambda: ExceptionGroup("group", [ValueError("a"), KeyError("b")]), "ExceptionGroup", "group"),
    "nested group": (
        lambda: ExceptionGroup("outer", [ExceptionGroup("inner", [Stateful("c")])]),
        "ExceptionGroup",
        "outer",
    ),
    "recursion": (recursion, "RecursionError", "recursion"),
    "deep stack": (of_a_deep_stack, "ValueError", "at the bottom"),
    "stop": (lambda: StopIteration("stop"), "StopIteration", "stop"),
    "stop with a generator": (bound_to_a_generator, "StopIteration", "generator"),
    "async stop": (lambda: StopAsyncIteration("stop"), "StopAsyncIteration", "stop"),
    "key": (lambda: KeyError("key"), "KeyError", "key"),
    "index": (lambda: caught(lambda: list[int]()[0]), "IndexError", "index"),
    "attribute": (lambda: caught(lambda: Outer.nothing), "AttributeError", "nothing"),  # type: ignore[attr-defined]
    "name": (lambda: caught(lambda: undefined), "NameError", "undefined"),  # type: ignore[name-defined]  # noqa: F821
    "import": (lambda: caught(lambda: __import__("no.such")), "ModuleNotFoundError", "no"),
    "syntax": (lambda: caught(lambda: compile("a b", "f.py", "exec")), "SyntaxError", "syntax"),
    "os": (lambda: FileNotFoundError(2, "No such file", "/no/such"), "FileNotFoundError", "No such file"),
    "os of one argument": (lambda: OSError("odd one"), "OSError", "odd one"),
    "decoding": (lambda: caught(b"\xff".decode), "UnicodeDecodeError", "codec"),
    "encoding": (lambda: caught("\ud800".encode), "UnicodeEncodeError", "codec"),
    "JSON": (lambda: caught(lambda: json.loads("{")), "JSONDecodeError", "Expecting"),
    "pickle": (lambda: caught(lambda: pickle.dumps(lambda: 1)), "", "lambda"),
    "process": (
        lambda: subprocess.CalledProcessError(3, ["ls", "-l"], b"out", b"err"),
        "CalledProcessError",
        "3",
    ),
    "timeout of a process": (lambda: subprocess.TimeoutExpired("ls", 5), "TimeoutExpired", "5"),
    "HTTP": (lambda: urllib.error.HTTPError("http://x/", 404, "gone", None, None), "HTTPError", "404"),  # type: ignore[arg-type]
    "URL": (lambda: urllib.error.URLError(ConnectionRefusedError(111, "refused")), "URLError", "refused"),
    "address": (lambda: socket.gaierror(-2, "Name or service not known"), "gaierror", "not known"),
    "expat": (lambda: caught(lambda: xml.parsers.expat.ParserCreate().Parse("<", True)), "ExpatError", ""),
    "cancelled by asyncio": (lambda: asyncio.InvalidStateError("state"), "InvalidStateError", "state"),
    "incomplete read": (lambda: asyncio.IncompleteReadError(b"ab", 5), "IncompleteReadError", "2 bytes"),
    "assertion": (lambda: AssertionError("asserted"), "AssertionError", "asserted"),
    "warning": (lambda: DeprecationWarning("old"), "DeprecationWarning", "old"),
    "decimal signal": (lambda: decimal.InvalidOperation([decimal.InvalidOperation]), "InvalidOperation", ""),
}


def _closed_socket() -> socket.socket:
    with contextlib.closing(socket.socket()) as sock:
        return sock


@pytest.fixture(autouse=True)
def log(tmp_path: Path) -> Iterator[None]:
    """Log failures to a file, as a worker does."""
    handler = logging.FileHandler(tmp_path / "worker.log", encoding="utf-8", errors="backslashreplace")
    logger = logging.getLogger("celery.app.trace")
    logger.addHandler(handler)
    logger.propagate = False
    yield
    logger.propagate = True
    logger.removeHandler(handler)
    handler.close()


@pytest.fixture(scope="module", params=["json", "pickle"])
def app(request: pytest.FixtureRequest) -> Iterator[Celeriac]:
    name = f"memory://nasty-{request.param}"
    app = Celeriac("nasty", broker=name, backend=name, result_serializer=request.param)
    app.conf.update(result_accept_content=["json", "pickle"])

    @app.task(name="fail")
    def fail(which: str) -> None:
        error = NASTY[which][0]()
        raise error

    @app.task(name="give")
    def give(what: str) -> Any:
        return {"lock": threading.Lock(), "generator": (n for n in range(3)), "fine": "fine"}[what]

    with start_worker(app, pool="threads"):
        yield app


@pytest.mark.parametrize("which", NASTY)
def test_it_arrives_with_its_name_its_text_and_its_traceback(app: Celeriac, which: str) -> None:
    _, type_name, text = NASTY[which]

    result = app.tasks["fail"].delay(which)
    error = result.get(timeout=30, propagate=False)

    assert result.state == "FAILURE"
    assert isinstance(error, Exception)
    said, traceback = _text(error), result.traceback or ""
    assert (type_name in type(error).__qualname__ + said, text in said) == (True, True), said[:500]
    assert (type_name in traceback, "Traceback" in traceback) == (True, True), traceback[:500]
    assert len(traceback) + len(said) <= LARGEST_BYTES, "it is too large"
    with pytest.raises(type(error)):
        result.get(timeout=30)


@pytest.mark.parametrize("which", ["caused", "in context"])
def test_what_was_before_it_is_in_the_traceback(app: Celeriac, which: str) -> None:
    result = app.tasks["fail"].delay(which)
    result.get(timeout=30, propagate=False)

    assert "KeyError: 'the root'" in (result.traceback or "")


@pytest.mark.parametrize("what", ["lock", "generator"])
def test_a_value_that_cannot_be_stored_is_a_failure_that_names_task_and_type(
    app: Celeriac, what: str
) -> None:
    result = app.tasks["give"].delay(what)

    with pytest.raises(EncodeError, match=f"give.*{what}"):
        result.get(timeout=30)
    assert result.state == "FAILURE"
    assert app.tasks["give"].delay("fine").get(timeout=30) == "fine"


def test_there_are_a_hundred() -> None:
    assert len(NASTY) >= 100


def _text(error: Exception) -> str:
    said = []
    for tell in (str, repr, lambda exc: saferepr(exc.args)):
        with contextlib.suppress(Exception, SystemExit):
            said.append(tell(error))
    return " ".join(said)
