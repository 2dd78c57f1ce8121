"""A broker that has a deputy goes away: by a list of URLs, and by Redis Sentinel."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from celeriac import backends, transports
from celeriac.app import Celeriac
from celeriac.errors import BrokerUnreachable, CeleriacError, ConfigError
from celeriac.net.redis_link import RedisFailure
from celeriac.ports import ConsumeSpec
from celeriac.queues import direct_queue
from celeriac.testing.worker import start_worker
from redis_probe import command
from servers import RabbitServer, RedisServer, SentinelServer, Server, free_port, until

TIMEOUT = 60.0
RESUME_SECONDS = 5.0
PUBLISH_SECONDS = 5.0
FAILOVERS = int(os.environ.get("CELERIAC_FAILOVERS", "2"))  # 12 s each: sentinels look so seldom
NAME, PASSWORD, SENTINELS_PASSWORD = "shop", "secret", "watchers"

# Servers that watch each other stay in one process of the run.
pytestmark = pytest.mark.together("failover")


class Watched:
    """Two Redis servers, the second a replica of the first, and three sentinels; all with passwords."""

    def __init__(self) -> None:
        login = ["--requirepass", PASSWORD, "--masterauth", PASSWORD, "--repl-diskless-sync-delay", "0"]
        first = RedisServer(*login)
        first.start()
        second = RedisServer(*login, "--replicaof", f"127.0.0.1 {first.port}")
        self.redis = [first, second]
        self.sentinels = [
            SentinelServer(first, NAME, quorum=2, password=PASSWORD, own_password=SENTINELS_PASSWORD)
            for _ in range(3)
        ]
        self.servers: list[Server] = [first, second, *self.sentinels]
        for server in self.servers[1:]:
            server.start()
        until(self._complete, TIMEOUT, "the sentinels to know each other and the replica")

    @property
    def url(self) -> str:
        """The URL for clients."""
        one, two, three = (f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"sentinel://:{PASSWORD}@{one};sentinel://{two};sentinel://{three}/7"

    def ask(self, number: int, *words: str) -> Any:  # Any: whatever it is
        """Return what a sentinel answers."""
        return command(f"redis://:{SENTINELS_PASSWORD}@127.0.0.1:{self.sentinels[number].port}", *words)

    def master(self) -> RedisServer | None:
        """Return the server that says itself that it is the master, when most sentinels say so too."""
        places = [self.ask(number, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME) for number in range(3)]
        for server in self.redis:
            if places.count([b"127.0.0.1", b"%d" % server.port]) > 1:
                with contextlib.suppress(RedisFailure):
                    if command(f"redis://:{PASSWORD}@127.0.0.1:{server.port}", "ROLE")[0] == b"master":
                        return server
        return None

    def promoted(self, before: RedisServer) -> RedisServer | None:
        """Return the master when it is another one."""
        master = self.master()
        return master if master is not before else None

    def demoted(self, server: RedisServer) -> bool | None:
        """Return True when a server follows the new master; until then it takes what will be lost."""
        if self.promoted(server) is None:
            return None
        with contextlib.suppress(RedisFailure):  # it ends all connections when it becomes a replica
            role: bytes = command(f"redis://:{PASSWORD}@127.0.0.1:{server.port}", "ROLE")[0]
            return role == b"slave" or None
        return None

    def fail_over(self) -> bool | None:
        """Order another master; None when no replica is known to be fit yet."""
        try:
            return bool(self.ask(0, "SENTINEL", "FAILOVER", NAME) == b"OK") or None
        except RedisFailure as exc:
            if "NOGOODSLAVE" in str(exc) or "INPROG" in str(exc):
                return None
            raise

    def in_step(self, master: RedisServer) -> None:
        """Wait until the replica has everything."""
        words = ("WAIT", "1", str(int(TIMEOUT * 1000)))
        assert command(f"redis://:{PASSWORD}@127.0.0.1:{master.port}", "SET", "mark", "1")
        assert command(f"redis://:{PASSWORD}@127.0.0.1:{master.port}", *words) >= 0

        def equal() -> bool | None:
            role = command(f"redis://:{PASSWORD}@127.0.0.1:{master.port}", "ROLE")
            return (bool(role[2]) and role[2][0][2] == b"%d" % role[1]) or None

        until(equal, TIMEOUT, "the replica to have everything")

    def _complete(self) -> bool | None:
        for number in range(3):
            flat = self.ask(number, "SENTINEL", "MASTER", NAME)
            found = flat if isinstance(flat, dict) else dict(zip(flat[::2], flat[1::2], strict=True))
            if (found[b"num-slaves"], found[b"num-other-sentinels"]) != (b"1", b"2"):
                return None
        return True


@pytest.fixture
def watched() -> Iterator[Watched]:
    watched = Watched()
    yield watched
    for server in reversed(watched.servers):
        server.stop()


def make_app(broker: str | Sequence[str], backend: str, **settings: object) -> Celeriac:
    app = Celeriac("proj", backend=backend, set_as_current=False)
    app.conf.broker_url = broker
    app.conf.worker_lease_seconds = 3.0
    app.conf.publish_timeout_seconds = PUBLISH_SECONDS
    app.conf.update(settings)
    return app


def first_success_after(task: object, since: float) -> float:
    """Send until a task gets through and return how many seconds after a moment it has run."""
    while True:
        sent_at = time.monotonic()
        try:
            result = task.delay(-1)  # type: ignore[attr-defined]
        except CeleriacError:
            assert time.monotonic() - sent_at < PUBLISH_SECONDS + 2, "delay() has a budget"
        else:
            with contextlib.suppress(CeleriacError):
                result.get(timeout=RESUME_SECONDS)
                return time.monotonic() - since
        assert time.monotonic() - since < TIMEOUT, "nothing got through"


@pytest.mark.parametrize("how", ["killed", "frozen", "demoted"])
def test_worker_and_clients_follow_the_sentinels_to_the_new_master(watched: Watched, how: str) -> None:
    options = {"master_name": NAME, "sentinel_kwargs": {"password": SENTINELS_PASSWORD}}
    app = make_app(
        watched.url,
        watched.url,
        broker_transport_options=options,
        result_backend_transport_options=options,
    )

    @app.task
    def echo(x: int) -> int:
        time.sleep(0.02)
        return x

    before = watched.master()
    assert before is not None
    try:
        with start_worker(app, pool="threads", concurrency=2):
            results = [echo.delay(x) for x in range(200)]
            assert results[0].get(timeout=TIMEOUT) == 0
            assert command(f"redis://:{PASSWORD}@127.0.0.1:{before.port}/7", "DBSIZE") > 0
            if how == "killed":
                watched.in_step(before)
                before.kill()
            elif how == "frozen":
                watched.in_step(before)
                before.freeze()
            else:
                watched.ask(0, "SENTINEL", "FAILOVER", NAME)
            until(lambda: watched.promoted(before), TIMEOUT, "another master")
            took = first_success_after(echo, time.monotonic())
            assert [result.get(timeout=TIMEOUT) for result in results] == list(range(200))
        assert took < _most_seconds(how)
    finally:
        app.close()


def test_worker_and_clients_follow_one_master_after_the_other(watched: Watched) -> None:
    options = {"master_name": NAME, "sentinel_kwargs": {"password": SENTINELS_PASSWORD}}
    app = make_app(
        watched.url,
        watched.url,
        broker_transport_options=options,
        result_backend_transport_options=options,
    )

    @app.task
    def echo(x: int) -> int:
        return x

    try:
        with start_worker(app, pool="threads", concurrency=2):
            for _ in range(FAILOVERS):
                before = until(watched.master, TIMEOUT, "a master")
                watched.in_step(before)
                until(watched.fail_over, TIMEOUT, "the sentinels to trust the replica")
                until(partial(watched.demoted, before), TIMEOUT, "the old one to be demoted")
                assert first_success_after(echo, time.monotonic()) < RESUME_SECONDS
    finally:
        app.close()


def _most_seconds(how: str) -> float:
    """Return after how long a task has to have run: to ask who hangs costs a client its budget, once."""
    return RESUME_SECONDS + (PUBLISH_SECONDS if how == "frozen" else 0)


def test_a_sentinel_without_the_name_or_without_a_master_is_told(watched: Watched) -> None:
    with pytest.raises(ConfigError, match="master_name"):
        transports.connect(watched.url)
    with pytest.raises(ConfigError, match="result_backend_transport_options"):
        backends.connect(backends.BackendSpec(url=watched.url))
    transport = transports.connect(
        watched.url,
        {"master_name": "other", "sentinel_kwargs": {"password": SENTINELS_PASSWORD}},
    )
    with pytest.raises(BrokerUnreachable, match="no sentinel knows the master 'other'") as caught:
        transport.size("celery")
    assert PASSWORD not in str(caught.value)
    assert SENTINELS_PASSWORD not in str(caught.value)
    for sentinel in watched.sentinels[:2]:  # the last one will do
        sentinel.kill()
    transport = transports.connect(
        watched.url,
        {"master_name": NAME, "sentinel_kwargs": {"password": SENTINELS_PASSWORD}},
    )
    assert transport.size("celery") == 0
    transport.close()


@pytest.mark.parametrize("how", ["killed", "frozen", "demoted"])
def test_worker_and_clients_go_on_with_the_other_redis(how: str, tmp_path: Path) -> None:
    _goes_on_with_the_other([RedisServer(), RedisServer()], how, tmp_path)


@pytest.mark.rabbitmq
def test_worker_and_clients_go_on_with_the_other_rabbitmq(
    rabbitmq_server: RabbitServer, tmp_path: Path
) -> None:
    _goes_on_with_the_other([RabbitServer(), rabbitmq_server], "killed", tmp_path)


def _goes_on_with_the_other(servers: Sequence[RedisServer | RabbitServer], how: str, folder: Path) -> None:
    first, second = servers
    for server in servers:
        server.start()
    app = make_app([server.fresh_url() for server in servers], f"sqlite:///{folder}/results.db")

    @app.task
    def echo(x: int) -> int:
        return x

    try:
        with start_worker(app, pool="threads"):
            assert echo.delay(1).get(timeout=TIMEOUT) == 1
            since = time.monotonic()
            if how == "demoted":  # which closes no connection
                command(first.url, "REPLICAOF", "127.0.0.1", str(second.port))
            else:
                first.kill() if how == "killed" else first.freeze()
            took = first_success_after(echo, since)
        assert took < _most_seconds(how)
        assert second.running
    finally:
        app.close()
        first.stop()


def test_both_connections_of_a_node_are_to_the_same_server(redis_server: RedisServer) -> None:
    database = redis_server.fresh_url().rpartition("/")[2]
    first = RedisServer()
    first.start()
    first.kill()
    transport = transports.connect(f"{first.url}/{database};{redis_server.url}/{database}")

    def connections(server: RedisServer) -> int:
        return str(command(server.url, "CLIENT", "LIST")).count(f" db={database} ")

    async def consume() -> None:
        spec = ConsumeSpec(queues=(direct_queue("celery"),), node="one@host", prefetch=1, lease_seconds=15.0)
        consumer = await transport.consumer(spec)
        await asyncio.to_thread(first.start)
        waiting = asyncio.create_task(consumer.receive(1))  # opens the second one
        await asyncio.to_thread(
            until, lambda: connections(redis_server) == 2 or None, TIMEOUT, "the second connection"
        )
        assert await asyncio.to_thread(connections, first) == 0
        waiting.cancel()
        await consumer.close()

    try:
        asyncio.run(consume())
    finally:
        transport.close()
        first.stop()


def test_a_server_of_a_list_that_is_a_replica_is_passed_over(redis_server: RedisServer) -> None:
    replica = RedisServer("--replicaof", f"127.0.0.1 {redis_server.port}")
    replica.start()
    transport = transports.connect(f"{replica.url}/3;{redis_server.url}/3")
    try:
        assert transport.purge("celery") == 0  # a replica would refuse
    finally:
        transport.close()
        replica.stop()
    with pytest.raises(BrokerUnreachable):
        transports.connect(f"redis://127.0.0.1:{free_port()};redis://127.0.0.1:{free_port()}").size("x")
