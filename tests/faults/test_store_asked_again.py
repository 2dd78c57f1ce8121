"""`result_backend_always_retry`: who asks a result store that is away waits for it, whichever store it is."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from celeriac import patience
from celeriac.app import Celeriac
from celeriac.errors import BackendUnreachable
from celeriac.message import Outcome, Record
from faults.proxy import Proxy
from servers import until

PATIENCE_SECONDS = 30.0
KINDS = ("redis", "postgres", "memcached", "rabbitmq", "filesystem")
ID = "a-task"


@dataclass
class Store:
    """A result store, near for one app and behind something that can break for another one."""

    near: Celeriac
    far: Celeriac
    away: Callable[[], object]
    back: Callable[[], object]

    def record(self, id: str) -> Record:
        """Return a result that the other app reads."""
        assert self.near.backend is not None
        assert self.far.backend is not None
        address = self.far.backend.reply_address()
        outcome = Outcome(id=id, state="SUCCESS", result=7)
        return self.near.backend.encode(outcome, reply_to=address, correlation_id=id)


def _app(broker: str, results: str) -> Celeriac:
    app = Celeriac("proj", broker=broker, backend=results, set_as_current=False)
    app.conf.result_backend_max_sleep_between_retries_ms = 50
    return app


def _said(caplog: pytest.LogCaptureFixture, words: str) -> bool | None:
    return words in caplog.text or None


@pytest.fixture
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    kind = request.param
    if kind == "filesystem":
        folder, aside = tmp_path / "results", tmp_path / "aside"
        folder.mkdir()
        url = f"file://{folder}"
        near, far = _app("memory://", url), _app("memory://", url)
        yield Store(near, far, lambda: folder.rename(aside), lambda: aside.rename(folder))
        near.close()
        far.close()
        return
    server = request.getfixturevalue(f"{kind}_server")
    match kind:
        case "postgres":
            url = server.fresh_url("db+postgresql")
        case "memcached":
            url = server.url
        case _:
            url = server.fresh_url()
    with Proxy(server.port) as proxy:
        through = url.replace(f":{server.port}", f":{proxy.port}")
        assert through != url
        if kind == "rabbitmq":
            near, far = _app(url, "rpc://"), _app(through, "rpc://")
        else:
            near, far = _app("memory://", url), _app("memory://", through)

        def away() -> None:
            proxy.refuse()
            proxy.cut()

        yield Store(near, far, away, proxy.admit)
        near.close()
        far.close()


@pytest.mark.parametrize("store", KINDS, indirect=True)
def test_results_are_stored_and_read_as_soon_as_the_store_is_back(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    # Given a result in a store that goes away
    caplog.set_level(logging.WARNING)
    store.far.conf.result_backend_always_retry = True
    backend: Any = store.far.backend
    store.near.backend.store([store.record(ID)])  # type: ignore[union-attr]
    store.away()

    # When it is read, waited for, and another one is stored
    result = store.far.AsyncResult(ID)
    with ThreadPoolExecutor(3) as threads:
        asked = [
            threads.submit(lambda: result.result),
            threads.submit(lambda: store.far.AsyncResult(ID).get(timeout=PATIENCE_SECONDS)),
            threads.submit(patience.store, store.far, backend, [store.record("b")]),
        ]
        for failing in ("cannot be read", "cannot be stored"):
            until(partial(_said, caplog, failing), PATIENCE_SECONDS, failing)
        assert not any(one.done() for one in asked)
        store.back()

        # Then all of them succeed
        assert [one.result(PATIENCE_SECONDS) for one in asked] == [7, 7, None]
    assert store.far.AsyncResult("b").get(timeout=PATIENCE_SECONDS) == 7


@pytest.mark.parametrize("store", ["redis"], indirect=True)
def test_without_the_setting_who_asks_is_told_at_once(store: Store) -> None:
    record = store.record(ID)
    store.away()

    with pytest.raises(BackendUnreachable):
        store.far.AsyncResult(ID).ready()
    with pytest.raises(BackendUnreachable):
        store.far.backend.store([record])  # type: ignore[union-attr]
    store.back()
