"""The result of one task that was sent away."""

from __future__ import annotations

import datetime
import importlib
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Generic, cast

from celeriac import patience, states
from celeriac.errors import IncompleteStream, TimeoutError  # noqa: A004 - the name that users catch
from celeriac.message import Outcome
from celeriac.ports import ResultBackend
from celeriac.progress import Progress, Update, progress_in
from celeriac.result.base import (
    NO_BACKEND,
    TIMED_OUT,
    Interest,
    ResultBase,
    as_exception,
    as_meta,
    assert_will_not_block,
    outcomes,
)
from celeriac.result.graph import Formatter, Graph

if TYPE_CHECKING:  # type checkers know defaults of type variables: a bare `AsyncResult` is `AsyncResult[Any]`
    from typing_extensions import TypeVar

    R_co = TypeVar("R_co", covariant=True, default=Any)
else:
    from typing import TypeVar

    R_co = TypeVar("R_co", covariant=True)


class AppOf:
    """The app of results that were given none: `AsyncResult.default_app`, asked when it is needed."""

    def __get__(self, result: Any, owner: Any = None) -> Any:
        return None if AsyncResult.default_app is None else AsyncResult.default_app()


class AsyncResult(ResultBase, Generic[R_co]):
    """The state and result of one task, by id.

    It is awaitable: ``value = await result``.

    Args:
        id: The task's id.
        backend: Where its result is kept; the app's when not given.
        task_name: The task's name, if known.
        app: The app; the class made by ``app.AsyncResult`` has it already.
        parent: The result of the step before it in a chain.
    """

    app: Any = AppOf()  # Any: a Celeriac, whose module imports this one
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
            raise ValueError("AsyncResult requires valid id, not None")
        if app is not None:
            self.app = app
        self.id: str = id
        self.parent = parent
        self.ignored = False
        self.sent_state: str | None = None  # QUEUED or SCHEDULED, when this very object comes from sending it
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
        EXCEPTION_STATES: Iterable[str] = states.EXCEPTION_STATES,  # noqa: N803
        PROPAGATE_STATES: Iterable[str] = states.PROPAGATE_STATES,  # noqa: N803
    ) -> R_co:
        """Wait until the task is ready and return its result.

        Args:
            timeout: Seconds to wait at most.
            propagate: Raise the task's exception; False returns it.
            interval: Seconds between two calls of ``on_interval``. Waiting itself does not poll.
            no_ack: Accepted for Celery's sake, without effect.
            follow_parents: In a chain, raise the exception of an earlier step too.
            callback: Called with the id and the result.
            on_message: Called with what the backend has, as a dict: with every state that comes while it
                waits, progress for instance, and with the outcome. A store that is polled (databases,
                memcached, files) tells the newest state at each look.
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
            return cast("R_co", None)
        if disable_sync_subtasks:
            assert_will_not_block()
        outcome = self._outcome
        if outcome is None:
            follow = propagate and follow_parents and self.parent is not None
            outcome = self._wait(timeout, Interest(interval, on_interval, on_message), follow)
            if follow and outcome.state in PROPAGATE_STATES:
                self._throw_parents_error()
        elif on_message is not None:
            on_message(as_meta(outcome))
        if propagate and outcome.state in PROPAGATE_STATES:
            self.maybe_throw(callback=callback)
        elif callback is not None:
            callback(self.id, outcome.result)
        return cast("R_co", outcome.result)

    wait = get

    def __await__(self) -> Generator[Any, None, R_co]:
        """Wait without blocking the loop; raises what the task raised."""
        if self.ignored:
            return cast("R_co", None)
        assert_will_not_block()
        if self._outcome is None:
            waiting: Any = sys.modules.get("celeriac.awaiting")
            loaded = getattr(waiting, "LOADED", False)  # another thread may be in the middle of importing it
            if not loaded or not (self._backend or self.app is None or self.app.backend_is_loaded):
                yield from self._load().__await__()  # otherwise no call: thousands may wait in one loop
                waiting = sys.modules["celeriac.awaiting"]
            self._take((yield from waiting.outcome_of(self._reader(), self.id)))
        self.maybe_throw()
        return cast("R_co", self.result)

    async def updates(self) -> AsyncIterator[Update]:
        """Yield what is known of the task, at once and at each change, up to its end, without blocking.

        Nothing is raised of what the task raises: it is the ``value`` of the last update.
        """
        assert_will_not_block()
        if self._outcome is not None:
            yield _update(self._outcome)
            return
        if self._must_load():
            await self._load()
        waiting, backend = self._means_to_await()
        async for outcome in waiting.states_of(backend, self.id):
            if outcome.state in states.READY_STATES:
                self._take(outcome)
            yield _update(outcome)

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
            self.throw(outcome.result)
        if callback is not None:
            callback(self.id, outcome.result)
        return outcome.result

    maybe_reraise = maybe_throw

    def throw(self, *args: Any, **kwargs: Any) -> None:
        """Raise an exception as this result does."""
        value = args[0] if args else self.result
        raise as_exception(value)

    def then(
        self,
        callback: Callable[[Any], Any],
        on_error: Callable[[Any], Any] | None = None,
        weak: bool = False,
    ) -> AsyncResult[R_co]:
        """Call back with this result once its outcome is seen here (by ``get``, ``ready``, ``await``)."""
        self._then.append((callback, on_error))
        if self._outcome is not None:
            self._call_back(self._outcome)
        return self

    def forget(self) -> None:
        """Remove the result, and those of the steps before it, from the backend."""
        self._outcome = None
        if self.parent is not None:
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
    def known_state(self) -> str:
        """The state now, told more exactly where `state` says PENDING.

        ``QUEUED`` and ``SCHEDULED``: the broker has it. ``RECEIVED``, ``STARTED``: a worker has it.
        ``REJECTED``: it is a dead letter. ``UNKNOWN``: nothing is known of the id. The embedded broker can be
        asked about every task, from every process; of the others only the process that has sent a task knows
        that it is queued, by the very result that sending has returned.
        """
        state = self._meta().state if self.backend is not None else states.PENDING
        if state != states.PENDING:
            return state
        transport = self.app.transport if self.app is not None else None
        place = transport.whereabouts(self.id) if transport is not None else None
        if place is not None:
            return cast("str", place)
        if self.backend is not None and (state := self._meta().state) != states.PENDING:
            return state  # it has ended between the two looks
        can_be_asked = transport is not None and transport.caps.searchable
        return states.UNKNOWN if can_be_asked or self.sent_state is None else self.sent_state

    def exists(self) -> bool:
        """Return whether anything is known of the task; see `known_state`."""
        return self.known_state != states.UNKNOWN

    @property
    def progress(self) -> Progress | None:
        """How far the task says that it has come; None when it does not say.

        Told by `Task.update_progress`, or by ``update_state`` with a meta of ``current`` (or ``done``) and
        ``total``.
        """
        outcome = self._meta()
        known = outcome.state in states.ALL_STATES
        return None if known else progress_in(outcome.result)

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
        # The module of all kinds of results imports this one.
        from_tuple = importlib.import_module("celeriac.result").result_from_tuple
        return [from_tuple(child, self.app) for child in children]

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
        app = self.app
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
        self.app.control.revoke(
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
        self.app.control.revoke_by_stamped_headers(
            headers, connection=connection, terminate=terminate, signal=signal, reply=wait, timeout=timeout
        )

    def as_tuple(self) -> Any:
        """Return ``((id, parent tuple or None), None)``."""
        return (self.id, self.parent.as_tuple() if self.parent is not None else None), None

    def as_list(self) -> list[str]:
        """Return the ids of this result and of those before it."""
        before = self.parent.as_list() if self.parent is not None else []
        return [self.id, *before]

    def collect(self, intermediate: bool = False, **kwargs: Any) -> Iterator[tuple[ResultBase, Any]]:
        """Yield this result and all below it with their values, as they become ready."""
        for _, node in self.iterdeps(intermediate=intermediate):
            yield node, cast("Any", node).get(**kwargs)

    def get_leaf(self) -> Any:
        """Return the value of the last result below this one."""
        value = None
        for _, node in self.iterdeps():
            value = cast("Any", node).get()
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
                raise IncompleteStream

    def build_graph(self, intermediate: bool = False, formatter: Formatter | None = None) -> Graph:
        """Return who sent whom: every result below this one, with those that wait on it.

        Args:
            intermediate: Whether results that are not ready may be among them.
            formatter: Returns the text of a result in drawings of the graph; its id when not given.

        Raises:
            IncompleteStream: One is not ready; not with ``intermediate``.
        """
        graph = Graph(formatter)
        for parent, node in self.iterdeps(intermediate=intermediate):
            graph.add(parent, node)
        return graph

    @property
    def graph(self) -> Graph:
        """The results below this one, as `build_graph` has them."""
        return self.build_graph()

    def __str__(self) -> str:
        """Return the id."""
        return str(self.id)

    def __repr__(self) -> str:
        """Name the class and the id."""
        return f"<{type(self).__name__}: {self.id}>"

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

    def __copy__(self) -> AsyncResult[R_co]:
        """Return another handle on the same task."""
        return type(self)(self.id, self._backend, self._name, self.app, self.parent)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the id and the parent; the app is found again where it is unpickled."""
        return _unpickle, (self.id, self._name, self.parent)

    def leaves(self) -> Iterator[Any]:
        """Yield itself."""
        yield self

    # --- inside ---------------------------------------------------------------------------------------

    def _must_load(self) -> bool:
        """Return whether awaiting has to load modules or a driver first: `_load` it."""
        if not getattr(sys.modules.get("celeriac.awaiting"), "LOADED", False):
            return True
        return self._backend is None and self.app is not None and not self.app.backend_is_loaded

    async def _load(self) -> None:
        """Load what it takes to await in a thread: it reads files."""
        await importlib.import_module("asyncio").to_thread(self._means_to_await)

    def _means_to_await(self) -> tuple[Any, ResultBackend]:  # Any: the module `celeriac.awaiting`
        # Imported here because asyncio costs 25 ms of every client's start; who awaits has it already.
        return importlib.import_module("celeriac.awaiting"), self._reader()

    def _reader(self) -> ResultBackend:
        backend = self.backend
        if backend is None:
            raise NotImplementedError(NO_BACKEND)
        return backend

    def _meta(self) -> Outcome:
        if self._outcome is not None:
            return self._outcome
        outcome = patience.fetch(self.app, self._reader(), [self.id]).get(self.id)
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

    def _wait(self, timeout: float | None, interest: Interest, follow: bool) -> Outcome:
        parents = self._parents_to_watch() if follow else {}
        ids = [*parents, self.id]
        for outcome in outcomes(self._reader(), ids, timeout, interest):
            if outcome.id == self.id:
                self._take(outcome)
                break
            parents[outcome.id]._take(outcome)
            parents[outcome.id].maybe_throw()
        return self._known()

    def _extended(self, name: str) -> Any:
        return (self._meta().extended or {}).get(name)

    def _parents(self) -> Iterator[ResultBase]:
        node = self.parent
        while node is not None:
            yield node
            node = node.parent

    def _parents_to_watch(self) -> dict[str, AsyncResult[Any]]:
        return {leaf.id: leaf for parent in self._parents() for leaf in parent.leaves()}

    def _throw_parents_error(self) -> None:
        for parent in reversed(list(self._parents())):
            for leaf in parent.leaves():
                leaf.maybe_throw()


def _unpickle(id: str, name: str | None, parent: ResultBase | None) -> AsyncResult[Any]:
    return AsyncResult(id, task_name=name, parent=parent)


def _update(outcome: Outcome) -> Update:
    progress = None if outcome.state in states.ALL_STATES else progress_in(outcome.result)
    return Update(outcome.state, outcome.result, progress)
