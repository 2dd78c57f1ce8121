"""The result of one task that ran right here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from celeriac import states
from celeriac.message import Outcome
from celeriac.result.base import ResultBase, as_exception, assert_will_not_block
from celeriac.result.single import AsyncResult, R_co


class EagerResult(AsyncResult[R_co]):
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
        self.parent: ResultBase | None = None
        self.ignored = False
        self.sent_state: str | None = None
        self._backend = None
        self._name = name
        self._then = []
        self._outcome = Outcome(id=id or "", state=state, result=ret_value, traceback=traceback)

    def get(  # type: ignore[override]  # everything else that AsyncResult takes is accepted and unused
        self,
        timeout: float | None = None,
        propagate: bool = True,
        disable_sync_subtasks: bool = True,
        **_: Any,
    ) -> R_co:
        """Return the result, or raise what the task raised."""
        if disable_sync_subtasks:
            assert_will_not_block()
        outcome = self._known()
        if outcome.state in states.PROPAGATE_STATES and propagate:
            raise as_exception(outcome.result)
        return cast("R_co", outcome.result)

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
    def supports_native_join(self) -> bool:
        """Whether it can be waited for with others at once; there is nothing to wait for."""
        return False

    def __copy__(self) -> EagerResult[R_co]:
        """Return another of the same."""
        return type(self)(*self.__reduce__()[1])

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle what it knows."""
        outcome = self._known()
        return EagerResult, (self.id, outcome.result, outcome.state, outcome.traceback, self._name)

    def __repr__(self) -> str:
        """Name the class and the id."""
        return f"<EagerResult: {self.id}>"

    def leaves(self) -> Iterator[Any]:
        """Yield nothing: no backend has to be asked."""
        return iter(())

    def _meta(self) -> Outcome:
        return self._known()
