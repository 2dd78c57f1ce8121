"""What a node knows of each kind of task: how it is acknowledged, limited, and how long it has taken."""

from __future__ import annotations

from typing import Any

from celeriac.app import Celeriac
from celeriac.execute.verdict import Terms
from celeriac.node.tally import MOST_TALLIES, OTHERS, Tally

SHORT_SECONDS = 0.005  # tasks that take less may wait behind each other
_WEIGHT = 0.1  # of the latest run


class Policy:
    """One kind of task.

    Args:
        task: The task; a Task of any parameters.
        terms: How it is acknowledged.
        time_limit: Seconds, when neither message nor task has a hard limit.
        soft_time_limit: Likewise.
        limits_rates: Whether rate limits count at all.
    """

    __slots__ = (
        "concurrency_limit",
        "count",
        "hard_seconds",
        "ignores_result",
        "mean_seconds",
        "sends_events",
        "shares_rate",
        "short",
        "soft_seconds",
        "tally",
        "task",
        "terms",
    )

    def __init__(
        self,
        task: Any,
        terms: Terms,
        time_limit: float | None,
        soft_time_limit: float | None,
        *,
        limits_rates: bool = True,
    ) -> None:  # Any: see above
        self.task: Any = task
        self.terms: Terms = terms
        self.hard_seconds: float | None = None
        self.soft_seconds: float | None = None
        self.renew_limits(time_limit, soft_time_limit)
        self.concurrency_limit: int | None = task.concurrency_limit
        self.shares_rate: bool = limits_rates and task.rate_limit_scope == "global"
        self.ignores_result: bool = bool(task.ignore_result)
        self.sends_events: bool = bool(task.send_events)
        self.mean_seconds: float | None = None  # a moving average; None before the first run
        self.short: bool = False  # not before we have seen one
        self.count: int = 0  # runs that ended here
        self.tally: Tally | None = None  # where somebody measures

    def renew_limits(self, time_limit: float | None, soft_time_limit: float | None) -> None:
        """Take the limits from the task anew; the arguments are those of the constructor."""
        hard, soft = self.task.time_limit, self.task.soft_time_limit
        self.hard_seconds = hard if hard is not None else time_limit
        self.soft_seconds = soft if soft is not None else soft_time_limit

    def note(self, seconds: float) -> None:
        """Take a run's time into account."""
        self.count += 1
        mean = self.mean_seconds
        self.mean_seconds = mean = seconds if mean is None else mean + _WEIGHT * (seconds - mean)
        self.short = mean < SHORT_SECONDS


class Unregistered:
    """What a policy asks of a task."""

    time_limit = soft_time_limit = concurrency_limit = rate_limit = None
    rate_limit_scope = "worker"
    lock_seconds: float = 0.0
    ignore_result = store_errors_even_if_ignored = False
    send_events = True


class Policies:
    """The policies of an app's tasks, by name, made when a task of that name first comes in.

    Args:
        app: The app, finalized.
        time_limit: The node's own hard limit in seconds.
        soft_time_limit: The node's own soft limit in seconds.
        tallies: Whether to count for those who measure.
    """

    def __init__(
        self,
        app: Celeriac,
        time_limit: float | None,
        soft_time_limit: float | None,
        *,
        tallies: bool = False,
    ) -> None:
        self._app = app
        self._time_limit = time_limit
        self._soft_time_limit = soft_time_limit
        self._known: dict[str, Policy] = {}
        self._counts = tallies
        self.tallies: dict[str, Tally] = {}  # by the names of tasks; empty when nobody measures

    def get(self, name: str) -> Policy | None:
        """Return the policy of a task, or None when nobody has registered it."""
        known = self._known.get(name)
        if known is None:
            task = self._app.tasks.get(name)
            if task is None:
                return None
            known = self._known[name] = self._make(task)
            known.tally = self._tally(name) if self._counts else None
        return known

    def renew_limits(self, name: str) -> None:
        """Take the limits of a task anew: somebody has changed them."""
        known = self._known.get(name)
        if known is not None:
            known.renew_limits(self._time_limit, self._soft_time_limit)

    def of_unregistered(self) -> Policy:
        """Return the policy of a task that is not known here, and fails."""
        return Policy(Unregistered, Terms(), None, None)

    def counts(self) -> dict[str, int]:
        """Return how many runs of each task have ended here."""
        return {name: policy.count for name, policy in self._known.items()}

    def _tally(self, name: str) -> Tally:
        own = name if len(self.tallies) < MOST_TALLIES else OTHERS
        return self.tallies.setdefault(own, Tally())

    def _make(self, task: Any) -> Policy:  # Any: a Task of any parameters
        terms = Terms(
            acks_late=bool(task.acks_late),
            acks_on_failure=_acks(task, task.acks_on_failure),
            acks_on_timeout=_acks(task, task.acks_on_timeout),
            reject_on_worker_lost=bool(task.reject_on_worker_lost),
            dead_letter=bool(task.dead_letter),
            max_deliveries=self._app.conf.task_max_deliveries,
        )
        limits_rates = not self._app.conf.worker_disable_rate_limits
        return Policy(task, terms, self._time_limit, self._soft_time_limit, limits_rates=limits_rates)


def _acks(task: Any, alone: bool | None) -> bool:  # Any: a Task of any parameters
    """Return whether one way of failing is acknowledged; None leaves it to what is said of all of them."""
    return (task.acks_on_failure_or_timeout if alone is None else alone) is not False
