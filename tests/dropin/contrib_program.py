"""Tests as users of Celery write them, with the fixtures of ``celery.contrib.pytest``."""

import threading

import pytest

from celery import current_app, shared_task
from celery.contrib.testing.app import TestApp, setup_default_app
from celery.contrib.testing.manager import Manager
from celery.contrib.testing.mocks import ContextMock, TaskMessage, TaskMessage1, task_message_from_sig
from celery.contrib.testing.worker import start_worker, test_worker_started, test_worker_stopped

pytest_plugins = ("celery.contrib.pytest",)


@shared_task(name="shared.add")
def shared_add(x, y):
    return x + y


@pytest.fixture(scope="session")
def celery_config():
    return {"result_extended": True}


@pytest.fixture(scope="session")
def celery_parameters():
    return {"strict_typing": False}


@pytest.fixture(scope="session")
def celery_worker_parameters():
    return {"queues": ("celery", "high-prio")}


@pytest.fixture(scope="session")
def celery_includes():
    return ["included_tasks"]


@pytest.mark.celery(result_expires=77)
def test_create_task(celery_app, celery_worker):
    @celery_app.task
    def mul(x, y):
        return x * y

    celery_worker.reload()
    assert mul.delay(4, 4).get(timeout=10) == 16
    assert mul.apply_async((4, 5), queue="high-prio").get(timeout=10) == 20
    assert celery_app.conf.result_expires == 77
    assert celery_app.conf.result_extended
    assert celery_app.strict_typing is False


def test_the_app_is_a_test_app(celery_app):
    assert celery_app.main == "celery.tests"
    assert celery_app.conf.broker_url == "memory://"
    assert celery_app.conf.result_backend == "cache+memory://"
    assert set(celery_app.conf.accept_content) == {"json"}
    assert celery_app.conf.result_expires != 77


def test_depends_on_current_app(celery_app, depends_on_current_app):
    assert current_app._get_current_object() is celery_app


@pytest.mark.parametrize("pool", ["solo", "threads"])
def test_start_worker(pool):
    app, heard = TestApp(), []

    def started(sender=None, worker=None, consumer=None, **kwargs):
        heard.append((sender, worker, consumer is not None))

    def stopped(sender=None, worker=None, **kwargs):
        heard.append((sender, worker))

    test_worker_started.connect(started)
    test_worker_stopped.connect(stopped)

    @app.task(name="where")
    def where():
        return threading.current_thread() is not threading.main_thread()

    with setup_default_app(app), start_worker(app, pool=pool, perform_ping_check=False) as worker:
        worker.ensure_started()
        assert where.delay().get(timeout=10)
        assert worker.app is app
        assert worker.consumer is not None
    assert heard == [(app, worker, True), (app, worker)]


def test_the_worker_says_when_its_task_does_not_end():
    app, go, begun = TestApp(), threading.Event(), threading.Event()

    @app.task(name="wait")
    def wait():
        begun.set()
        go.wait(20)

    def use_it():
        with start_worker(app, pool="threads", perform_ping_check=False, shutdown_timeout=0.1):
            wait.delay()
            assert begun.wait(10)

    with pytest.raises(RuntimeError, match="shutdown_timeout"):
        use_it()
    go.set()


def test_a_ping_needs_its_task():
    app = TestApp()
    app.finalize()
    app.tasks.pop("celery.ping", None)
    with pytest.raises(AssertionError), start_worker(app):
        pass


@pytest.fixture
def manager(celery_app):
    return Manager(celery_app)


def test_manager(manager, celery_app, celery_worker, capsys):
    @celery_app.task(name="add")
    def add(x, y):
        return x + y

    celery_worker.reload()
    result = add.delay(1, 2)
    manager.join(result, timeout=10)
    assert result.ready()
    attempts = []

    def third_time():
        attempts.append(1)
        if len(attempts) < 3:
            raise KeyError
        return "done"

    assert manager.wait_for(third_time, KeyError, interval_start=0.01, interval_step=0) == "done"
    attempts.clear()
    with pytest.raises(AssertionError):
        manager.ensure_not_for_a_while(third_time, KeyError, interval_start=0.01, interval_step=0)
    assert manager.true_or_raise(lambda: 1) == 1
    assert manager.is_result_task_in_progress([result])
    assert manager.inspect(timeout=1.0).ping()
    manager.remark("hello")


def test_messages():
    message = TaskMessage("t.add", id="i1", args=(1, 2), kwargs={"a": 1}, foo=1)
    assert message.headers == {"id": "i1", "task": "t.add", "shadow": None, "foo": 1}
    assert message.body == '[[1, 2], {"a": 1}, {"callbacks": null, "errbacks": null, "chain": null}]'
    assert message.payload == ((1, 2), {"a": 1}, {"callbacks": None, "errbacks": None, "chain": None})
    old = TaskMessage1("t.add", id="i1", args=(1, 2))
    assert old.headers == {}
    assert old.payload["task"] == "t.add"
    assert (old.content_type, old.content_encoding) == ("application/json", "utf-8")


def test_messages_of_signatures(celery_app):
    @celery_app.task(name="t.add")
    def add(x, y):
        return x + y

    sig = add.s(1, 2).set(countdown=3, expires=10, task_id="i1")
    sig.link(add.s(3))
    message = task_message_from_sig(celery_app, sig)
    assert message.headers["id"] == "i1"
    assert message.headers["task"] == "t.add"
    assert message.headers["eta"] < message.headers["expires"]
    assert message.payload[0] == (1, 2)
    (callback,) = message.payload[2]["callbacks"]
    assert (callback["task"], tuple(callback["args"])) == ("t.add", (3,))


def test_context_mock():
    mock = ContextMock()
    with mock as entered:
        assert entered is mock


# The last ones: their worker takes what is for others from then on.
@pytest.mark.usefixtures("celery_session_worker")
class TestSession:
    def test_shared(self, celery_session_app):
        assert current_app._get_current_object() is celery_session_app
        assert shared_add.delay(2, 2).get(timeout=10) == 4

    def test_included(self, celery_session_app):
        assert celery_session_app.send_task("included.neg", (2,)).get(timeout=10) == -2
