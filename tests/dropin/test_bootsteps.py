"""Steps that programs add to workers, and workers that programs make themselves."""

from __future__ import annotations

import io
import logging
import operator
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import click
import pytest
import redis
from kombu import Consumer, Exchange, Queue

from celeriac.cli.main import run
from celeriac.node.options import NodeOptions
from celeriac.node.worker import Worker
from celery import Celery, bootsteps
from celery.contrib.testing.worker import start_worker
from celery.utils.graph import CycleError
from celery.worker import WorkController, components
from celery.worker.consumer import Connection, Tasks
from celery.worker.worker import node_options

TIMEOUT = 60.0
QUEUE = Queue("custom", Exchange("custom"), "custom")


@pytest.fixture
def app() -> Iterator[Any]:
    app = Celery(
        "proj", broker=f"memory://{uuid.uuid4().hex}", backend="cache+memory://", set_as_current=False
    )
    yield app
    app.close()


@pytest.fixture
def log() -> list[str]:
    return []


def step(name: str, log: list[str], base: type = bootsteps.StartStopStep, **attrs: Any) -> Any:
    """Return a class of steps that logs what becomes of them."""

    def logs(what: str) -> Callable[..., None]:
        return lambda self, *args, **kwargs: log.append(f"{name} {what}")

    methods = {what: logs(what) for what in ("start", "stop", "close", "terminate")}
    return type(base)(name, (base,), {"__init__": logs("init"), **methods, **attrs})


def running(app: Any, **options: Any) -> Any:
    return start_worker(app, pool=options.pop("pool", "threads"), perform_ping_check=False, **options)


# --- blueprints --------------------------------------------------------------------------------------


class Parent:
    """What steps belong to."""

    def __init__(self) -> None:
        self.steps: list[Any] = []


def blueprint(*steps: Any, **options: Any) -> tuple[bootsteps.Blueprint, Parent]:
    parent = Parent()
    return bootsteps.Blueprint(steps, name="Test", **options).apply(parent), parent


def test_steps_start_after_those_that_they_require_and_stop_before(log: list[str]) -> None:
    first = step("first", log)
    second = step("second", log, requires=(first,))
    third = step("third", log, last=True)
    made, parent = blueprint(third, second, name_or_none := step("aside", log, enabled=False))

    made.start(parent)
    made.stop(parent)

    assert [one.alias for one in made.order] == ["aside", "first", "second", "third"]
    assert name_or_none.name in made.steps
    started = [line for line in log if not line.endswith("init")]
    assert started == [
        *("first start", "second start", "third start"),
        *("first close", "second close", "third close"),
        *("third stop", "second stop", "first stop"),
    ]
    assert made.human_state() == "terminating"
    made.join(timeout=0)
    assert made.shutdown_complete.is_set()


def test_a_step_can_be_named_by_its_module(log: list[str]) -> None:
    made, _ = blueprint(step("mine", log, requires={"celery.worker.components:Timer"}))

    assert next(type(one) for one in made.order) is components.Timer


def test_steps_that_require_each_other_are_refused(log: list[str]) -> None:
    one, other = step("one", log), step("other", log)
    one.requires, other.requires = (other,), (one,)

    with pytest.raises(CycleError):
        blueprint(one, other)


