"""The cache backends owe what every result backend owes: one memcached, three of them, and memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from celeriac.backends import BackendSpec, connect
from celeriac.codecs import Codecs
from celeriac.errors import ConfigError, EncodeError
from celeriac.message import Outcome
from celeriac.testing.conformance.backends import BackendConformance
from servers import MemcachedServer, free_port


@pytest.fixture(scope="module")
def others() -> Iterator[list[str]]:
    """The addresses of two more servers."""
    with ExitStack() as running:
        servers = [MemcachedServer(), MemcachedServer()]
        for server in servers:
            server.start()
            running.callback(server.stop)
        yield [server.address for server in servers]


class TestOneServer(BackendConformance):
    small = True

    @pytest.fixture
    def backend_url(self, memcached_server: MemcachedServer) -> str:
        return memcached_server.url

    @pytest.fixture
    def unreachable_url(self) -> str:
        return f"cache+memcached://127.0.0.1:{free_port()}/"


class TestThreeServers(BackendConformance):
    small = True

    @pytest.fixture
    def backend_url(self, memcached_server: MemcachedServer, others: list[str]) -> str:
        return f"cache+memcached://{';'.join([memcached_server.address, *others])}/"


class TestCacheInMemory(BackendConformance):
    across_processes = False

    @pytest.fixture
    def backend_url(self) -> str:
        return "cache+memory://"


def test_results_spread_over_all_servers_and_are_found_there(memcached_server: MemcachedServer) -> None:
    second = MemcachedServer()
    second.start()
    url = f"cache+memcached://{memcached_server.address};{second.address}/"
    backend = connect(BackendSpec(url=url, codecs=Codecs()))
    alone = connect(BackendSpec(url=second.url, codecs=Codecs()))
    assert backend is not None
    assert alone is not None
    ids = [f"spread-{number}" for number in range(40)]

    backend.store([backend.encode(Outcome(id=one, state="SUCCESS", result=one)) for one in ids])

    assert len(backend.fetch(ids)) == 40
    assert 5 < len(alone.fetch(ids)) < 35
    backend.close()
    alone.close()
    second.stop()


def test_ids_that_memcached_does_not_allow_are_kept_all_the_same(memcached_server: MemcachedServer) -> None:
    backend = connect(BackendSpec(url=memcached_server.url, codecs=Codecs()))
    assert backend is not None
    ids = ["with space", "ümlaut", "long" * 100, "line\nbreak"]

    backend.store([backend.encode(Outcome(id=one, state="SUCCESS", result=one)) for one in ids])

    assert {one: outcome.result for one, outcome in backend.fetch(ids).items()} == {one: one for one in ids}
    backend.close()


def test_a_result_that_memcached_would_refuse_is_refused_where_the_task_ran(
    memcached_server: MemcachedServer,
) -> None:
    backend = connect(BackendSpec(url=memcached_server.url, codecs=Codecs()))
    assert backend is not None

    with pytest.raises(EncodeError, match="too large for memcached"):
        backend.encode(Outcome(id="large", state="SUCCESS", result="x" * 2_000_000))
    backend.close()


def test_the_bare_name_takes_the_address_of_its_setting(memcached_server: MemcachedServer) -> None:
    setting = f"memcached://{memcached_server.address}/"
    backend = connect(BackendSpec(url="cache", codecs=Codecs(), options={"cache_backend": setting}))
    assert backend is not None

    backend.store([backend.encode(Outcome(id="bare", state="SUCCESS", result=1))])

    assert backend.fetch(["bare"])["bare"].result == 1
    backend.close()


def test_an_unknown_option_is_told() -> None:
    options = {"cache_backend_options": {"timeout": 1.0, "binary": True, "time_out": 1.0}}

    with pytest.raises(ConfigError, match="does not know time_out"):
        connect(BackendSpec(url="cache+memcached://127.0.0.1/", codecs=Codecs(), options=options))
