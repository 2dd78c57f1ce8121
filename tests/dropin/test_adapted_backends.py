"""A result backend of another package decides which copy of a chord's body is run, as far as it can."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from celery import Celery
from celery.backends.base import Backend

KEPT: dict[str, dict[str, Any]] = {}


class Plain(Backend):
    """Keeps results in a dict, by Celery's methods."""

    def _get_task_meta_for(self, task_id: str) -> dict[str, Any]:
        return KEPT.get(task_id, {"status": "PENDING", "result": None})

    def _store_result(self, task_id: str, result: Any, state: str, *args: Any, **kwargs: Any) -> Any:
        KEPT[task_id] = {"status": state, "result": result}
        return result


@pytest.fixture
def app() -> Iterator[Celery]:
    KEPT.clear()
    with Celery("proj", broker="memory://", backend=f"{__name__}:Plain", set_as_current=False) as app:
        yield app


def test_of_the_copies_of_a_message_the_first_that_begins_is_run(app: Celery) -> None:
    backend = app.backend
    assert backend is not None

    said = [backend.claim("a", "first"), backend.claim("a", "second"), backend.claim("b", "second")]
    redelivered = [backend.claim("a", "first"), backend.claim("a", "second")]

    assert said == [True, False, True]
    assert redelivered == [True, False]
    assert app.AsyncResult("a").state == "PENDING"
