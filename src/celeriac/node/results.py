"""Results that the node itself has to tell: of tasks that no child has run to an end."""

from __future__ import annotations

from celeriac.app import Celeriac
from celeriac.message import Envelope, Outcome, Record, TaskHeaders
from celeriac.node.policy import Policy
from celeriac.states import FAILURE


class Results:
    """Encodes outcomes on behalf of the node.

    Args:
        app: The app, whose result backend encodes.
    """

    def __init__(self, app: Celeriac) -> None:
        self._app = app
        self._backend = app.backend

    def record(
        self,
        envelope: Envelope,
        headers: TaskHeaders,
        state: str,
        error: BaseException,
        policy: Policy | None = None,
    ) -> Record | None:
        """Return the record of a task that ended with an error; None when nobody wants to know.

        Args:
            envelope: The task's message, which says where to answer to.
            headers: Its headers.
            state: FAILURE or REVOKED.
            error: What its caller shall get.
            policy: Its kind; None when it is not registered.
        """
        if self._backend is None or self._is_ignored(headers, state, policy):
            return None
        outcome = Outcome(
            id=headers.id,
            state=state,
            result=error,
            children=[],
            date_done=self._app.now().isoformat(),
            group_id=headers.group,
            parent_id=headers.parent_id,
        )
        properties = envelope.properties
        return self._backend.encode(
            outcome, reply_to=properties.reply_to, correlation_id=properties.correlation_id or headers.id
        )

    def _is_ignored(self, headers: TaskHeaders, state: str, policy: Policy | None) -> bool:
        said = headers.ignore_result
        ignored = bool(policy and policy.ignores_result) if said is None else said
        if ignored and state == FAILURE and policy is not None and policy.task.store_errors_even_if_ignored:
            return False
        return ignored
