"""A worker inside the test's own process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from celeriac.app import Celeriac
from celeriac.ids import origin
from celeriac.node.options import NodeOptions
from celeriac.node.shutdown import How
from celeriac.node.worker import Worker

START_SECONDS = 30.0


class Runs(Protocol):
    """What can be run in a thread."""

    def run(self, on_ready: Callable[[], None]) -> int:
        """Work until told to stop; say when it is ready."""
        ...

    def stop(self, how: How) -> None:
        """Ask it to stop; called from another thread."""
        ...


R = TypeVar("R", bound=Runs)


@contextmanager
def start_worker(
    app: Celeriac,
    *,
    concurrency: int = 1,
    pool: str = "solo",
    shutdown_timeout: float = 10.0,
    hostname: str | None = None,
    **options: Any,  # Any: fields of NodeOptions
) -> Iterator[Worker]:
    """Run a worker in a thread as long as the block lasts; its tasks see what the test sees.

    Args:
        app: Whose tasks to run.
        concurrency: How many at once.
        pool: ``solo``, ``threads`` or ``prefork``; the last one forks the test's process.
        shutdown_timeout: Seconds that running tasks have after the block.
        hostname: The node's name.
        **options: Other fields of `celeriac.node.options.NodeOptions`.

    Raises:
        RuntimeError: The worker did not start, or did not stop in time.
    """
    alone = {"without_gossip": True, "without_mingle": True}  # as Celery's own helper for tests has it
    options = {**alone, **options}
    node = NodeOptions(hostname=hostname or f"{origin()}.test", concurrency=concurrency, pool=pool, **options)
    with running(lambda: Worker(app, node), shutdown_timeout) as worker:
        yield worker


@contextmanager
def running(make: Callable[[], R], shutdown_timeout: float) -> Iterator[R]:
    """Run something in a thread as long as the block lasts.

    Args:
        make: Makes it, in the thread: the solo pool runs tasks in the thread that makes it.
        shutdown_timeout: Seconds that it has to stop after the block, and again when it is told to hurry.

    Raises:
        RuntimeError: It did not start, or did not stop in time.
    """
    ready, over = threading.Event(), threading.Event()
    made: list[R] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            worker = make()
            made.append(worker)
            worker.run(ready.set)
        except BaseException as exc:  # noqa: BLE001 - raised below, in the test's thread
            failed.append(exc)
        finally:
            over.set()
            ready.set()

    thread = threading.Thread(target=work, name="celeriac-test-worker", daemon=True)
    thread.start()
    if not ready.wait(START_SECONDS):
        raise RuntimeError(f"The worker was not ready after {START_SECONDS:.0f} seconds.")
    if failed:
        raise RuntimeError("The worker did not start.") from failed[0]
    if over.is_set():  # the thread itself may still be alive, on its last lines
        raise RuntimeError("The worker has ended at once; its log says why.")
    (worker,) = made
    try:
        yield worker
    finally:
        worker.stop("warm")
        thread.join(shutdown_timeout)
        if thread.is_alive():
            worker.stop("cold")
            thread.join(shutdown_timeout)
    if failed:
        raise RuntimeError("The worker has failed.") from failed[0]
    if thread.is_alive():
        raise RuntimeError(f"The worker has not stopped within {shutdown_timeout:.0f} seconds.")
