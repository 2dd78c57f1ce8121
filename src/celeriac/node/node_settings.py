"""What a node has to know besides the app's settings."""

from __future__ import annotations

import msgspec

from celeriac.node.link import RetryPolicy
from celeriac.node.outage import OutagePolicy
from celeriac.ports import ConsumeSpec
from celeriac.revocations import KEPT_SECONDS


class NodeSettings(msgspec.Struct, kw_only=True, frozen=True):
    """What a node has to know besides the app's settings."""

    hostname: str
    spec: ConsumeSpec
    retry: RetryPolicy = RetryPolicy()
    outage: OutagePolicy = OutagePolicy()
    slots: int = 0  # that the prefetch was reckoned for
    fair: bool = False  # nobody has asked for a prefetch: nothing is held that cannot begin soon
    autoscale: tuple[int, int] | None = None  # slots: at most, at least
    time_limit: float | None = None  # seconds, for tasks with none of their own
    soft_time_limit: float | None = None
    soft_shutdown_seconds: float = 0.0  # before a cold shutdown, for running tasks to end
    soft_shutdown_when_idle: bool = False
    heartbeat_seconds: float | None = None  # between heartbeats; None: there are none
    revoked_seconds: float = KEPT_SECONDS  # for which it is remembered what was revoked
    warm_shutdown_seconds: float | None = None  # what runs longer than that is stopped; None: for ever
    measured: bool = False  # somebody wants to see figures of each kind of task
