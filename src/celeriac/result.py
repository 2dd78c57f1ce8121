"""What a client holds of a task that it has sent: its state and, once there is one, its result."""

from __future__ import annotations

import contextlib
import datetime
import importlib
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar, cast

from celeriac import context, states
from celeriac.context import allow_join_result, denied_join_result
from celeriac.errors import IncompleteStream, TimeoutError
from celeriac.message import Outcome
from celeriac.ports import ResultBackend

__all__ = [
    "AsyncResult",
    "EagerResult",
    "GroupResult",
    "ResultBase",
    "ResultSet",
    "allow_join_result",
    "assert_will_not_block",
    "denied_join_result",
    "result_from_tuple",
]

R = TypeVar("R")

WOULD_BLOCK = (
    "Never call result.get() within a task! It holds a slot of the worker that the other task may need. "
    "Use a chain or a callback, or wrap the call in allow_join_result() when you know that it cannot block."
)
TIMED_OUT = "The operation timed out."

NO_BACKEND = "No result backend is configured. Set result_backend to read results."


def assert_will_not_block() -> None:
    """Raise RuntimeError when waiting for a result here could wait for ever, that is: inside a task."""
    if context.join_blocks():
        raise RuntimeError(WOULD_BLOCK)


class ResultBase:
    """Root of the results: of one task, of many, and of one that ran right here."""

    parent: ResultBase | None = None  # of the step before in a chain
    id: str = ""

    def as_tuple(self) -> Any:  # Any: nested result tuples
        """Return it as nested tuples that can be stored; `result_from_tuple` reads them back."""
        raise NotImplementedError

    def ready(self) -> bool:
        """Return whether there will be no further news of it."""
        raise NotImplementedError


