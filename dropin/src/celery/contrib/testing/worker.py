"""A worker in a thread of the test's process."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from celeriac.testing.worker import START_SECONDS, running
from celery.result import allow_join_result
from celery.utils.dispatch import Signal
from celery.worker.worker import WorkController

# Any in this module: apps, and options of workers

__all__ = ("TestWorkController", "setup_app_for_worker", "start_worker")

WORKER_LOGLEVEL: str = os.environ.get("WORKER_LOGLEVEL", "error")

test_worker_starting: Signal = Signal(name="test_worker_starting", providing_args=set())
test_worker_started: Signal = Signal(name="test_worker_started", providing_args={"worker", "consumer"})
test_worker_stopped: Signal = Signal(name="test_worker_stopped", providing_args={"worker"})


class TestWorkController(WorkController):
    """A worker that one can wait for."""

    __test__ = False  # it is no test, though its name begins like one's

    logger_queue: Any = None

    def on_before_init(self, **kwargs: Any) -> None:
        """Know whether it is ready, from the beginning."""
        self._ready = threading.Event()

    def on_consumer_ready(self, consumer: Any) -> None:
        """Tell that it is."""
        self._ready.set()
        test_worker_started.send(sender=self.app, worker=self, consumer=consumer)

    def ensure_started(self) -> None:
        """Wait until it is ready to take tasks.

        Raises:
            RuntimeError: It was not in time.
        """
        if not self._ready.wait(START_SECONDS):
            raise RuntimeError(f"The worker was not ready after {START_SECONDS:.0f} seconds.")


@contextmanager
def start_worker(
    app: Any,
    concurrency: int = 1,
    pool: str = "solo",
    loglevel: str | int = WORKER_LOGLEVEL,
    logfile: str | None = None,
    perform_ping_check: bool = True,
    ping_task_timeout: float = 10.0,
    shutdown_timeout: float = 10.0,
    **kwargs: Any,
) -> Iterator[Any]:
    """Run a worker in a thread as long as the block lasts; gives a `TestWorkController`.

    Args:
        app: Whose tasks to run.
        concurrency: How many at once.
        pool: What runs them: ``solo`` and ``threads`` see what the test sees.
        loglevel: What to log.
        logfile: Where to.
        perform_ping_check: Find out by a task whether it runs tasks.
        ping_task_timeout: Seconds for that.
        shutdown_timeout: Seconds for running tasks to end after the block.
        **kwargs: ``WorkController``, the class of the worker, and its options.

    Raises:
        RuntimeError: It did not start, or did not stop in time.
        AssertionError: It runs no tasks, or the app has not the task to find out.
    """
    test_worker_starting.send(sender=app)
    worker = None
    try:
        with _start_worker_thread(
            app,
            concurrency,
            pool,
            loglevel,
            logfile,
            perform_ping_check=perform_ping_check,
            shutdown_timeout=shutdown_timeout,
            **kwargs,
        ) as worker:
            if perform_ping_check:
                with allow_join_result():
                    assert app.tasks["celery.ping"].delay().get(timeout=ping_task_timeout) == "pong"
            yield worker
    finally:
        test_worker_stopped.send(sender=app, worker=worker)


@contextmanager
def _start_worker_thread(
    app: Any,
    concurrency: int = 1,
    pool: str = "solo",
    loglevel: str | int = WORKER_LOGLEVEL,
    logfile: str | None = None,
    WorkController: Any = TestWorkController,  # noqa: N803 - Celery's name
    perform_ping_check: bool = True,
    shutdown_timeout: float = 10.0,
    **kwargs: Any,
) -> Iterator[Any]:
    setup_app_for_worker(app, loglevel, logfile)
    if perform_ping_check:
        assert "celery.ping" in app.tasks, "import celery.contrib.testing.tasks, or leave out the ping check"
    kwargs.setdefault("without_heartbeat", True)
    kwargs.setdefault("without_mingle", True)
    kwargs.setdefault("without_gossip", True)
    kwargs.setdefault("hostname", None)
    with running(
        lambda: _Running(
            WorkController(
                app=app, concurrency=concurrency, pool=pool, loglevel=loglevel, logfile=logfile, **kwargs
            )
        ),
        shutdown_timeout,
    ) as thread:
        yield thread.controller
    if thread.hurried:
        raise RuntimeError(
            f"Worker thread failed to exit within the allocated timeout of {shutdown_timeout:g} s, and its "
            "tasks were ended. Consider raising `shutdown_timeout` if they take longer to execute."
        )


def setup_app_for_worker(app: Any, loglevel: str | int, logfile: str | None) -> None:
    """Make an app ready for a worker: finalized, the current one, with logs as its ``log`` has them."""
    app.finalize()
    app.set_current()
    app.set_default()
    if app.log_cls is not None:
        app.log.setup(loglevel=loglevel, logfile=logfile)


class _Running:
    """What runs a controller in a thread."""

    def __init__(self, controller: Any) -> None:
        self.controller = controller
        self.hurried = False  # it did not end by itself

    def run(self, on_ready: Callable[[], None]) -> int:
        """Run it."""
        self.controller.ready_callback = lambda consumer: on_ready()
        code: int = self.controller.start()
        return code

    def stop(self, how: str) -> None:
        """Ask it to stop."""
        if how == "cold":
            self.hurried = True
            self.controller.terminate()
        else:
            self.controller.stop()