def test_a_step_that_cannot_stop_does_not_keep_others_from_it(
    log: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    def fails(self: Any, parent: Any) -> None:
        raise ValueError("no")

    made, parent = blueprint(step("bad", log, stop=fails), step("good", log))
    made.start(parent)

    made.stop(parent)

    assert "good stop" in log
    assert "Error on stopping bad: ValueError('no')" in caplog.text


def test_a_step_starts_and_stops_what_it_has_made(log: list[str]) -> None:
    class Service:
        def start(self) -> None:
            log.append("start")

        def stop(self) -> None:
            log.append("stop")

    class Serves(bootsteps.StartStopStep):
        def create(self, parent: Any) -> Any:
            return Service()

        def info(self, obj: Any) -> Any:
            return {"service": 1}

    made, parent = blueprint(Serves)

    made.start(parent)
    assert made.info(parent) == {"service": 1}
    made.stop(parent, terminate=True)

    assert log == ["start", "stop"]


def test_a_blueprint_tells_when_it_starts_and_ends(log: list[str]) -> None:
    made, parent = blueprint(
        on_start=lambda: log.append("start"),
        on_close=lambda: log.append("close"),
        on_stopped=lambda: log.append("stopped"),
    )

    made.stop(parent)  # it was never started
    assert log == []
    made.state = None
    made.start(parent)
    made.stop(parent)
    made.stop(parent)

    assert log == ["start", "close", "stopped"]


def test_steps_are_shown_by_their_names(log: list[str]) -> None:
    assert str(components.Timer) == "celery.worker.components.Timer"
    assert repr(components.Timer) == "step:celery.worker.components.Timer{()}"
    assert components.Beat(None).alias == "Beat"
    assert repr(components.Timer(None)) == "<step: Timer>"
    made, _ = blueprint(components.Pool)
    drawing = io.StringIO()
    made.graph.to_dot(drawing)
    assert '"Pool" -> "Hub"' in drawing.getvalue()


# --- steps of workers --------------------------------------------------------------------------------


def test_steps_live_as_long_as_the_worker(app: Any, log: list[str]) -> None:
    # Given steps of worker and consumer
    app.steps["worker"].add(step("worker", log, requires=("celery.worker.components:Pool",)))
    app.steps["consumer"].add(step("consumer", log, requires=("celery.worker.consumer.tasks:Tasks",)))

    note = app.task(name="note")(lambda: log.append("task"))

    # When a worker runs a task and ends
    with running(app):
        note.delay().get(timeout=TIMEOUT)

    # Then they begin before the task, and those of the consumer end first
    assert log == [
        *("worker init", "consumer init", "worker start", "consumer start", "task"),
        *("worker close", "consumer close", "consumer stop", "worker stop"),
    ]


def test_steps_are_given_the_options_of_the_worker(app: Any) -> None:
    given: list[Any] = []

    class Asks(bootsteps.StartStopStep):
        def __init__(self, parent: Any, mine: int = 0, **options: Any) -> None:
            given.append((parent.app is app, parent.hostname, mine, options["concurrency"]))

    class AsksToo(Asks):
        requires = (Tasks, Connection)

    app.steps["worker"].add(Asks)
    app.steps["consumer"].add(AsksToo)

    with running(app, hostname="one@here", concurrency=2, mine=7):
        pass

    assert given == [(True, "one@here", 7, 2)] * 2


def test_a_step_has_the_workers_timer(app: Any) -> None:
    ticks = threading.Event()

    class Liveness(bootsteps.StartStopStep):
        requires = ("celery.worker.components:Timer",)

        def start(self, parent: Any) -> None:
            self.tref = parent.timer.call_repeatedly(0.001, self.tick, (parent,), priority=10)

        def tick(self, worker: Any) -> None:
            ticks.set()

        def stop(self, parent: Any) -> None:
            self.tref.cancel()

    app.steps["worker"].add(Liveness)

    with running(app):
        assert ticks.wait(TIMEOUT)


def test_a_consumers_step_steers_its_worker(app: Any) -> None:
    found: list[Any] = []
    done = threading.Event()

    class Steers(bootsteps.StartStopStep):
        def start(self, parent: Any) -> None:
            parent.call_soon(self.steer, parent, more=2)

        def steer(self, consumer: Any, more: int) -> None:
            before = consumer.qos.value
            consumer.qos.increment_eventually(more)
            consumer.add_task_queue("other")
            consumer.reset_rate_limits()
            found.extend([before, consumer.controller.hostname == consumer.hostname])
            done.set()

    app.conf.worker_prefetch_multiplier = 4
    app.steps["consumer"].add(Steers)

    nothing = app.task(name="nothing")(lambda: "done")

    with running(app, concurrency=1) as worker:
        assert done.wait(TIMEOUT)
        assert nothing.apply_async(queue="other").get(timeout=TIMEOUT) == "done"
        assert worker.consumer.node.dispatcher.base == found[0] + 2
        worker.consumer.cancel_task_queue("other")
        assert "other" not in worker.consumer.node.queues
        assert worker.stats()["pool"]["max-concurrency"] == 1

    assert found == [4, True]


@pytest.mark.parametrize("kind", ["worker", "consumer"])
def test_a_step_that_cannot_start_ends_the_worker(
    app: Any, kind: str, log: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    class Bad(bootsteps.StartStopStep):
        def start(self, parent: Any) -> None:
            raise ValueError("not today")

    app.steps["worker"].add(step("good", log))
    app.steps[kind].add(Bad)
    worker = WorkController(app, pool="threads")

    code = worker.start()

    assert code == 1
    assert "Unrecoverable error: ValueError('not today')" in caplog.text
    assert log.count("good stop") + log.count("good terminate") == log.count("good start")


# --- consumers of messages -----------------------------------------------------------------------------


class Listens(bootsteps.ConsumerStep):
    """Takes what comes to a queue of its own."""

    def __init__(self, parent: Any, **options: Any) -> None:
        self.heard: Any = parent.app.heard

    def get_consumers(self, channel: Any) -> list[Any]:
        return [Consumer(channel, queues=[QUEUE], callbacks=[self.hear], accept=["json"])]

    def hear(self, body: Any, message: Any) -> None:
        message.ack()
        self.heard.take(body)


class Heard:
    """What was heard, and waiting for it."""

    def __init__(self) -> None:
        self.bodies: list[Any] = []
        self._changed = threading.Condition()

    def take(self, body: Any) -> None:
        with self._changed:
            self.bodies.append(body)
            self._changed.notify_all()

    def wait_for(self, body: Any) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: body in self.bodies, TIMEOUT)


def publish(app: Any, body: Any) -> None:
    with app.connection_for_write() as connection:
        connection.Producer().publish(
            body, exchange=QUEUE.exchange, routing_key="custom", declare=[QUEUE], serializer="json"
        )


def test_a_step_consumes_messages_beside_tasks_and_again_after_a_lost_connection(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    # Given a worker with a consumer of a program's own
    caplog.set_level(logging.WARNING)
    app: Any = Celery("proj", broker=redis_url, backend=redis_url, set_as_current=False)
    app.heard = Heard()
    app.steps["consumer"].add(Listens)

    add = app.task(name="add")(operator.add)

    with running(app):
        publish(app, {"hello": 1})
        assert app.heard.wait_for({"hello": 1})
        assert add.delay(1, 2).get(timeout=TIMEOUT) == 3

        # When all connections are cut
        with redis.Redis.from_url(redis_url) as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

        # Then both go on
        publish(app, {"hello": 2})
        assert app.heard.wait_for({"hello": 2})
        assert add.delay(3, 4).get(timeout=TIMEOUT) == 7
    assert "The connection of the steps is lost" in caplog.text
    app.close()


@pytest.mark.rabbitmq
def test_a_step_consumes_messages_from_rabbitmq(rabbitmq_url: str) -> None:
    # Given a worker with a consumer of a program's own, which knows its queue and declares it
    app: Any = Celery("proj", broker=rabbitmq_url, backend="cache+memory://", set_as_current=False)
    app.heard = Heard()
    app.steps["consumer"].add(Listens)
    add = app.task(name="add")(operator.add)

    # When messages come that are no tasks, and tasks
    with running(app):
        publish(app, {"hello": 1})
        publish(app, {"hello": 2})

        # Then each has its own
        assert app.heard.wait_for({"hello": 1})
        assert app.heard.wait_for({"hello": 2})
        assert add.delay(1, 2).get(timeout=TIMEOUT) == 3

    # Then what is acknowledged does not come again, and what comes later waits
    publish(app, {"hello": 3})
    with app.connection_for_read() as connection:
        left = QUEUE(connection.default_channel).get()
        assert left.payload == {"hello": 3}
        left.ack()
        assert QUEUE(connection.default_channel).get() is None
    app.close()


def test_consumers_of_programs_work_on_kombus_memory_broker(app: Any) -> None:
    app.heard = Heard()
    app.steps["consumer"].add(Listens)

    with running(app):
        publish(app, [1])
        assert app.heard.wait_for([1])


# --- workers that programs make, and the command line ---------------------------------------------------


def test_options_of_celery_are_understood() -> None:
    options = node_options(
        "one",
        {
            "concurrency": 3,
            "pool_cls": "threads",
            "queues": "a,b",
            "autoscale": "10,3",
            "task_events": True,
            "loglevel": "INFO",
            "max_memory_per_child": 5,
            "logfile": None,
            "mine": 1,
        },
    )

    assert options.hostname == "celery@one"
    assert (options.concurrency, options.pool, options.autoscale) == (3, "threads", (10, 3))
    assert (options.queues, options.events, options.loglevel) == (("a", "b"), True, logging.INFO)
    assert options.max_memory_per_child_kib == 5
    assert options.extra == {"mine": 1}


def test_a_program_makes_a_worker_of_its_app(app: Any, log: list[str]) -> None:
    worker: Any = app.Worker(pool="threads", ready_callback=lambda consumer: worker.stop(exitcode=3))

    assert worker.start() == 3
    assert worker.exitcode == 3
    assert repr(worker) == f"<Worker: {worker.hostname} (terminating)>"


def test_options_that_a_program_adds_are_those_of_the_command(
    app: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    given: list[Any] = []

    class Asks(bootsteps.Step):
        def __init__(self, parent: Any, my_option: str = "", **options: Any) -> None:
            given.append(my_option)
            raise click.ClickException("that is enough")

    app.user_options["worker"].add(click.Option(["--my-option"], help="Mine, all mine."))
    app.steps["worker"].add(Asks)

    assert run(["worker", "--help"], app=app) == 0
    assert "Mine, all mine." in capsys.readouterr().out
    assert run(["worker", "-P", "threads", "--my-option", "x"], app=app) == 1
    assert given == ["x"]


def test_a_worker_without_steps_has_none_live_with_it(app: Any, log: list[str]) -> None:
    options = NodeOptions(hostname="one@here", pool="threads")
    assert Worker(app, options).companions == []

    app.steps["consumer"].add(step("mine", log))

    assert len(Worker(app, options).companions) == 1
