"""What a result backend of another package calls passing is tried again, as real Celery does it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from celeriac.errors import BackendError, BackendUnreachable
from celery import Celery
from celery.backends.base import Backend
from celery.exceptions import BackendGetMetaError, BackendStoreError


class Away(Exception):
    """Passes."""


class Broken(Exception):
    """Does not."""


class Flaky(Backend):
    """Fails as it is told to, one call after the other."""

    failures: Iterator[Exception] = iter(())
    calls = 0
    told = 0

    def _fail(self) -> None:
        self.calls += 1
        if (failure := next(self.failures, None)) is not None:
            raise failure

    def exception_safe_to_retry(self, exc: BaseException) -> bool:
        return isinstance(exc, Away)

    def on_backend_retryable_error(self, exc: BaseException) -> None:
        self.told += 1

    def _get_task_meta_for(self, task_id: str) -> dict[str, Any]:
        self._fail()
        return {"status": "SUCCESS", "result": 7}

    def _store_result(self, task_id: str, result: Any, state: str, *args: Any, **kwargs: Any) -> Any:
        self._fail()
        return result


@pytest.fixture
def app() -> Iterator[Celery]:
    app = Celery("proj", broker="memory://", backend=f"{__name__}:Flaky", set_as_current=False)
    app.conf.update(
        result_backend_always_retry=True,
        result_backend_max_retries=3,
        result_backend_max_sleep_between_retries_ms=0,
    )
    with app:
        yield app


def flaky(app: Celery, *failures: Exception) -> Flaky:
    inner: Flaky = app.backend.inner  # type: ignore[union-attr]
    inner.failures = iter(failures)
    return inner


def test_what_passes_is_tried_again(app: Celery) -> None:
    inner = flaky(app, *[Away()] * 3)
    assert app.AsyncResult("a").result == 7
    assert (inner.calls, inner.told) == (4, 3)

    flaky(app, *[Away()] * 3)
    assert inner.store_result("a", 7, "SUCCESS") == 7

    flaky(app, *[Away()] * 3)
    assert app.AsyncResult("b").get(timeout=10) == 7


def test_after_the_last_try_the_error_tells_the_task(app: Celery) -> None:
    inner = flaky(app, *[Away()] * 8)

    with pytest.raises(BackendGetMetaError, match="failed to get meta") as reading:
        app.AsyncResult("a").ready()
    with pytest.raises(BackendStoreError, match="failed to store result on the backend") as storing:
        inner.store_result("a", 7, "SUCCESS")

    assert inner.calls == 8
    assert (reading.value.task_id, storing.value.task_id, storing.value.state) == ("a", "a", "SUCCESS")
    assert isinstance(reading.value.__cause__, Away)


def test_what_does_not_pass_is_told_at_once(app: Celery) -> None:
    inner = flaky(app, Broken())

    with pytest.raises(BackendError, match="Broken"):
        app.AsyncResult("a").ready()

    assert inner.calls == 1


def test_without_the_setting_nothing_is_tried_again(app: Celery) -> None:
    app.conf.result_backend_always_retry = False
    inner = flaky(app, Away())

    with pytest.raises(BackendUnreachable, match="Away"):
        app.AsyncResult("a").ready()

    assert inner.calls == 1
