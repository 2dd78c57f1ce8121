"""The private servers of the test run start, keep their data over kill -9, freeze and stop."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import amqp
import psycopg
import pytest
import redis
from pymemcache.client.base import Client as MemcacheClient

from servers import (
    MemcachedServer,
    MissingServer,
    PostgresServer,
    RabbitServer,
    RedisServer,
    Server,
    free_port,
    required,
    until,
)


def test_redis_keeps_its_data_when_it_is_killed(redis_server: RedisServer) -> None:
    url = redis_server.fresh_url()
    with redis.Redis.from_url(url) as client:
        client.set("kept", "value")

    redis_server.kill()
    redis_server.start()

    with redis.Redis.from_url(url) as client:
        assert client.get("kept") == b"value"


def test_a_frozen_redis_accepts_and_does_not_answer(redis_server: RedisServer) -> None:
    redis_server.freeze()

    with redis.Redis.from_url(redis_server.url, socket_timeout=0.2, retry=None) as client:
        with pytest.raises(redis.TimeoutError):
            client.ping()
        redis_server.thaw()
        assert client.ping()


def test_rabbitmq_has_users_and_vhosts_of_its_own(rabbitmq_server: RabbitServer) -> None:
    rabbitmq_server.add_user("somebody", "secret", "nobody")
    vhost = rabbitmq_server.fresh_url().rpartition("/")[2]
    rabbitmq_server.allow("somebody", vhost)

    with amqp.Connection(
        host=rabbitmq_server.address, userid="somebody", password="secret", virtual_host=vhost
    ) as connection:
        name, waiting, consumers = connection.channel().queue_declare("jobs")

    assert (name, waiting, consumers) == ("jobs", 0, 0)


def test_rabbitmq_keeps_durable_queues_when_it_is_killed(rabbitmq_server: RabbitServer) -> None:
    with amqp.Connection(host=rabbitmq_server.address) as connection:
        channel = connection.channel()
        channel.queue_declare("durable", durable=True, auto_delete=False)

    rabbitmq_server.kill()
    rabbitmq_server.start()

    with amqp.Connection(host=rabbitmq_server.address) as connection:
        assert connection.channel().queue_declare("durable", passive=True).queue == "durable"


def test_postgres_hands_out_empty_databases(postgres_server: PostgresServer) -> None:
    first, second = postgres_server.fresh_url(), postgres_server.fresh_url()

    with psycopg.connect(first) as connection:
        connection.execute("CREATE TABLE only_here (n int)")

    with psycopg.connect(second) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
    assert tables == []


def test_memcached_serves(memcached_server: MemcachedServer) -> None:
    with contextlib.closing(MemcacheClient(memcached_server.address)) as client:
        client.set("key", b"value", noreply=False)

        assert client.get("key") == b"value"


def test_servers_and_programs_end_when_the_run_is_killed(redis_server: RedisServer) -> None:
    script = (
        "import servers, processes, os, pathlib, signal\n"
        "one = servers.RedisServer(); one.start()\n"
        "two = processes.Program(['sleep', '1000'], cwd=pathlib.Path('/'), env=os.environ)\n"
        "print(one.pid, two.pid, one.folder, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )

    run = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).resolve().parents[1],
        capture_output=True,
        text=True,
        check=False,
    )

    *pids, folder = run.stdout.split()
    traces = [Path(folder), *(Path(f"/proc/{pid}/cmdline") for pid in pids)]
    until(lambda: None if any(trace.exists() for trace in traces) else True, 10, "their end")


def test_a_missing_program_is_reported_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class NoSuchServer(Server):
        program = "no-such-server"
        package = "no-such-package"

    with pytest.raises(MissingServer, match="sudo apt-get install -y no-such-package"):
        NoSuchServer().start()

    monkeypatch.delenv("CELERIAC_REQUIRE_SERVERS", raising=False)
    monkeypatch.setenv("CI", "true")
    assert required()
    monkeypatch.delenv("CI")
    assert not required()


def test_processes_never_get_the_same_port() -> None:
    script = (
        "import sys; from servers.ports import free_port\n"
        "print(*[free_port() for _ in range(200)], flush=True); sys.stdin.read()\n"
    )
    tests = Path(__file__).resolve().parents[1]
    command = [sys.executable, "-c", script]
    with contextlib.ExitStack() as running:
        processes = [
            running.enter_context(
                subprocess.Popen(command, cwd=tests, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            for _ in range(4)
        ]
        outputs = [process.stdout for process in processes if process.stdout is not None]
        ports = [port for output in outputs for port in output.readline().split()]
        for process in processes:
            process.communicate()

    assert len(set(ports)) == len(ports) == 800


def test_clients_are_never_given_a_port_of_ours() -> None:
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())

    assert not any(first <= free_port() <= last for _ in range(50))
