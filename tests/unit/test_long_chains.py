"""Long chains: a worker decodes the next step, and the others only when somebody looks at them."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from celeriac.app import Celeriac
from celeriac.canvas import chain
from celeriac.codecs import Codec, Codecs
from celeriac.errors import DecodeError, InvalidTaskError
from celeriac.execute.executor import Executor
from celeriac.message import Call, Finished
from celeriac.steps import Steps
from celeriac.wire.task import TaskMessage, compose, compose_v1, seal, unpack_call
from job_factory import deliveries, job_of, memory_app

LENGTH = 50
STEPS: list[dict[str, Any]] = [
    {"task": "t", "args": [number], "kwargs": {}, "options": {"task_id": f"id-{number}", "shadow": '"\\'}}
    for number in range(LENGTH)
]
CALL = [[1], {"k": 2}, {"callbacks": [{"task": "c"}], "errbacks": None, "chain": STEPS, "chord": None}]


def opened(body: bytes, codecs: Codecs | None = None) -> Call:
    accept = frozenset(["application/json"])
    return unpack_call(body, "application/json", "utf-8", None, codecs or Codecs(), accept, 1 << 20)


def with_last(step: Any) -> bytes:
    """Return a body whose last step, which comes first in the list, is another one."""
    text = json.dumps([[], {}, {"chain": [step, *STEPS]}], ensure_ascii=False)
    return text.encode("utf-8", "surrogatepass")


def as_it_is(value: Any) -> Any:
    return value


def steps(count: int = LENGTH) -> Steps:
    return Steps(json.dumps(STEPS[:count]).encode(), count, json.loads)


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_of_a_long_chain_the_next_step_is_decoded(separators: tuple[str, str]) -> None:
    call = opened(json.dumps(CALL, separators=separators).encode())

    assert (call.args, call.kwargs, call.callbacks, call.errbacks) == ([1], {"k": 2}, [{"task": "c"}], None)
    assert call.chain is None
    assert call.remainder is not None
    assert call.remainder.following == STEPS[-1]
    assert len(call.remainder.rest) == LENGTH - 1
    assert call.remainder.decoded() == STEPS


@pytest.mark.parametrize(
    "last",
    [
        {"task": "t", "args": [{"__type__": "date", "__value__": "2026-07-01"}]},
        {"task": "t", "args": ["é"]},
        {"task": "t", "args": [float("nan")]},
        {"task": "t", "args": ["\ud800"]},
    ],
    ids=["of another type", "not ASCII", "no number", "half a character"],
)
def test_steps_whose_bytes_are_not_what_is_written_for_them_are_decoded(last: dict[str, Any]) -> None:
    body = with_last(last).replace(b"\xed\xa0\x80", rb"\ud800")

    call = opened(body)

    assert call.remainder is None
    assert call.chain is not None
    assert repr(call.chain) == repr(Codecs().decode(body, "application/json", "utf-8")[2]["chain"])


def test_json_of_somebodys_own_is_decoded_by_that() -> None:
    codecs = Codecs()
    codecs.add(
        Codec(
            name="mine",
            content_type="application/json",
            content_encoding="utf-8",
            encode=as_it_is,
            decode=lambda data: [[], {}, {"chain": [{"task": "found"}]}],
        )
    )

    assert opened(with_last(STEPS[0]), codecs).chain == [{"task": "found"}]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (with_last(7), InvalidTaskError),
        (with_last({"args": []}), InvalidTaskError),
        (json.dumps([[], {}, {"chain": [*STEPS, {"args": []}]}]).encode(), InvalidTaskError),
        (json.dumps([7, {}, {"chain": STEPS}]).encode(), InvalidTaskError),
        (with_last({"task": "t", "args": ["\x00"]}).replace(rb"\u0000", rb"\x"), DecodeError),
        (with_last({"task": "t", "args": ["~~"]}).replace(b"~~", b"\xff"), DecodeError),
        (with_last({"task": "t", "args": [{"__type__": "nobody's", "__value__": 1}]}), DecodeError),
    ],
)
def test_what_is_wrong_with_the_last_step_is_found_before_the_first_one_runs(
    body: bytes, error: type[Exception]
) -> None:
    with pytest.raises(error):
        opened(body)


@pytest.mark.parametrize("compose_it", [compose, compose_v1])
@pytest.mark.parametrize("serializer", ["json", "pickle", "yaml", "msgpack"])
def test_steps_travel_in_every_serializer_and_protocol(
    serializer: str, compose_it: Callable[[TaskMessage], Any]
) -> None:
    pytest.importorskip({"json": "json", "pickle": "pickle"}.get(serializer, serializer))
    codecs = Codecs()

    def body(chain: Any) -> Any:
        message = TaskMessage(task="t", id="1", args=(1,), chain=chain, chord={"task": "body"})
        headers, made, props = compose_it(message)
        sealed = seal(headers, made, props, codecs, serializer)
        accept = codecs.accept_set([serializer])
        return codecs.decode(sealed.body, sealed.content_type, sealed.content_encoding, accept)

    assert body(steps()) == body(STEPS)


def test_a_hook_may_add_to_a_message_with_steps() -> None:
    headers, body, props = compose(TaskMessage(task="t", id="1", chain=steps(2)))
    body[2].update({"mine": [1], 'a "key"': None})

    sealed = seal(headers, body, props, Codecs())

    nothing = {"callbacks": None, "errbacks": None, "chord": None}
    assert json.loads(sealed.body) == [[], {}, {**nothing, "chain": STEPS[:2], "mine": [1], 'a "key"': None}]


def test_copies_of_steps_are_lists() -> None:
    for copied in (copy.deepcopy(steps()), pickle.loads(pickle.dumps(steps())), steps().__json__()):
        assert copied == STEPS
    assert repr(steps()) == "<50 steps>"


# --- in a worker ----------------------------------------------------------------------------------------


class Site:
    """Tasks, and the place where they run one by one."""

    def __init__(self) -> None:
        self.app: Celeriac = memory_app(task_ignore_result=False)
        assert self.app.backend is not None
        self._store = self.app.backend
        self.asked: list[Any] = []
        asked = self.asked

        @self.app.task(bind=True)
        def ask(self: Any, number: int, how: str = "") -> int:
            if how == "look":
                asked.append(self.request.chain)
            elif how == "cut":
                self.request.chain = self.request.chain[-1:]
            elif how == "end":
                self.request.chain = None
            elif how == "retry" and not self.request.retries:
                raise self.retry(countdown=0)
            elif how == "replace":
                self.replace(ask.s(number))
            elif how == "fail":
                raise KeyError(number)
            return number + 1

        self.ask = ask
        self._executor = Executor(self.app, "w1@host")

    def send(self, how: str) -> Any:
        """Send a long chain whose first task does something, and return the result to come."""
        return chain(self.ask.s(0, how), *(self.ask.s() for _ in range(LENGTH - 1))).apply_async()

    def run(self) -> list[Finished]:
        """Run whatever comes; return the reports, with what was to be stored stored."""
        reports = []
        while waiting := deliveries(self.app):
            for delivery in waiting:
                reports.append(self._executor.run(job_of(delivery), None))
                record = reports[-1].record
                if record is not None:
                    self._store.store([record])
        return reports


@pytest.mark.parametrize(
    ("how", "runs", "value"),
    [
        ("", LENGTH, LENGTH),
        ("look", LENGTH, LENGTH),
        ("retry", LENGTH + 1, LENGTH),
        ("replace", LENGTH + 1, LENGTH),
        ("cut", 2, None),
        ("end", 1, None),
    ],
)
def test_a_long_chain_ends_whatever_its_first_task_does_with_it(
    how: str, runs: int, value: int | None
) -> None:
    site = Site()
    result = site.send(how)

    reports = site.run()

    assert len(reports) == runs
    assert result.result == value


def test_who_looks_at_the_chain_sees_a_list_of_the_steps_to_come() -> None:
    site = Site()
    result = site.send("look")

    site.run()

    ((*_, following),) = site.asked
    (seen,) = site.asked
    assert type(seen) is list
    assert [step["options"]["task_id"] for step in seen] == [
        one.id for one in [result, *_parents(result)][: LENGTH - 1]
    ]
    assert following["task"] == site.ask.name


def test_all_steps_of_a_long_chain_fail_with_its_first_one() -> None:
    site = Site()
    result = site.send("fail")

    site.run()

    assert [repr(one.result) for one in [result, *_parents(result)]] == ["KeyError(0)"] * LENGTH


def test_hooks_see_lists() -> None:
    site = Site()
    seen: list[Any] = []

    def note(body: Any, **_: Any) -> None:
        seen.append(body[2]["chain"])

    site.send("")
    site.app.hooks.before_task_publish.connect(note, weak=False)
    site.run()

    assert [type(chain) for chain in seen] == [list] * (LENGTH - 1)
    assert len(seen[0]) == LENGTH - 2


def test_a_header_named_chain_is_no_chain() -> None:
    site = Site()
    chain(site.ask.s(0), *(site.ask.s() for _ in range(LENGTH - 1))).apply_async(headers={"chain": []})

    assert len(site.run()) == LENGTH


def test_a_request_of_its_own_has_no_chain() -> None:
    site = Site()

    assert site.ask.request.chain is None


def _parents(result: Any) -> list[Any]:
    parents = []
    while (result := result.parent) is not None:
        parents.append(result)
    return parents
