"""What is owed for results that are odd: hostile, corrupt, or full of strange text."""

from __future__ import annotations

import math
import uuid
from typing import Any

import msgspec
import pytest

from celeriac import states
from celeriac.errors import DecodeError, SecurityError
from celeriac.message import Outcome
from celeriac.ports import ResultBackend
from celeriac.testing.conformance.backend_fixtures import BackendFixtures
from celeriac.testing.conformance.messages import PATIENCE_SECONDS
from celeriac.testing.conformance.outcomes import failure, store, success

GARBAGE = b'{"status": "SUCCESS", "result": \xff\xfe'
TEXTS = {
    "nul": "a\x00b",
    "lone surrogate": "\ud800 alone",
    "escape": "\x1b[31m",
    "unicode": "grüß 🌱",
    "odd ends of lines": "\x7f\x85\u2028",
    "large": "x" * 2_000_000,
}
NOT_EXCEPTIONS = [
    ("os", "system"),
    ("subprocess", "Popen"),
    ("builtins", "eval"),
    ("builtins", "object"),
    ("celeriac.errors", "datetime.datetime"),
]


class OddResultTests(BackendFixtures):
    """What is owed for results that are odd."""

    @pytest.mark.parametrize("name", TEXTS)
    def test_failures_may_say_anything(self, client: ResultBackend, worker: ResultBackend, name: str) -> None:
        text = TEXTS[name][:100_000] if self.small else TEXTS[name]
        outcome = failure(ValueError(text), traceback=f"Traceback\nValueError: {text}\n")

        store(client, worker, outcome)

        [got] = client.wait([outcome.id], PATIENCE_SECONDS)
        [said] = got.result.args
        assert got.state == states.FAILURE
        assert said == text or (name == "large" and said.startswith(text[:1000]) and len(said) < len(text))
        assert got.traceback is not None
        assert got.traceback.startswith("Traceback\nValueError: ")

    def test_numbers_that_json_has_not_come_back(self, client: ResultBackend, worker: ResultBackend) -> None:
        outcome = success([math.nan, math.inf, -math.inf, 2**80])

        store(client, worker, outcome)

        [got] = client.wait([outcome.id], PATIENCE_SECONDS)
        assert math.isnan(got.result[0])
        assert got.result[1:] == [math.inf, -math.inf, 2**80]

    def test_ids_may_be_long_and_strange(self, client: ResultBackend, worker: ResultBackend) -> None:
        ids = [f"{uuid.uuid4()}-{'x' * 119}", f"a b/../ü{uuid.uuid4()}", f"{uuid.uuid4()}*?[]%:\n\\"]

        store(client, worker, *(success(n, id=task_id) for n, task_id in enumerate(ids)))

        got = {outcome.id: outcome.result for outcome in client.wait(ids, PATIENCE_SECONDS)}
        assert got == {task_id: n for n, task_id in enumerate(ids)}

    @pytest.mark.parametrize(("module", "name"), NOT_EXCEPTIONS)
    def test_names_of_what_is_no_exception_are_refused(
        self, client: ResultBackend, worker: ResultBackend, module: str, name: str
    ) -> None:
        hostile: Any = {"exc_type": name, "exc_module": module, "exc_message": ["true"]}
        outcome = Outcome(id=str(uuid.uuid4()), state=states.FAILURE, result=hostile)

        store(client, worker, outcome)

        [got] = client.wait([outcome.id], PATIENCE_SECONDS)
        assert got.state == states.FAILURE
        assert type(got.result) is SecurityError or not hasattr(got.result, "pid")
        assert isinstance(got.result, Exception)

    @pytest.mark.parametrize("name", ["SystemExit", "KeyboardInterrupt", "GeneratorExit"])
    def test_a_result_cannot_end_who_reads_it(
        self, client: ResultBackend, worker: ResultBackend, name: str
    ) -> None:
        hostile: Any = {"exc_type": name, "exc_module": "builtins", "exc_message": ["3"]}
        outcome = Outcome(id=str(uuid.uuid4()), state=states.FAILURE, result=hostile)

        store(client, worker, outcome)

        [got] = client.wait([outcome.id], PATIENCE_SECONDS)
        assert isinstance(got.result, Exception)
        assert (type(got.result).__name__, got.result.args) == (name, ("3",))

    def test_a_result_that_cannot_be_read_is_a_failure_that_names_it(
        self, client: ResultBackend, worker: ResultBackend
    ) -> None:
        broken, good = success(1), success(2)
        reply_to = client.reply_address()
        records = [worker.encode(o, reply_to=reply_to, correlation_id=o.id) for o in (broken, good)]
        records[0] = self.spoilt(records[0])

        worker.store(records)

        got = {outcome.id: outcome for outcome in client.wait([broken.id, good.id], PATIENCE_SECONDS)}
        assert (got[good.id].state, got[good.id].result) == (states.SUCCESS, 2)
        assert got[broken.id].state == states.FAILURE
        assert isinstance(got[broken.id].result, DecodeError)
        assert broken.id in str(got[broken.id].result)

    @staticmethod
    def spoilt(record: Any) -> Any:  # Any: a Record
        """Return a record whose payload nobody can read; override it where payloads are no documents."""
        return msgspec.structs.replace(record, payload=GARBAGE)
