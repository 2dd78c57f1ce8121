"""The results of several tasks: in order, or as a group with an id."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator
from typing import Any, cast

from celeriac import patience, states
from celeriac.ports import ResultBackend
from celeriac.result.base import NO_BACKEND, Interest, ResultBase, as_meta, assert_will_not_block, outcomes
from celeriac.result.single import AppOf, AsyncResult


class ResultSet(ResultBase):  # noqa: PLW1641 - it can be changed
    """Several results, in order.

    Args:
        results: The results.
        app: The app; the class made by ``app.ResultSet`` has it already.
        ready_barrier: Accepted for Celery's sake, without effect.
    """

    app: Any = AppOf()  # Any: a Celeriac, whose module imports this one

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
            [leaf.id for leaf in self.leaves()],
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
        awaited = {leaf.id: leaf for leaf in self.leaves() if leaf._outcome is None and not leaf.ignored}
        if awaited:
            backend = next(iter(awaited.values()))._reader()
            interest = Interest(interval, on_interval, on_message)
            for outcome in outcomes(backend, list(awaited), timeout, interest):
                result = awaited.pop(outcome.id)
                result._take(outcome)
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
        leaves = {leaf.id: leaf for leaf in self.leaves()}
        waited = [id for id, leaf in leaves.items() if leaf._outcome is None]
        for id, leaf in leaves.items():
            if leaf._outcome is not None:
                yield id, as_meta(leaf._outcome)
        if waited:
            interest = Interest(interval, on_interval, on_message)
            for outcome in outcomes(self.backend, waited, timeout, interest):
                leaves[outcome.id]._take(outcome)
                yield outcome.id, as_meta(outcome)

    def then(
        self,
        callback: Callable[[Any], Any],
        on_error: Callable[[Any], Any] | None = None,
        weak: bool = False,
    ) -> ResultSet:
        """Call back with this set once the outcome of every member is seen here."""

        def when_all(_: Any) -> None:
            if all(leaf._outcome is not None for leaf in self.leaves()):
                callback(self)

        for leaf in self.leaves():
            leaf.then(when_all, on_error)
        return self

    def __await__(self) -> Generator[Any, None, list[Any]]:
        """Wait for all without blocking the loop."""
        pending = [leaf for leaf in self.leaves() if leaf._outcome is None and not leaf.ignored]
        if pending:
            assert_will_not_block()
            if pending[0]._must_load():
                yield from pending[0]._load().__await__()
            waiting, backend = pending[0]._means_to_await()
            ready = yield from waiting.outcomes_of(backend, [leaf.id for leaf in pending])
            for leaf, outcome in zip(pending, ready, strict=True):
                leaf._take(outcome)
        return self._values(True, None)

    async def __aiter__(self) -> AsyncIterator[Any]:
        """Iterate over the results of single tasks in it, each as soon as it is ready."""
        pending: dict[str, list[Any]] = {}
        for result in self._singles():
            if result._outcome is not None or result.ignored:
                yield result
            else:
                pending.setdefault(result.id, []).append(result)
        if pending:
            assert_will_not_block()
            first = next(iter(pending.values()))[0]
            if first._must_load():
                await first._load()
            waiting, backend = first._means_to_await()
            async for outcome in waiting.outcomes_as_they_come(backend, list(pending)):
                for result in pending[outcome.id]:
                    result._take(outcome)
                    yield result

    @property
    def supports_native_join(self) -> bool:
        """Whether all can be waited for at once; always."""
        return True

    @property
    def backend(self) -> ResultBackend:
        """Where the results are kept."""
        for leaf in self.leaves():
            return cast("ResultBackend", leaf._reader())
        if self.app is None or self.app.backend is None:
            raise NotImplementedError(NO_BACKEND)
        return cast("ResultBackend", self.app.backend)

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

    def leaves(self) -> Iterator[Any]:
        """Yield those of its members."""
        for result in self.results:
            yield from result.leaves()

    def _singles(self) -> Iterator[Any]:
        for result in self.results:
            if isinstance(result, ResultSet):
                yield from result._singles()
            else:
                yield result

    def __repr__(self) -> str:
        """List the ids."""
        return f"<{type(self).__name__}: [{', '.join(str(result.id) for result in self.results)}]>"

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
        unknown = {leaf.id: leaf for leaf in self.leaves() if leaf._outcome is None}
        if len(unknown) > 1:
            for id, outcome in patience.fetch(self.app, self.backend, list(unknown)).items():
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
        self.id: str = cast("str", id)
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
        """Return a saved group, or None when there is none of that id.

        Raises:
            ValueError: There is no id at all.
        """
        if id is None:
            raise ValueError("GroupResult.restore() requires a valid id")
        home = app if app is not None else cls.app
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
            return other.id == self.id and other.results == self.results and bool(other.parent == self.parent)
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
    return cast("ResultBase", make(id, parent=parent))
