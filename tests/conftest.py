"""The fixtures of all tests: private servers, started when the first test that was collected needs them."""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import Generator, Iterator
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings

from grouping import Need, groups
from servers import (
    MemcachedServer,
    MissingServer,
    PostgresServer,
    RabbitServer,
    RedisServer,
    Server,
    required,
)

S = TypeVar("S", bound=Server)

# The machine may be slow and busy.
settings.register_profile("any-speed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-speed")
# pytest --hypothesis-profile=thorough: ten times as many random examples
settings.register_profile("thorough", settings.get_profile("any-speed"), max_examples=1000)

# Asserts of the shipped suites tell their values, as those of test modules do; before anybody imports them.
pytest.register_assert_rewrite("celeriac.testing.conformance")

SHARED: dict[str, Server] = {
    "redis_server": RedisServer(),
    "rabbitmq_server": RabbitServer(),
    "postgres_server": PostgresServer(),
    "memcached_server": MemcachedServer(),
}
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell has put the run into the background, and all programs that tests interrupt would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)

BY_BROKER = {"redis": "redis_server", "amqp": "rabbitmq_server", "rabbitmq": "rabbitmq_server"}
SLOW_TO_START = ("rabbitmq_server", "postgres_server")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, Any, Any]:
    """Look for no garbage while thousands of tests are collected: that is a sixth of the time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


@pytest.hookimpl(tryfirst=True)  # pytest-xdist and pytest-randomly want to know the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test with the servers that it needs, for ``-m "not rabbitmq"``, and with its group."""
    for item in items:
        for name in SHARED.keys() & _servers(item):
            item.add_marker(name.removesuffix("_server"))
    for item, group in zip(items, groups([_need(item) for item in items]), strict=True):
        if group is not None:
            item.add_marker(pytest.mark.xdist_group(group))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Start the slow servers in the background when a test needs them; others run meanwhile."""
    if session.config.option.collectonly:
        return
    needed = {name for item in session.items for name in _servers(item)}
    for name in SLOW_TO_START:
        if name in needed:
            threading.Thread(target=_start_quietly, args=(SHARED[name],), name=name, daemon=True).start()


def _servers(item: pytest.Item) -> set[str]:
    """Return the fixtures of a test, those included that a fixture asks for by the name of a broker."""
    parameters = getattr(getattr(item, "callspec", None), "params", {}).values()
    brokers = {value.partition("-")[0] for value in parameters if isinstance(value, str)}
    asked = {BY_BROKER[broker] for broker in brokers & BY_BROKER.keys()}
    return {*getattr(item, "fixturenames", ()), *asked}


def pytest_sessionfinish() -> None:
    """Stop the servers, whatever happened."""
    Server.stop_all()


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """Let a process of the run send what its tests have printed, even half a character."""
    return _sendable((yield))


def _sendable(value: Any) -> Any:
    """Return a report's data with escapes for what UTF-8 cannot express: sending it would end the process."""
    match value:
        case str():
            return value.encode("utf-8", "backslashreplace").decode()
        case list() | tuple():
            return type(value)(map(_sendable, value))
        case dict():
            return {_sendable(key): _sendable(one) for key, one in value.items()}
    return value


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return how many processes ``-n auto`` means: tests wait twice as long as they compute."""
    return min(8, 3 * len(os.sched_getaffinity(0)))


def _need(item: pytest.Item) -> Need:
    together = item.get_closest_marker("together")
    on_rabbitmq = item.get_closest_marker("rabbitmq") is not None
    return Need(item.nodeid, together.args[0] if together else None, on_rabbitmq)


def _start_quietly(server: Server) -> None:
    try:
        server.start()
    except Exception:
        return  # the fixture starts it again and reports what is wrong to the test that needs it


def _running(name: str, kind: type[S]) -> S:
    server = SHARED[name]
    assert isinstance(server, kind)
    try:
        server.start()
    except MissingServer as exc:
        if required():
            pytest.fail(
                f"{exc} (CI or CELERIAC_REQUIRE_SERVERS is set: it may not be missing)", pytrace=False
            )
        pytest.skip(str(exc))
    return server


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """A private Redis shared by the run; a test that kills it may leave it dead, it is started again."""
    server = _running("redis_server", RedisServer)
    yield server
    server.thaw()


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """A database of the private Redis that no other test uses."""
    return redis_server.fresh_url()


@pytest.fixture
def rabbitmq_server() -> Iterator[RabbitServer]:
    """A private RabbitMQ shared by the run."""
    server = _running("rabbitmq_server", RabbitServer)
    yield server
    server.thaw()


@pytest.fixture
def rabbitmq_url(rabbitmq_server: RabbitServer) -> str:
    """A vhost of the private RabbitMQ that no other test uses."""
    return rabbitmq_server.fresh_url()


@pytest.fixture
def postgres_server() -> Iterator[PostgresServer]:
    """A private PostgreSQL shared by the run."""
    server = _running("postgres_server", PostgresServer)
    yield server
    server.thaw()


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> str:
    """An empty database of the private PostgreSQL."""
    return postgres_server.fresh_url()


@pytest.fixture
def memcached_server() -> Iterator[MemcachedServer]:
    """A private memcached shared by the run."""
    server = _running("memcached_server", MemcachedServer)
    yield server
    server.thaw()
