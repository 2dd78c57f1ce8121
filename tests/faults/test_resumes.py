"""Whatever breaks between a worker and its broker, it resumes within 5 s of the end of it, by itself."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from celeriac.app import Celeriac
from celeriac.errors import CeleriacError
from celeriac.queues import Exchange, Queue
from celeriac.task import Task
from celeriac.testing.worker import start_worker
from celeriac.transports.amqp import AmqpTransport, topology
from faults.proxy import Proxy
from redis_probe import command
from servers import RedisServer, until

TIMEOUT = 60.0
RESUME_SECONDS = 5.0
CONNECTING = "consumer: Cannot connect to"
LOST = "consumer: Connection to broker lost"


@dataclass
class Scene:
    """A worker that runs, and its clients, behind a proxy."""

    proxy: Proxy
    server: Any  # Any: a RedisServer or a RabbitServer, with different powers
    database: str  # or the vhost
    echo: Task
    log: pytest.LogCaptureFixture

    def notices(self, what: str) -> None:
        """Wait until the worker has noticed."""
        until(lambda: (what in self.log.text) or None, TIMEOUT, f"{what!r} in the log")

    def redis(self, *words: str) -> object:
        """Do something past the proxy."""
        return command(f"redis://127.0.0.1:{self.server.port}/{self.database}", *words)

    def erlang(self, expression: str) -> None:
        """Do something past the proxy."""
        self.server.evaluate(expression)

    def seconds_until_it_runs(self) -> float:
        """Send until a task gets through and return how long that took."""
        since = time.monotonic()
        while True:
            try:
                assert self.echo.apply_async((1,), retry=False).get(timeout=RESUME_SECONDS) == 1
            except CeleriacError:
                assert time.monotonic() - since < TIMEOUT, "nothing got through"
            else:
                return time.monotonic() - since


def put_up(url: str, folder: Path, **settings: object) -> Celeriac:
    app = Celeriac("proj", broker=url, backend=f"sqlite:///{folder}/results.db", set_as_current=False)
    app.conf.worker_lease_seconds = 3.0
    app.conf.publish_timeout_seconds = 1.0
    app.conf.update(settings)
    return app


@pytest.fixture(params=["redis", "rabbitmq", "rabbitmq-quorum"])
def scene(
    request: pytest.FixtureRequest, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> Iterator[Scene]:
    caplog.set_level(logging.INFO)
    kind, _, variety = request.param.partition("-")
    server = request.getfixturevalue(f"{kind}_server")
    url: str = server.fresh_url()
    with Proxy(server.port) as proxy:
        app = put_up(
            url.replace(f":{server.port}/", f":{proxy.port}/"),
            tmp_path,
            **({"task_default_queue_type": variety} if variety else {}),
        )

        @app.task
        def echo(x: int) -> int:
            return x

        scene = Scene(proxy, server, url.rpartition("/")[2], echo, caplog)
        try:
            with start_worker(app, pool="threads"):
                assert echo.delay(1).get(timeout=TIMEOUT) == 1
                yield scene
                proxy.heal()  # so that the worker can say good-bye
                proxy.admit()
                server.thaw()
        finally:
            app.close()


everywhere = pytest.mark.parametrize("scene", ["redis", "rabbitmq"], indirect=True)
on_redis = pytest.mark.parametrize("scene", ["redis"], indirect=True)
on_rabbitmq = pytest.mark.parametrize("scene", ["rabbitmq", "rabbitmq-quorum"], indirect=True)


@everywhere
def test_after_connections_were_refused(scene: Scene) -> None:
    scene.proxy.refuse()
    scene.proxy.cut()
    scene.notices(CONNECTING)
    scene.proxy.admit()

    assert scene.seconds_until_it_runs() < RESUME_SECONDS


@everywhere
def test_after_connections_were_reset(scene: Scene) -> None:
    for _ in range(5):
        assert scene.proxy.cut()
        assert scene.seconds_until_it_runs() < RESUME_SECONDS


@everywhere
def test_after_the_server_was_stopped_until_the_worker_had_noticed(scene: Scene) -> None:
    scene.server.freeze()
    scene.notices(CONNECTING)
    scene.server.thaw()

    assert scene.seconds_until_it_runs() < RESUME_SECONDS


@everywhere
def test_after_a_black_hole_that_answers_to_nobody(scene: Scene) -> None:
    scene.proxy.block()
    scene.notices(CONNECTING)
    scene.proxy.heal()

    assert scene.seconds_until_it_runs() < RESUME_SECONDS


@everywhere
def test_after_a_black_hole_that_lets_our_words_through(scene: Scene) -> None:
    scene.proxy.block("to_client")
    scene.notices(CONNECTING)
    scene.proxy.heal()

    assert scene.seconds_until_it_runs() < RESUME_SECONDS


@on_redis
def test_after_redis_has_lost_everything_with_its_scripts(scene: Scene) -> None:
    scene.redis("SCRIPT", "FLUSH")
    scene.redis("FLUSHDB")

    assert scene.seconds_until_it_runs() < RESUME_SECONDS


@on_redis
def test_after_redis_was_a_replica_for_a_while(scene: Scene) -> None:
    scene.redis("REPLICAOF", "127.0.0.1", "1")
    scene.notices(CONNECTING)
    scene.redis("REPLICAOF", "NO", "ONE")

    assert scene.seconds_until_it_runs() < RESUME_SECONDS


@on_redis
def test_after_redis_had_no_memory_left(scene: Scene) -> None:
    scene.redis("CONFIG", "SET", "maxmemory", "1")
    try:
        with pytest.raises(CeleriacError, match="OOM"):
            scene.echo.apply_async((1,), retry=False)
        time.sleep(2.0)
    finally:
        scene.redis("CONFIG", "SET", "maxmemory", "0")

    assert scene.seconds_until_it_runs() < RESUME_SECONDS
    assert scene.log.text.count(LOST) < 10


@on_redis
def test_after_the_password_was_changed_and_mended(scene: Scene) -> None:
    scene.redis("CONFIG", "SET", "requirepass", "other")
    try:
        scene.proxy.cut()
        scene.notices(CONNECTING)
    finally:
        command(f"redis://:other@127.0.0.1:{scene.server.port}", "CONFIG", "SET", "requirepass", "")

    assert scene.seconds_until_it_runs() < RESUME_SECONDS


@on_rabbitmq
def test_after_the_vhost_was_lost_with_all_queues(scene: Scene) -> None:
    vhost = scene.database
    scene.erlang(f'rabbit_vhost:delete(<<"{vhost}">>, <<"guest">>).')
    scene.notices(CONNECTING)
    scene.server.add_vhost(vhost)
    scene.server.allow("guest", vhost)

    assert scene.seconds_until_it_runs() < RESUME_SECONDS


@on_rabbitmq
def test_after_the_queue_was_deleted(scene: Scene) -> None:
    with closing(AmqpTransport(f"amqp://{scene.server.address}/{scene.database}", {})) as operator:
        operator.producer().ask("queue.delete", 0, "celery", False, False, False)

    assert scene.seconds_until_it_runs() < RESUME_SECONDS
    assert scene.seconds_until_it_runs() < RESUME_SECONDS


@pytest.mark.parametrize("scene", ["rabbitmq-quorum"], indirect=True)
def test_after_rabbitmq_has_forgotten_that_the_worker_consumes(scene: Scene) -> None:
    # Given a quorum queue that is deleted and made again at once, of which RabbitMQ tells nobody
    queue = Queue(
        name="celery",
        exchange=Exchange(name="celery"),
        routing_key="celery",
        arguments={"x-queue-type": "quorum"},
    )
    with closing(AmqpTransport(f"amqp://{scene.server.address}/{scene.database}", {})) as operator:
        operator.producer().ask("queue.delete", 0, "celery", False, False, False)
        for name, *arguments in topology.declarations(queue):
            operator.producer().ask(name, *arguments)

        # When there is more to do than RabbitMQ believes to have sent
        results = [scene.echo.delay(1) for _ in range(300)]

        # Then the worker finds out, and runs it
        assert [result.get(timeout=TIMEOUT) for result in results] == [1] * 300


@pytest.mark.parametrize("scene", ["rabbitmq"], indirect=True)
def test_after_the_user_was_locked_out_and_let_in_again(scene: Scene) -> None:
    change = 'rabbit_auth_backend_internal:change_password(<<"guest">>, <<"{}">>, <<"guest">>).'
    scene.erlang(change.format("other"))
    try:
        scene.proxy.cut()
        scene.notices(CONNECTING)
        time.sleep(1.0)
    finally:
        scene.erlang(change.format("guest"))

    assert scene.seconds_until_it_runs() < RESUME_SECONDS


def test_after_redis_had_to_load_its_data(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    # Given a Redis with data that it reads so slowly that it can say that it is loading
    slowly = ["--key-load-delay", "30000", "--loading-process-events-interval-bytes", "1024"]
    server = RedisServer("--appendonly", "no", *slowly)
    server.start()
    app = put_up(server.fresh_url(), tmp_path)

    @app.task
    def echo(x: int) -> int:
        return x

    try:
        with start_worker(app, pool="threads"), Proxy(server.port) as unused:
            scene = Scene(unused, server, "0", echo, caplog)
            assert echo.delay(1).get(timeout=TIMEOUT) == 1
            for number in range(150):
                scene.redis("SET", f"key{number}", "x" * 64)
            scene.redis("SAVE")

            # When it is killed and starts again
            server.kill()
            starting = threading.Thread(target=server.start)
            starting.start()
            scene.notices("LOADING")
            starting.join()

            # Then the worker goes on
            assert scene.seconds_until_it_runs() < RESUME_SECONDS
    finally:
        app.close()
        server.stop()
