"""The executor: what a child, a thread or the main thread does with a job."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import inspect
import logging
import os
from collections.abc import Callable
from typing import Any, TypeVar

from celeriac import context, followup, patience, states
from celeriac.app import Celeriac
from celeriac.context import Context
from celeriac.copies import COPY_HEADER, is_to_run
from celeriac.errors import (
    CodecError,
    ConfigError,
    InvalidTaskError,
    NotRegistered,
    Retry,
    SecurityError,
)
from celeriac.execute import narrator
from celeriac.execute.coroutines import CoroutineLimit, CoroutineRunner
from celeriac.execute.loss import ending_of
from celeriac.hooks import Hooks
from celeriac.message import Call, Finished, Job, Outcome, Part, Record
from celeriac.parameters import is_coroutine_function
from celeriac.pools.limits import Counting, SoftLimit
from celeriac.run import Ending, ErrorInfo, Runnable, run, run_async
from celeriac.saferepr import saferepr
from celeriac.wire.task import RESENT_HEADER, unpack_call

logger: logging.Logger = logging.getLogger("celery.worker.request")

R = TypeVar("R")

_FUNCTION = "celeriac.execute.function"  # loads pickle, which few workers need

# What `request.headers` leaves out: the headers that Celery itself knows.
_KNOWN_HEADERS = frozenset(
    [
        *("lang", "task", "id", "shadow", "eta", "expires", "group", "group_index", "retries", "timelimit"),
        *("root_id", "parent_id", "argsrepr", "kwargsrepr", "origin", "ignore_result", "compression"),
        *("replaced_task_nesting", "stamped_headers", "stamps", COPY_HEADER, RESENT_HEADER),
    ]
)


class Executor:
    """Runs the jobs of one slot, one after the other: `celeriac.pools.base.Runner`.

    1. decode the body
    2. bind the request
    3. run the task, with everything that every run has (`celeriac.run`), within its soft limit
    4. have done what follows (callbacks, chain, chord part) and the outcome encoded
    5. say how it ended in the log, and return the report

    As a `celeriac.run.Stage` it is the place of its runs.

    Args:
        app: The app, finalized.
        hostname: The node's name.
        own_process: Whether its process exists for this alone and ends with it.
        in_greenlet: Whether its jobs run in greenlets, where there can be no event loop.
    """

    def __init__(
        self, app: Celeriac, hostname: str, *, own_process: bool = False, in_greenlet: bool = False
    ) -> None:
        self.hooks: Hooks = app.hooks
        self._app = app
        self._hostname = hostname
        self._own_process = own_process
        self._in_greenlet = in_greenlet
        self._accept = app.codecs.accept_set(app.conf.accept_content)
        self._max_bytes: int = app.conf.worker_max_message_bytes
        self._coroutines = CoroutineRunner()
        self._limit: SoftLimit | None = None  # of the job that runs
        self._awaited: CoroutineLimit | None = None  # of a job that runs on an event loop
        self._follows = False  # there, whether something follows that has to be sent
        self._job: Job | None = None
        self._record: Record | None = None
        self._part: Part | None = None

    # --- a runner ------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Tell the hooks that this process is going to run tasks."""
        self.hooks.worker_process_init.send(sender=None)

    def end(self, exitcode: int) -> None:
        """Tell the hooks that it will not any more."""
        self.hooks.worker_process_shutdown.send(sender=None, pid=os.getpid(), exitcode=exitcode)

    def close(self) -> None:
        """Close the event loop of coroutines, and in a child what tasks have sent and stored through."""
        self._coroutines.close()
        if self._own_process:
            self._app.close()

    def run(self, job: Job, limit: SoftLimit | None) -> Finished:
        """Run a job to its end; whatever is an ``Exception`` ends up in the report."""
        if job.function is not None:
            return _call(job)
        prepared = self._prepare(job)
        if isinstance(prepared, Finished):
            return prepared
        task, request = prepared
        self._limit = limit
        try:
            ending = run(task, request, self)
        except MemoryError:
            raise
        except Exception as exc:  # noqa: BLE001 - wall: nothing that a task or a store does may end the child
            return self._broken(task, request, exc)
        return self._report(task, request, ending)

    def awaits(self, job: Job) -> bool:
        """Return whether a job is for `run_async`: its task is a coroutine function."""
        task = self._app.tasks.get(job.task)
        return task is not None and job.lost is None and is_coroutine_function(task.body())

    async def run_async(self, job: Job, limit: CoroutineLimit) -> Finished:
        """Run a job to its end, beside others; what waits for broker or store has threads."""
        prepared = self._prepare(job)
        if isinstance(prepared, Finished):
            return prepared
        task, request = prepared
        self._awaited = limit
        self._follows = bool(
            request.callbacks or request._steps_to_come() or request.chord or request.errbacks
        )
        try:
            ending = await run_async(task, request, self)
        except MemoryError:
            raise
        except Exception as exc:  # noqa: BLE001 - wall: as in `run`
            return self._broken(task, request, exc)
        return self._report(task, request, ending)

    def _prepare(self, job: Job) -> Finished | tuple[Any, Context]:  # Any: a Task of any parameters
        """Return what to run; or the report of a job that is not to be run as others are."""
        try:
            call = self._decode(job)
        except (CodecError, InvalidTaskError, SecurityError) as exc:
            return self._invalid(job, exc)
        request = self._bind(job, call)
        self._job, self._record, self._part = job, None, None
        try:
            task = self._app.tasks[job.task]
        except NotRegistered as exc:
            return self._unregistered(request, job, exc)
        copy = job.headers.get(COPY_HEADER)
        if copy is not None and not is_to_run(self._app, job.id, copy):
            return Finished(number=job.number, kind="ignore", record=None)
        if job.lost is not None:
            return self._join(task, request, job) if job.lost.joins else self._mourn(task, request, job)
        return task, request

    def _report(self, task: Any, request: Context, ending: Ending) -> Finished:
        """Say in the log how a job has ended, and return its report."""
        try:
            narrator.tell(task, request, ending)
        except Exception:  # noqa: BLE001 - wall: handlers of logs, and what they ask of the user's exception
            with contextlib.suppress(Exception):
                logger.error(
                    "Task %s[%s] has ended: %s, but not all could be logged",
                    task.name,
                    request.id,
                    ending.state,
                )
        assert self._job is not None
        finished = Finished(
            number=self._job.number,
            kind=ending.kind,
            record=self._record,
            runtime=ending.runtime,
            part=self._part,
        )
        if self._job.tells:
            self._add_reprs(finished, task, ending)
        if ending.kind == "failure" and task.dead_letter and request._retries_exhausted:
            finished.exhausted = True
            finished.exception_repr = saferepr(ending.exception)
        return finished

    # --- a stage -------------------------------------------------------------------------------------

    def started(self, task: Any, request: Context) -> None:  # Any: a Task of any parameters
        """Store STARTED, where the task wants that to be seen."""
        if task.track_started and not followup.is_ignored(task, request) and task.backend is not None:
            outcome = Outcome(
                id=request.id or "",
                state=states.STARTED,
                result={"pid": os.getpid(), "hostname": self._hostname},
                children=[],
                group_id=request.group,
                parent_id=request.parent_id,
                extended=followup.extended(task, request) if self._app.conf.result_extended else None,
            )
            patience.store(self._app, task.backend, [self._encode(outcome, request)])

    def call(self, body: Callable[[], Any]) -> Any:  # Any: the user's value
        """Call the body within its soft limit; drive a coroutine to its end."""
        if self._limit is None:
            value = body()
        else:
            with self._limit:
                value = body()
        if inspect.iscoroutine(value):
            assert self._job is not None
            if self._in_greenlet:
                value.close()
                raise ConfigError(
                    f"{self._job.task} is a coroutine function, and this worker's pool runs greenlets: they "
                    "share one thread, which can have no second event loop. Route it to a worker with "
                    "-P asyncio, threads or prefork."
                )
            seat = self._limit if isinstance(self._limit, Counting) else None
            return self._coroutines.run(value, self._job.soft_limit_seconds, seat)
        return value

    async def call_async(self, body: Callable[[], Any]) -> Any:  # Any: the user's value
        """Call the body, and wait for the coroutine that it returns, within its limits."""
        value = body()
        assert self._awaited is not None
        return await self._awaited.drive(value) if inspect.iscoroutine(value) else value

    async def started_async(self, task: Any, request: Context) -> None:  # Any: a Task of any parameters
        """Do as `started`, in another thread."""
        if task.track_started:
            await asyncio.to_thread(self.started, task, request)

    async def aside(self, function: Callable[[], R]) -> R:
        """Call a function that concludes: in another thread, if something follows."""
        return await asyncio.to_thread(function) if self._follows else function()

    def conclude(self, task: Runnable, request: Context, ending: Ending) -> None:
        """Do what follows from the ending; keep the record to store, and the part of a chord to count."""
        self._record, self._part = followup.conclude(self._app, task, request, ending)

    def internal_error(self, task: Runnable, request: Context, exc: Exception) -> None:
        """Say that one of the task's hooks has failed; its outcome stands."""
        narrator.tell_internal_error(self.hooks, task, request, exc)

    # --- steps ---------------------------------------------------------------------------------------

    def _decode(self, job: Job) -> Call:
        return unpack_call(
            job.body,
            job.content_type,
            job.content_encoding,
            job.headers.get("compression"),
            self._app.codecs,
            self._accept,
            self._max_bytes,
        )

    def _bind(self, job: Job, call: Call) -> Context:
        headers = job.headers
        request = Context()
        # Past the constructor: 0.7 µs instead of 3, and this is done for every task.
        attributes = request.__dict__
        attributes.update(headers)
        attributes["args"] = call.args
        attributes["kwargs"] = call.kwargs
        attributes["callbacks"] = call.callbacks
        attributes["errbacks"] = call.errbacks
        if call.remainder is None:
            attributes["chain"] = call.chain
        else:
            request._keep_undecoded(call.remainder)
        attributes["chord"] = call.chord
        attributes["called_directly"] = False
        attributes["retries"] = headers.get("retries") or 0
        attributes["hostname"] = self._hostname
        attributes["delivery_info"] = job.delivery_info
        attributes.setdefault("attempt", job.attempt)  # a header of the user's own comes first
        attributes["reply_to"] = job.reply_to
        attributes["correlation_id"] = job.correlation_id
        attributes["properties"] = {
            "correlation_id": job.correlation_id,
            "reply_to": job.reply_to,
            "priority": job.delivery_info["priority"],
            "delivery_info": job.delivery_info,
            **job.properties,
        }
        attributes["headers"] = (
            None
            if _KNOWN_HEADERS.issuperset(headers)
            else {name: value for name, value in headers.items() if name not in _KNOWN_HEADERS}
        )
        return request

    def _encode(self, outcome: Outcome, request: Context) -> Record:
        backend = self._app.backend
        assert backend is not None
        return backend.encode(
            outcome, reply_to=request.reply_to, correlation_id=request.correlation_id or request.id
        )

    def _add_reprs(self, finished: Finished, task: Any, ending: Ending) -> None:
        if ending.kind == "success":
            finished.result_repr = saferepr(ending.value, task.resultrepr_maxsize)
        elif ending.exception is not None:
            exception = ending.exception
            if isinstance(exception, Retry) and exception.exc is not None:
                exception = exception.exc  # why, which tells more
            finished.exception_repr = saferepr(exception)
            finished.traceback = ending.einfo.traceback if ending.einfo is not None else None

    def _join(self, task: Any, request: Context, job: Job) -> Finished:
        """Send the body of the chord that a task has completed; the task itself has long ended."""
        context.push(task, request)
        try:
            followup.join(self._app, request)
        except Exception as broken:  # noqa: BLE001 - wall
            narrator.tell_internal_error(self.hooks, task, request, broken)
        finally:
            context.pop()
        return Finished(number=job.number, kind="success", record=None)

    # --- what goes wrong -----------------------------------------------------------------------------

    def _invalid(self, job: Job, exc: Exception) -> Finished:
        """Report a message that is no call of a task that we have."""
        logger.error(
            "Task message %s for %s cannot be run: %r; it is kept as a dead letter", job.id, job.task, exc
        )
        request = Context(job.headers, reply_to=job.reply_to, correlation_id=job.correlation_id)
        record = self._failure(request, exc)
        return Finished(number=job.number, kind="invalid", record=record, exception_repr=repr(exc))

    def _unregistered(self, request: Context, job: Job, exc: NotRegistered) -> Finished:
        """Fail a call of a task that is not here, with everything that follows from it."""
        if job.lost is None:  # otherwise the node has said so
            logger.error(
                "Task message %s is for %s, which is not registered here; it is kept as a dead letter",
                job.id,
                job.task,
            )
        try:
            record = followup.fail_unregistered(self._app, request, exc)
        except Exception as broken:  # wall
            logger.exception("What follows from the failure of %s cannot be done: %r", job.id, broken)
            record = self._failure(request, exc)
        return Finished(number=job.number, kind="invalid", record=record, exception_repr=repr(exc))

    def _mourn(self, task: Any, request: Context, job: Job) -> Finished:
        """Record why a task was not run to its end, with everything that follows from it."""
        assert job.lost is not None
        state, exc = ending_of(job.lost)
        context.push(task, request)
        try:
            ending = Ending(kind="failure", state=state, value=exc, exception=exc)
            outcome = followup.outcome_of(self._app, task, request, ending)
            record = followup.mourn(self._app, task, request, outcome)
            if self.hooks.task_failure.receivers and state == states.FAILURE:
                self.hooks.task_failure.send(
                    task,
                    task_id=request.id,
                    exception=exc,
                    args=request.args,
                    kwargs=request.kwargs,
                    traceback="",
                    einfo=ErrorInfo((type(exc), exc, None)),
                )
        except Exception as broken:  # noqa: BLE001 - wall
            return self._broken(task, request, broken)
        finally:
            context.pop()
        return Finished(number=job.number, kind="failure", record=record, exception_repr=repr(exc))

    def _broken(self, task: Any, request: Context, exc: Exception) -> Finished:
        """Report that something around the task failed, so that its outcome is not known to anybody."""
        narrator.tell_internal_error(self.hooks, task, request, exc)
        assert self._job is not None
        record = None if followup.is_ignored(task, request) else self._failure(request, exc)
        return Finished(number=self._job.number, kind="failure", record=record, exception_repr=saferepr(exc))

    def _failure(self, request: Context, exc: Exception) -> Record | None:
        if self._app.backend is None:
            return None
        return self._encode(
            Outcome(
                id=request.id or "",
                state=states.FAILURE,
                result=exc,
                children=[],
                date_done=self._app.now().isoformat(),
                group_id=request.group,
                parent_id=request.parent_id,
            ),
            request,
        )


def _call(job: Job) -> Finished:
    finished: Finished = importlib.import_module(_FUNCTION).call(job)
    return finished