class AsyncResult(ResultBase, Generic[R]):
    """The state and result of one task, by id.

    It is awaitable: ``value = await result``.

    Args:
        id: The task's id.
        backend: Where its result is kept; the app's when not given.
        task_name: The task's name, if known.
        app: The app; the class made by ``app.AsyncResult`` has it already.
        parent: The result of the step before it in a chain.
    """

    app: Any = None  # Any: a Celeriac, whose module imports this one
    default_app: ClassVar[Callable[[], Any] | None] = None  # asked when there is no app
    TimeoutError = TimeoutError

    def __init__(
        self,
        id: str,
        backend: ResultBackend | None = None,
        task_name: str | None = None,
        app: Any = None,
        parent: ResultBase | None = None,
    ) -> None:
        if id is None:
            raise ValueError(f"AsyncResult requires valid id, not {type(id)}")
        if app is not None:
            self.app = app
        self.id = id
        self.parent = parent
        self.ignored = False
        self._backend = backend
        self._name = task_name
        self._outcome: Outcome | None = None
        self._then: list[tuple[Callable[[Any], Any], Callable[[Any], Any] | None]] = []

    # --- waiting --------------------------------------------------------------------------------------

    def get(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,
        no_ack: bool = True,
        follow_parents: bool = True,
        callback: Callable[[str, Any], Any] | None = None,
        on_message: Callable[[dict[str, Any]], Any] | None = None,
        on_interval: Callable[[], Any] | None = None,
        disable_sync_subtasks: bool = True,
        EXCEPTION_STATES: Iterable[str] = states.EXCEPTION_STATES,  # noqa: N803 - Celery's name
        PROPAGATE_STATES: Iterable[str] = states.PROPAGATE_STATES,  # noqa: N803 - Celery's name
    ) -> R:
        """Wait until the task is ready and return its result.

        Args:
            timeout: Seconds to wait at most.
            propagate: Raise the task's exception; False returns it.
            interval: Seconds between two calls of ``on_interval``. Waiting itself does not poll.
            no_ack: Accepted for Celery's sake, without effect.
            follow_parents: In a chain, raise the exception of an earlier step too.
            callback: Called with the id and the result.
            on_message: Called with what the backend had, as a dict.
            on_interval: Called while waiting.
            disable_sync_subtasks: Refuse to wait inside a task.
            EXCEPTION_STATES: Accepted for Celery's sake, without effect.
            PROPAGATE_STATES: The states that ``propagate`` raises for.

        Raises:
            TimeoutError: (celeriac.errors) It took longer than ``timeout``.
            RuntimeError: Called inside a task.
            Exception: What the task raised.
        """
        if self.ignored:
            return cast(R, None)
        if disable_sync_subtasks:
            assert_will_not_block()
        if self._outcome is None:
            follow = propagate and follow_parents and self.parent is not None
            parents = self._parents_to_watch() if follow else {}
            for outcome in _wait_in_slices(
                self._reader(), [*parents, self.id], timeout, interval, on_interval
            ):
                if outcome.id == self.id:
                    self._take(outcome)
                    break
                parents[outcome.id]._take(outcome)
                parents[outcome.id].maybe_throw()
            if follow and self._outcome is not None and self._outcome.state in PROPAGATE_STATES:
                self._throw_parents_error()
        outcome = self._known()
        if on_message is not None:
            on_message(_as_meta(outcome))
        if propagate and outcome.state in PROPAGATE_STATES:
            self.maybe_throw(callback=callback)
        elif callback is not None:
            callback(self.id, outcome.result)
        return cast(R, outcome.result)

    wait = get

    def __await__(self) -> Generator[Any, None, R]:
        """Wait without blocking the loop; raises what the task raised."""
        if self.ignored:
            return cast(R, None)
        assert_will_not_block()
        if self._outcome is None:
            # Loaded here because asyncio costs 25 ms of every client's start; who awaits has it already.
            waiting = importlib.import_module("celeriac.awaiting")
            self._take((yield from waiting.outcome_of(self._reader(), self.id).__await__()))
        self.maybe_throw()
        return cast(R, self.result)

    def ready(self) -> bool:
        """Return whether the state is final."""
        return self.state in states.READY_STATES

    def successful(self) -> bool:
        """Return whether the task has succeeded."""
        return self.state == states.SUCCESS

    def failed(self) -> bool:
        """Return whether the task has failed."""
        return self.state == states.FAILURE

    def maybe_throw(self, propagate: bool = True, callback: Callable[[str, Any], Any] | None = None) -> Any:
        """Raise the task's exception when its state says so, else return its result."""
        outcome = self._meta()
        if outcome.state in states.PROPAGATE_STATES and propagate:
            self.throw(outcome.result, self._to_remote_traceback(outcome.traceback))
        if callback is not None:
            callback(self.id, outcome.result)
        return outcome.result

    maybe_reraise = maybe_throw

    def throw(self, *args: Any, **kwargs: Any) -> None:
        """Raise an exception as this result does."""
        value = args[0] if args else self.result
        raise _as_exception(value)

    def then(
        self,
        callback: Callable[[Any], Any],
        on_error: Callable[[Any], Any] | None = None,
        weak: bool = False,
    ) -> AsyncResult[R]:
        """Call back with this result once its outcome is seen here (by ``get``, ``ready``, ``await``)."""
        self._then.append((callback, on_error))
        if self._outcome is not None:
            self._call_back(self._outcome)
        return self

    def forget(self) -> None:
        """Remove the result, and those of the steps before it, from the backend."""
        self._outcome = None
        if self.parent is not None and hasattr(self.parent, "forget"):
            self.parent.forget()
        self._reader().forget([self.id])

    # --- what is known --------------------------------------------------------------------------------

    @property
    def state(self) -> str:
        """The state now; PENDING when nothing is known of the id."""
        return self._meta().state

    @property
    def status(self) -> str:
        """The state now."""
        return self.state

    @property
    def result(self) -> Any:  # Any: the task's value, its exception, or the meta of a custom state
        """The return value, or the exception, or what ``update_state`` was given."""
        return self._meta().result

    @property
    def info(self) -> Any:  # Any: as result
        """The result now."""
        return self.result

    @property
    def traceback(self) -> str | None:
        """The traceback of a failed task as text."""
        return self._meta().traceback

    @property
    def children(self) -> list[ResultBase] | None:
        """The results of the tasks that this one has sent; None while that is not known."""
        children = self._meta().children
        if children is None:
            return None
        return [result_from_tuple(child, self.app) for child in children]

    @property
    def date_done(self) -> datetime.datetime | None:
        """When it became ready."""
        done = self._meta().date_done
        return datetime.datetime.fromisoformat(done) if isinstance(done, str) else done

    @property
    def name(self) -> Any:
        """The task's name, when the setting ``result_extended`` was on."""
        return self._extended("name") or self._name

    @property
    def args(self) -> Any:
        """Its positional arguments, when the setting ``result_extended`` was on."""
        return self._extended("args")

    @property
    def kwargs(self) -> Any:
        """Its keyword arguments, when the setting ``result_extended`` was on."""
        return self._extended("kwargs")

    @property
    def worker(self) -> str | None:
        """Who ran it, when the setting ``result_extended`` was on."""
        return cast("str | None", self._extended("worker"))

    @property
    def retries(self) -> int | None:
        """How often it was retried, when the setting ``result_extended`` was on."""
        return cast("int | None", self._extended("retries"))

    @property
    def queue(self) -> str | None:
        """The queue it came from, when the setting ``result_extended`` was on."""
        return cast("str | None", self._extended("queue"))

    @property
    def task_id(self) -> str:
        """The task's id."""
        return self.id

    @task_id.setter
    def task_id(self, id: str) -> None:
        self.id = id

    @property
    def backend(self) -> ResultBackend | None:
        """Where the result is kept; None when no backend is configured."""
        if self._backend is not None:
            return self._backend
        app = self._app()
        return cast("ResultBackend | None", app.backend if app is not None else None)

    @backend.setter
    def backend(self, backend: ResultBackend | None) -> None:
        self._backend = backend

    @property
    def supports_native_join(self) -> bool:
        """Whether many results can be waited for at once; always."""
        return True

    # --- its place among other results ----------------------------------------------------------------

    def revoke(
        self,
        connection: Any = None,
        terminate: bool = False,
        signal: str | None = None,
        wait: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Tell all workers to ignore the task, or with ``terminate`` to end it."""
        self._app().control.revoke(
            self.id, connection=connection, terminate=terminate, signal=signal, reply=wait, timeout=timeout
        )

    def revoke_by_stamped_headers(
        self,
        headers: Mapping[str, Any],
        connection: Any = None,
        terminate: bool = False,
        signal: str | None = None,
        wait: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Tell all workers to ignore the tasks with one of these stamps."""
        self._app().control.revoke_by_stamped_headers(
            headers, connection=connection, terminate=terminate, signal=signal, reply=wait, timeout=timeout
        )

    def as_tuple(self) -> Any:
        """Return ``((id, parent tuple or None), None)``."""
        return (self.id, self.parent.as_tuple() if self.parent is not None else None), None

    def as_list(self) -> list[str]:
        """Return the ids of this result and of those before it."""
        before = self.parent.as_list() if isinstance(self.parent, (AsyncResult, GroupResult)) else []
        return [self.id, *before]

    def collect(self, intermediate: bool = False, **kwargs: Any) -> Iterator[tuple[ResultBase, Any]]:
        """Yield this result and all below it with their values, as they become ready."""
        for _, node in self.iterdeps(intermediate=intermediate):
            yield node, cast(Any, node).get(**kwargs)

    def get_leaf(self) -> Any:
        """Return the value of the last result below this one."""
        value = None
        for _, node in self.iterdeps():
            value = cast(Any, node).get()
        return value

    def iterdeps(self, intermediate: bool = False) -> Iterator[tuple[ResultBase | None, ResultBase]]:
        """Yield (parent, result) for this result and all below it, breadth first.

        Raises:
            IncompleteStream: One is not ready; not with ``intermediate``.
        """
        line: deque[tuple[ResultBase | None, ResultBase]] = deque([(None, self)])
        while line:
            parent, node = line.popleft()
            yield parent, node
            if node.ready():
                line.extend((node, child) for child in getattr(node, "children", None) or ())
            elif not intermediate:
                raise IncompleteStream()

    def build_graph(self, intermediate: bool = False) -> dict[ResultBase, list[ResultBase]]:
        """Return who sent whom: every result below this one, with those that wait on it."""
        graph: dict[ResultBase, list[ResultBase]] = {}
        for parent, node in self.iterdeps(intermediate=intermediate):
            graph.setdefault(node, [])
            if parent is not None:
                graph[parent].append(node)
        return graph

    @property
    def graph(self) -> dict[ResultBase, list[ResultBase]]:
        """The results below this one, as `build_graph` has them."""
        return self.build_graph()

    def __str__(self) -> str:
        """Return the id."""
        return str(self.id)

    def __repr__(self) -> str:
        """Name the class and the id."""
        return f"<{_public_name(self)}: {self.id}>"

    def __hash__(self) -> int:
        """Hash the id."""
        return hash(self.id)

    def __eq__(self, other: object) -> bool:
        """Compare by id, with results and with text."""
        if isinstance(other, AsyncResult):
            return bool(other.id == self.id)
        if isinstance(other, str):
            return other == self.id
        return NotImplemented

    def __copy__(self) -> AsyncResult[R]:
        """Return another handle on the same task."""
        return type(self)(self.id, self._backend, self._name, self.app, self.parent)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the id and the parent; the app is found again where it is unpickled."""
        return _unpickle, (self.id, self._name, self.parent)

    # --- inside ---------------------------------------------------------------------------------------

    def _app(self) -> Any:
        if self.app is None and AsyncResult.default_app is not None:
            return AsyncResult.default_app()
        return self.app

    def _reader(self) -> ResultBackend:
        backend = self.backend
        if backend is None:
            raise NotImplementedError(NO_BACKEND)
        return backend

    def _meta(self) -> Outcome:
        if self._outcome is not None:
            return self._outcome
        outcome = self._reader().fetch([self.id]).get(self.id)
        if outcome is None:
            return Outcome(id=self.id, state=states.PENDING)
        if outcome.state in states.READY_STATES:
            self._take(outcome)
        return outcome

    def _known(self) -> Outcome:
        if self._outcome is None:  # the backend ended its wait without this one's outcome
            raise TimeoutError(TIMED_OUT)
        return self._outcome

    def _take(self, outcome: Outcome) -> None:
        self._outcome = outcome
        if self._then:
            self._call_back(outcome)

    def _call_back(self, outcome: Outcome) -> None:
        waiting, self._then = self._then, []
        for callback, on_error in waiting:
            if outcome.state == states.SUCCESS:
                callback(self)
            elif on_error is not None:
                on_error(outcome.result)

    def _extended(self, name: str) -> Any:
        return (self._meta().extended or {}).get(name)

    def _parents(self) -> Iterator[ResultBase]:
        node = self.parent
        while node is not None:
            yield node
            node = node.parent

    def _parents_to_watch(self) -> dict[str, AsyncResult[Any]]:
        return {leaf.id: leaf for parent in self._parents() for leaf in _leaves(parent)}

    def _throw_parents_error(self) -> None:
        for parent in reversed(list(self._parents())):
            for leaf in _leaves(parent):
                leaf.maybe_throw()

    def _to_remote_traceback(self, text: str | None) -> str | None:
        return text


class EagerResult(AsyncResult[R]):
    """The result of a task that ran right here.

    Args:
        id: The task's id.
        ret_value: What it returned or raised.
        state: Its state.
        traceback: The traceback as text, when it failed.
        name: The task's name.
    """

    def __init__(
        self, id: Any, ret_value: Any, state: str, traceback: str | None = None, name: str | None = None
    ) -> None:
        self.id = id
        self.parent = None
        self.ignored = False
        self._backend = None
        self._name = name
        self._then = []
        self._outcome = Outcome(id=id or "", state=state, result=ret_value, traceback=traceback)

    def get(  # type: ignore[override]  # everything else that AsyncResult takes is accepted and unused
        self, timeout: float | None = None, propagate: bool = True, disable_sync_subtasks: bool = True, **_: Any
    ) -> R:
        """Return the result, or raise what the task raised."""
        if disable_sync_subtasks:
            assert_will_not_block()
        outcome = self._known()
        if outcome.state in states.PROPAGATE_STATES and propagate:
            raise _as_exception(outcome.result)
        return cast(R, outcome.result)

    wait = get  # type: ignore[assignment]

    def forget(self) -> None:
        """Do nothing: it is kept nowhere."""

    def revoke(self, *args: Any, **kwargs: Any) -> None:
        """Say REVOKED from now on."""
        self._known().state = states.REVOKED

    @property
    def children(self) -> list[ResultBase] | None:
        """Not known of tasks that ran here: None."""
        return None

    @property
    def backend(self) -> ResultBackend | None:
        """Nowhere: None."""
        return None

    @property
    def supports_native_join(self) -> bool:
        """Whether it can be waited for with others at once; there is nothing to wait for."""
        return False

    def __copy__(self) -> EagerResult[R]:
        """Return another of the same."""
        return type(self)(*self.__reduce__()[1])

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle what it knows."""
        outcome = self._known()
        return EagerResult, (self.id, outcome.result, outcome.state, outcome.traceback, self._name)

    def __repr__(self) -> str:
        """Name the class and the id."""
        return f"<EagerResult: {self.id}>"

    def _meta(self) -> Outcome:
        return self._known()


class ResultSet(ResultBase):
    """Several results, in order.

    Args:
        results: The results.
        app: The app; the class made by ``app.ResultSet`` has it already.
        ready_barrier: Accepted for Celery's sake, without effect.
    """

    app: Any = None  # Any: a Celeriac, whose module imports this one

    def __init__(self, results: Iterable[Any], app: Any = None, ready_barrier: Any = None) -> None:
        if app is not None:
            self.app = app
        self.results: list[Any] = list(results)  # Any: AsyncResult, EagerResult or GroupResult

    def add(self, result: Any) -> None:
        """Add a result, unless it is there."""
        if result not in self.results:
            self.results.append(result)

    def remove(self, result: Any) -> None:
        """Remove a result, given by id or itself.

        Raises:
            KeyError: It is not there.
        """
        for index, existing in enumerate(self.results):
            if existing == result:
                del self.results[index]
                return
        raise KeyError(result)

    def discard(self, result: Any) -> None:
        """Remove a result if it is there."""
        with contextlib.suppress(KeyError):
            self.remove(result)

    def update(self, results: Iterable[Any]) -> None:
        """Add those that are not there yet."""
        for result in results:
            self.add(result)

    def clear(self) -> None:
        """Remove all."""
        self.results[:] = []

    def successful(self) -> bool:
        """Return whether all have succeeded."""
        return self._all(lambda result: result.successful())

    def failed(self) -> bool:
        """Return whether any has failed."""
        return self._any(lambda result: result.failed())

    def ready(self) -> bool:
        """Return whether all are ready."""
        return self._all(lambda result: result.ready())

    def waiting(self) -> bool:
        """Return whether any is not ready."""
        return self._any(lambda result: not result.ready())

    def completed_count(self) -> int:
        """Return how many have succeeded."""
        self._look()
        return sum(int(result.successful()) for result in self.results)

    def maybe_throw(self, callback: Callable[[str, Any], Any] | None = None, propagate: bool = True) -> None:
        """Raise the exception of the first that has failed."""
        for result in self.results:
            result.maybe_throw(callback=callback, propagate=propagate)

    maybe_reraise = maybe_throw

    def forget(self) -> None:
        """Remove all from the backend."""
        for result in self.results:
            result.forget()

    def revoke(
        self,
        connection: Any = None,
        terminate: bool = False,
        signal: str | None = None,
        wait: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Tell all workers to ignore these tasks."""
        self.app.control.revoke(
            [leaf.id for leaf in _leaves(self)],
            connection=connection,
            terminate=terminate,
            signal=signal,
            reply=wait,
            timeout=timeout,
        )

    def get(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,
        callback: Callable[[str, Any], Any] | None = None,
        no_ack: bool = True,
        on_message: Callable[[dict[str, Any]], Any] | None = None,
        disable_sync_subtasks: bool = True,
        on_interval: Callable[[], Any] | None = None,
    ) -> list[Any]:
        """Wait for all and return their values in order; with ``callback``, call it with each instead.

        Raises:
            TimeoutError: (celeriac.errors) Not all were ready within ``timeout`` seconds.
            RuntimeError: Called inside a task.
            Exception: What the first task to fail has raised, with ``propagate``.
        """
        if disable_sync_subtasks:
            assert_will_not_block()
        awaited = {leaf.id: leaf for leaf in _leaves(self) if leaf._outcome is None and not leaf.ignored}
        if awaited:
            backend = next(iter(awaited.values()))._reader()
            for outcome in _wait_in_slices(backend, list(awaited), timeout, interval, on_interval):
                result = awaited.pop(outcome.id)
                result._take(outcome)
                if on_message is not None:
                    on_message(_as_meta(outcome))
                if propagate:
                    result.maybe_throw()
        return self._values(propagate, callback)

    join = get

    def join_native(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,
        callback: Callable[[str, Any], Any] | None = None,
        no_ack: bool = True,
        on_message: Callable[[dict[str, Any]], Any] | None = None,
        on_interval: Callable[[], Any] | None = None,
        disable_sync_subtasks: bool = True,
    ) -> list[Any]:
        """Do what `get` does; Celery has a second name for it."""
        return self.get(
            timeout, propagate, interval, callback, no_ack, on_message, disable_sync_subtasks, on_interval
        )

    def iter_native(
        self,
        timeout: float | None = None,
        interval: float = 0.5,
        no_ack: bool = True,
        on_message: Callable[[dict[str, Any]], Any] | None = None,
        on_interval: Callable[[], Any] | None = None,
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield (id, meta) of each as it becomes ready."""
        leaves = {leaf.id: leaf for leaf in _leaves(self)}
        waited = [id for id, leaf in leaves.items() if leaf._outcome is None]
        for id, leaf in leaves.items():
            if leaf._outcome is not None:
                yield id, _as_meta(leaf._outcome)
        if waited:
            for outcome in _wait_in_slices(self.backend, waited, timeout, interval, on_interval):
                leaves[outcome.id]._take(outcome)
                meta = _as_meta(outcome)
                if on_message is not None:
                    on_message(meta)
                yield outcome.id, meta

    def then(
        self,
        callback: Callable[[Any], Any],
        on_error: Callable[[Any], Any] | None = None,
        weak: bool = False,
    ) -> ResultSet:
        """Call back with this set once the outcome of every member is seen here."""

        def when_all(_: Any) -> None:
            if all(leaf._outcome is not None for leaf in _leaves(self)):
                callback(self)

        for leaf in _leaves(self):
            leaf.then(when_all, on_error)
        return self

    def __await__(self) -> Generator[Any, None, list[Any]]:
        """Wait for all without blocking the loop."""
        values = []
        waiting = importlib.import_module("celeriac.awaiting")  # as in AsyncResult: asyncio is not for all
        pending = [leaf for leaf in _leaves(self) if leaf._outcome is None and not leaf.ignored]
        if pending:
            assert_will_not_block()
            outcomes = yield from waiting.outcomes_of(
                pending[0]._reader(), [leaf.id for leaf in pending]
            ).__await__()
            for leaf in pending:
                leaf._take(outcomes[leaf.id])
        for result in self.results:
            values.append((yield from result.__await__()))
        return values

    @property
    def supports_native_join(self) -> bool:
        """Whether all can be waited for at once; always."""
        return True

    @property
    def backend(self) -> ResultBackend:
        """Where the results are kept."""
        for leaf in _leaves(self):
            return leaf._reader()
        if self.app is None or self.app.backend is None:
            raise NotImplementedError(NO_BACKEND)
        return cast(ResultBackend, self.app.backend)

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the results."""
        return iter(self.results)

    def __getitem__(self, index: int) -> Any:
        """Return a result by position."""
        return self.results[index]

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.results)

    def __eq__(self, other: object) -> bool:
        """Compare the results."""
        if isinstance(other, ResultSet):
            return other.results == self.results
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]  # it can be changed

    def __repr__(self) -> str:
        """List the ids."""
        return f"<{_public_name(self)}: [{', '.join(str(result.id) for result in self.results)}]>"

    def _values(self, propagate: bool, callback: Callable[[str, Any], Any] | None) -> list[Any]:
        values = []
        for result in self.results:
            value = result.get(propagate=propagate, disable_sync_subtasks=False)
            if callback is None:
                values.append(value)
            else:
                callback(result.id, value)
        return values

    def _look(self) -> None:
        """Fetch what is not known yet, all at once."""
        unknown = {leaf.id: leaf for leaf in _leaves(self) if leaf._outcome is None}
        if len(unknown) > 1:
            for id, outcome in self.backend.fetch(list(unknown)).items():
                if outcome.state in states.READY_STATES:
                    unknown[id]._take(outcome)

    def _all(self, holds: Callable[[Any], bool]) -> bool:
        self._look()
        return all(holds(result) for result in self.results)

    def _any(self, holds: Callable[[Any], bool]) -> bool:
        self._look()
        return any(holds(result) for result in self.results)


class GroupResult(ResultSet):
    """The results of a group, in order, with an id to save them under.

    Args:
        id: The group's id.
        results: The results of its members.
        parent: The result of the step before it in a chain.
    """

    def __init__(
        self,
        id: str | None = None,
        results: Iterable[Any] | None = None,
        parent: ResultBase | None = None,
        app: Any = None,
        **kwargs: Any,
    ) -> None:
        self.id = cast(str, id)
        self.parent = parent
        super().__init__(results or (), app=app, **kwargs)

    def save(self, backend: ResultBackend | None = None) -> None:
        """Keep the ids under the group's id, for `restore`."""
        (backend or self._store()).save_group(self.id, self.as_tuple())

    def delete(self, backend: ResultBackend | None = None) -> None:
        """Remove what `save` has kept."""
        (backend or self._store()).delete_group(self.id)

    @classmethod
    def restore(cls, id: str, backend: ResultBackend | None = None, app: Any = None) -> GroupResult | None:
        """Return a saved group, or None when there is none of that id."""
        home = app if app is not None else cls.app
        if home is None and AsyncResult.default_app is not None:
            home = AsyncResult.default_app()
        store = backend if backend is not None else (home.backend if home is not None else None)
        if store is None:
            raise NotImplementedError(NO_BACKEND)
        shape = store.restore_group(id)
        return cast("GroupResult | None", None if shape is None else result_from_tuple(shape, home))

    @property
    def children(self) -> list[Any]:
        """The results of the members."""
        return self.results

    def as_tuple(self) -> Any:
        """Return ``((id, parent tuple or None), [member tuples])``."""
        parent = self.parent.as_tuple() if self.parent is not None else None
        return (self.id, parent), [result.as_tuple() for result in self.results]

    def as_list(self) -> list[str]:
        """Return the id of the group, then those of its members."""
        return [self.id, *(id for result in self.results for id in result.as_list())]

    def __bool__(self) -> bool:
        """Return whether it has an id or members."""
        return bool(self.id or self.results)

    def __eq__(self, other: object) -> bool:
        """Compare id, members and parent, or the id with text."""
        if isinstance(other, GroupResult):
            return (
                other.id == self.id and other.results == self.results and bool(other.parent == self.parent)
            )
        if isinstance(other, str):
            return other == self.id
        return NotImplemented

    def __hash__(self) -> int:
        """Hash the id."""
        return hash(self.id)

    def __str__(self) -> str:
        """Return the id."""
        return str(self.id)

    def __repr__(self) -> str:
        """Name the group and list the ids of its members."""
        return f"<GroupResult: {self.id} [{', '.join(str(result.id) for result in self.results)}]>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the ids."""
        return GroupResult, (self.id, self.results, self.parent)

    def _store(self) -> ResultBackend:
        return self.backend


def result_from_tuple(shape: Any, app: Any = None) -> ResultBase:  # Any: nested result tuples; a Celeriac
    """Return the result that `ResultBase.as_tuple` has described; a result is returned as it is."""
    if isinstance(shape, ResultBase):
        return shape
    head, members = shape
    id, above = head if isinstance(head, (list, tuple)) else (head, None)
    parent = result_from_tuple(above, app) if above else None
    if members is not None:
        return GroupResult(id, [result_from_tuple(member, app) for member in members], parent, app=app)
    make = app.AsyncResult if app is not None else AsyncResult
    return cast(ResultBase, make(id, parent=parent))


def _leaves(result: ResultBase) -> Iterator[AsyncResult[Any]]:
    if isinstance(result, ResultSet):
        for member in result.results:
            yield from _leaves(member)
    elif isinstance(result, AsyncResult) and not isinstance(result, EagerResult):
        yield result


def _wait_in_slices(
    backend: ResultBackend,
    ids: Sequence[str],
    timeout: float | None,
    interval: float,
    on_interval: Callable[[], Any] | None,
) -> Iterator[Outcome]:
    """Yield outcomes as they come, and call ``on_interval`` every ``interval`` seconds in between."""
    if on_interval is None:
        yield from backend.wait(ids, timeout)
        return
    pending = list(ids)
    end = None if timeout is None else time.monotonic() + timeout
    while pending:
        remaining = interval if end is None else min(interval, end - time.monotonic())
        if remaining <= 0:
            raise TimeoutError(TIMED_OUT)
        try:
            for outcome in backend.wait(pending, remaining):
                pending = [id for id in pending if id != outcome.id]
                yield outcome
        except TimeoutError:
            on_interval()


def _as_meta(outcome: Outcome) -> dict[str, Any]:
    return {
        "task_id": outcome.id,
        "status": outcome.state,
        "result": outcome.result,
        "traceback": outcome.traceback,
        "children": outcome.children,
        "date_done": outcome.date_done,
        **(outcome.extended or {}),
    }


def _as_exception(value: Any) -> BaseException:
    if isinstance(value, BaseException):
        return value.with_traceback(None)  # or every raising of it would add its frames to the same object
    return Exception(value)


def _public_name(result: ResultBase) -> str:
    return next((c.__name__ for c in type(result).__mro__ if c.__module__ == __name__), "AsyncResult")


def _unpickle(id: str, name: str | None, parent: ResultBase | None) -> AsyncResult[Any]:
    return AsyncResult(id, task_name=name, parent=parent)
