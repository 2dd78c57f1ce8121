"""A worker that hands the rest of a chain on undecoded sends what one sends that decodes it."""

from __future__ import annotations

import datetime
import itertools
import json
import sys
import uuid
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celeriac.app import Celeriac
from celeriac.canvas import chain, chord, group
from celeriac.codecs.registry import JSON, Codecs
from celeriac.execute.executor import Executor
from celeriac.message import Delivery, Envelope
from celeriac.wire import splice
from job_factory import job_of, memory_app

CHAINS = 100
CODECS = Codecs()

# Also what looks like the end of a step, or like a value of a type that JSON has not.
SCALARS: list[Any] = [
    *(None, True, 0, -1, 2**53 + 1, 2**64, -(2**80), 10**300, 0.1, -0.0, 1e16, 1e-7, 1.7e308),
    *(
        "",
        "é",
        "\u2028",
        "😀",
        "\x00",
        '"',
        "\\",
        '"}],"chain":[{"task":',
        "],[",
        "[{}]",
        '"__type__"',
        "\ud800",
    ),
    datetime.datetime(2026, 7, 1, 12, 30, 1, 5),
    uuid.UUID(int=5),
]
OPTIONS: dict[str, list[Any]] = {
    "priority": [0, 9],
    "queue": ["one", "zwölf"],
    "eta": ["2020-01-01T00:00:00+00:00"],
    "headers": [{"x-é": 2**70}, {"chain": "mine"}],
    "serializer": ["pickle"],
    "ignore_result": [True],
    "shadow": ["é"],
    "time_limit": [5, 0.5],
}


class Chance:
    """Chains of any kind.

    Args:
        random: Where the choices come from.
        task: What they call.
    """

    def __init__(self, random: Random, task: Any) -> None:
        self._random = random
        self._task = task

    def steps(self) -> list[Any]:
        """Return some steps."""
        return [self._step() for _ in range(self._random.randint(3, 8))]

    def _step(self) -> Any:
        kind = self._random.choice(["call"] * 12 + ["group", "chord"])
        if kind == "call":
            return self._call()
        members = [self._call() for _ in range(self._random.randint(1, 2))]
        return group(members) if kind == "group" else chord(members, self._call())

    def _call(self, depth: int = 2) -> Any:
        chance = self._random
        options = {name: chance.choice(values) for name, values in OPTIONS.items() if chance.random() < 0.1}
        args = [self._value(2) for _ in range(chance.randint(0, 2))]
        kwargs = {"k\u00e9": self._value(2)} if chance.random() < 0.3 else {}
        made = self._task.signature(args, kwargs, immutable=chance.random() < 0.2, **options)
        if depth and chance.random() < 0.2:
            made.link(self._call(depth - 1))
        if depth and chance.random() < 0.2:
            made.link_error(self._call(depth - 1))
        if chance.random() < 0.2:
            made.stamp(mark="é")
        return made

    def _value(self, depth: int) -> Any:
        kind = self._random.randint(0, 3 if depth else 1)
        if kind < 2:
            return self._random.choice(SCALARS[:-2] if self._random.random() < 0.9 else SCALARS)
        inner = [self._value(depth - 1) for _ in range(self._random.randint(0, 3))]
        return inner if kind == 2 else {f"{place}": value for place, value in enumerate(inner)}


class Sender:
    """Runs the steps of chains as a worker does, and keeps what that sends.

    Args:
        app: The app.
    """

    def __init__(self, app: Celeriac) -> None:
        @app.task(name="take", typing=False)
        def take(*args: Any, **kwargs: Any) -> int:
            return len(args)

        self._app = app
        self._take = take
        self._executor = Executor(app, "w1@host")

    def first(self, chance: Random) -> list[Envelope]:
        """Return the messages that begin a chain."""
        with self._app.client.held() as sent:
            chain(*Chance(chance, self._take).steps()).apply_async()
        return [one.outgoing.envelope for one in sent]

    def after(self, envelope: Envelope, *, spliced: bool) -> list[Envelope]:
        """Return the messages that follow from one."""
        ids = itertools.count()
        with pytest.MonkeyPatch.context() as patch, self._app.client.held() as sent:
            patch.setattr(splice, "LEAST_BYTES", 0 if spliced else sys.maxsize)
            patch.setattr(self._app, "new_id", lambda: f"id-{next(ids)}")
            finished = self._executor.run(job_of(Delivery(envelope=envelope, queue="celery")), None)
        assert finished.kind == "success", finished
        envelopes = [one.outgoing.envelope for one in sent]
        for one in envelopes:
            one.properties.timestamp = None  # a second may begin between the two
        return envelopes


@pytest.fixture(scope="module")
def sender() -> Iterator[Sender]:
    app = memory_app(accept_content=["json", "pickle"])
    yield Sender(app)
    app.close()


@pytest.mark.parametrize("is_ours", [True, False])
def test_what_is_handed_on_undecoded_is_what_decoding_makes_of_it(sender: Sender, is_ours: bool) -> None:
    for seed in range(CHAINS):
        compare(sender, Random(seed), is_ours=is_ours)


# The chance of Hypothesis: fewer chains, but the one that differs is made as small as it can be.
@settings(max_examples=20, derandomize=True)
@given(chance=st.randoms(use_true_random=False))
def test_the_smallest_chain_that_differs_is_found(sender: Sender, chance: Random) -> None:
    compare(sender, chance, is_ours=True)


def compare(sender: Sender, chance: Random, *, is_ours: bool) -> None:
    """Walk along a chain, each step run both ways."""
    sent = sender.first(chance)
    # To the end, or to the first group, whose end is told to the store.
    while sent and sent[-1].headers["group"] is None:
        envelope = sent[-1]
        if not is_ours and envelope.content_type == JSON:
            envelope.body = json.dumps(json.loads(envelope.body)).encode()  # with spaces, as Celery has it
        sent = sender.after(envelope, spliced=True)

        plain = sender.after(envelope, spliced=False)
        assert [(one.headers, one.properties, one.content_type) for one in sent] == [
            (one.headers, one.properties, one.content_type) for one in plain
        ]
        assert [_body(one, exact=is_ours) for one in sent] == [_body(one, exact=is_ours) for one in plain]


def _body(envelope: Envelope, *, exact: bool) -> Any:
    """Return the bytes of a body; where the same values may be other bytes, its values."""
    accept = CODECS.accept_set(["json", "pickle"])
    if exact and envelope.content_type == JSON:
        return envelope.body
    return CODECS.decode(envelope.body, envelope.content_type, envelope.content_encoding, accept)
