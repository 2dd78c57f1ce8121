"""Runs the strategies of tasks, in a thread beside the worker."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final

from kombu.asynchronous.timer import Timer as Schedule

from celeriac.execute.function import unpack_value
from celeriac.execute.loss import ending_of
from celeriac.message import DeadLetter, Finished, Lost, Report, Requeue, Started
from celeriac.node.work import Work
from celery.concurrency.base import BasePool, PoolCall
from celery.utils.imports import symbol_by_name
from celery.worker.lent_message import LentMessage
from celery.worker.request import ExceptionInfo
from celery.worker.worker import WorkController

if TYPE_CHECKING:
    from celeriac.node.node import Node
    from celeriac.node.worker import Worker

# Any in this module: tasks, and what they make

__all__ = ("Strategies", "companion_of")

logger: logging.Logger = logging.getLogger("celery.worker.strategy")

_END_SECONDS: Final = 10.0  # for the thread to end


class Strategies:
    """Runs strategies; a `celeriac.node.companion.Companion` and a `celeriac.node.borrower.Borrower`.

    1. make the strategies before there is a loop; what one raises ends the worker
    2. in one thread: hand messages to them, call their timers, and what they want to be told of functions
    3. tell the node what they want: messages settled, functions called

    Args:
        worker: The worker.
        tasks: Those with strategies of their own, by name.
    """

    def __init__(self, worker: Worker, tasks: dict[str, Any]) -> None:
        self._worker = worker
        self._tasks = tasks
        self._handlers: dict[str, Callable[..., object]] = {}
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._schedule: Any = Schedule()  # kombu has no types; only looked at in the thread
        self._mourning = False  # what is let go of was held for a function that is lost
        self._consumer: Any = None
        self._node: Node | None = None
        self._thread = threading.Thread(target=self._live, name="celeriac-strategies", daemon=True)

    # --- a companion -------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Make the strategies, and begin: all is forked by now."""
        worker, app = self._worker, self._worker.app
        consumer = WorkController.of(worker).consumer
        pool = BasePool(worker.concurrency, lambda call: self._post(partial(self._start, call)))
        self._consumer = consumer.beside(pool, self._schedule)
        for name, task in self._tasks.items():
            self._handlers[name] = symbol_by_name(task.Strategy)(task, app, self._consumer)
        self._thread.start()

    def join(self, node: Node) -> None:
        """Borrow messages from now on."""
        self._node = node
        self._consumer.join(node)
        node.loans.borrower = self

    def end(self, *, cold: bool) -> None:
        """End; what was borrowed has gone back."""
        if self._thread.ident is None:
            return  # a strategy could not be made
        self._calls.put(None)
        self._thread.join(_END_SECONDS)

    # --- a borrower, on the loop --------------------------------------------------------------------------

    def wants(self, task: Any) -> bool:
        """Return whether a task has a strategy of its own."""
        return getattr(task, "name", None) in self._handlers

    def lend(self, work: Work) -> None:
        """See `celeriac.node.borrower.Borrower`."""
        self._calls.put(partial(self._hand_over, work))

    def _start(self, call: PoolCall) -> None:
        def hears(report: Report) -> None:
            if isinstance(report, Started):
                self._calls.put(partial(life.began, report))
            else:
                self._calls.put(partial(self._over, life, report))

        life = _Life(call)
        if not self._of_node().loans.call(call.name, call.packed, hears):
            logger.warning(
                "%s is not called any more, as the worker ends: the messages that it is for go back.",
                call.name,
            )

    # --- in the thread -------------------------------------------------------------------------------------

    def _live(self) -> None:
        entries = iter(self._schedule)
        while True:
            seconds, entry = next(entries)
            if entry:
                self._schedule.apply_entry(entry)
                continue
            try:
                call = self._calls.get(timeout=seconds)
            except Empty:
                continue
            if call is None:
                return
            try:
                call()
            except Exception:
                logger.exception("A strategy, or what it wanted to be called, has failed.")
            del call  # or what it holds would be held until the next one

    def _hand_over(self, work: Work) -> None:
        loans = self._of_node().loans
        message = LentMessage(
            work,
            self._worker.app,
            lambda lent, decided: self._post(partial(loans.settle, lent, decided)),
            lambda lent: self._post(partial(self._of_node().intake.run_after_all, lent)),
            self._let_go,
        )
        acknowledge, reject = message.ack_log_error, message.reject_log_error
        try:
            self._handlers[work.headers.task](
                message, None, acknowledge, reject, self._consumer.on_task_message
            )
        except Exception as exc:
            logger.exception(
                "The strategy of %s cannot take message %s; it is kept as a dead letter.",
                work.headers.task,
                work.headers.id,
            )
            message.settle(DeadLetter(f"The strategy of its task has failed: {exc!r}"))

    def _let_go(self, work: Work) -> None:
        """Settle a message that nobody can settle any more."""
        if self._mourning:
            self._post(partial(self._of_node().loans.settle, work, Requeue()))
        else:
            self._post(partial(self._settle_forgotten, work))

    def _settle_forgotten(self, work: Work) -> None:
        decided = DeadLetter("The strategy of its task has let go of it without settling it.")
        if self._of_node().loans.settle(work, decided):
            logger.error(
                "The strategy of %s has let go of message %s unsettled; it is kept as a dead letter.",
                work.headers.task,
                work.headers.id,
            )

    def _over(self, life: _Life, report: Finished | Lost) -> None:
        try:
            life.ended(report)
        finally:
            with self._mourn():
                life.call = None
            self._post(partial(self._of_node().loans.over, report))

    @contextmanager
    def _mourn(self) -> Iterator[None]:
        self._mourning = True
        try:
            yield
        finally:
            self._mourning = False

    def _of_node(self) -> Node:
        assert self._node is not None, "the worker does not run yet"
        return self._node

    def _post(self, call: Callable[[], object]) -> None:
        self._of_node().post(call)


class _Life:
    """What is told of the life of one function.

    Args:
        call: Who hears it; None when it is over.
    """

    def __init__(self, call: PoolCall) -> None:
        self.call: PoolCall | None = call
        self._begun = False

    def began(self, report: Started) -> None:
        """Tell that it has begun, once."""
        self._accept(report.pid, report.at)

    def ended(self, report: Finished | Lost) -> None:
        """Tell how it has ended."""
        assert self.call is not None
        if isinstance(report, Finished):
            self._accept(report.pid, report.started_at)
            if report.kind == "success":
                self.call.callback(unpack_value(report))
                return
            error: BaseException = RuntimeError(report.exception_repr)
            traceback = report.traceback
        else:
            if report.started:
                self._accept(report.pid, time.time())
            error, traceback = ending_of(report)[1], None
        if self.call.error_callback is not None:
            self.call.error_callback(ExceptionInfo(error, traceback))
        else:
            logger.error("%s has failed: %r", self.call.name, error, extra={"data": {"name": self.call.name}})

    def _accept(self, pid: int, at: float) -> None:
        if not self._begun and self.call is not None:
            self._begun = True
            self.call.accept_callback(pid, time.monotonic() - (time.time() - at))


def companion_of(worker: Worker) -> Strategies:
    """Return what runs the strategies of a worker's tasks, of which at least one has its own."""
    found = {name: task for name, task in worker.app.tasks.items() if task.Strategy}
    own = {name: task for name, task in found.items() if task.Strategy != "celery.worker.strategy:default"}
    return Strategies(worker, own)
