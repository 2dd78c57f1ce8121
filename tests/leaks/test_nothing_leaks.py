"""A short soak; `make soak` is the long one, and judges memory as well."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from faults.brokers import Broker, Kind, Servers
from leaks.vitals import Census
from leaks.watch import Plan, watch
from servers import RabbitServer, RedisServer
from servers.ports import LOOPBACK

PLAN = Plan(calls=1000, steps=40, cuts=5)


def nothing_leaks(kind: Kind, servers: Servers, folder: Path) -> None:
    broker = Broker(kind, servers, folder)
    try:
        watched = watch(broker, folder, PLAN, lambda _: None)
    finally:
        broker.close()

    assert not watched.wrong
    assert {sample.process for sample in watched.samples} == {
        *("client", "node", "forker", "child 1", "child 2")
    }
    grown = [one for one in watched.growths if one.measure != "memory" and not one.is_flat]
    assert not grown
    if kind != "sqlite":
        assert watched.cut >= PLAN.cuts


def test_nothing_leaks_on_sqlite(tmp_path: Path) -> None:
    nothing_leaks("sqlite", Servers(), tmp_path)


def test_nothing_leaks_on_redis_when_connections_are_cut(redis_server: RedisServer, tmp_path: Path) -> None:
    nothing_leaks("redis", Servers(redis=redis_server), tmp_path)


def test_nothing_leaks_on_rabbitmq_when_connections_are_cut(
    rabbitmq_server: RabbitServer, tmp_path: Path
) -> None:
    nothing_leaks("rabbitmq", Servers(rabbitmq=rabbitmq_server), tmp_path)


def test_a_census_sees_what_is_opened() -> None:
    # Given what this process holds
    census = Census(os.getpid(), os.getppid())
    before = census.take(0)[0].held

    # When it opens a connection
    with socket.create_server((LOOPBACK, 0)) as listener, socket.create_connection(listener.getsockname()):
        after = census.take(0)[0].held

    # Then that is one more, and the listening socket is another
    assert after["descriptors"] == before["descriptors"] + 2
    assert after["connections"] == before["connections"] + 2
    assert after["memory"] > 0
