"""What a node knows when a message comes in."""

from __future__ import annotations

from collections.abc import Mapping

from celeriac.app import Celeriac
from celeriac.clock import Clock
from celeriac.hooks import Hooks
from celeriac.message import Envelope, TaskHeaders
from celeriac.node.policy import Policies, Policy
from celeriac.node.revoked import Revoked
from celeriac.queues import Queue
from celeriac.wire.task import upgrade


class Reception:
    """The app as far as it matters for taking messages in, `celeriac.node.admit.Reception`.

    Args:
        app: The app, finalized.
        hostname: The node's name.
        policies: What is known of its tasks.
        revoked: The tasks that somebody has revoked.
        paused: The queues that somebody has paused, by name.
        clock: Says what time it is.
    """

    def __init__(
        self,
        app: Celeriac,
        hostname: str,
        policies: Policies,
        revoked: Revoked,
        paused: Mapping[str, Queue],
        clock: Clock,
    ) -> None:
        self.hostname = hostname
        self.hooks: Hooks = app.hooks
        self.clock = clock
        self.policies = policies
        self.revoked = revoked
        self.paused = paused
        self.limits_rates: bool = not app.conf.worker_disable_rate_limits
        self.max_bytes: int = app.conf.worker_max_message_bytes
        self._codecs = app.codecs
        self._accept = app.codecs.accept_set(app.conf.accept_content)

    def is_revoked(self, headers: TaskHeaders) -> bool:
        """Return whether somebody has revoked a task."""
        return bool(self.revoked) and self.revoked.covers(headers)

    def policy(self, name: str) -> Policy | None:
        """Return what is known of a kind of task; None when it is not registered."""
        return self.policies.get(name)

    def upgrade(self, envelope: Envelope) -> Envelope:
        """Return a message of the old protocol in the new one."""
        return upgrade(envelope, self._codecs, self._accept, max_bytes=self.max_bytes)

    def now(self) -> float:
        """Return epoch seconds."""
        return self.clock.time()
