"""The steps that every worker has, as places before and after which programs put their own.

What they stand for is the worker's own business: none of them does anything, but for the last one.
"""

from __future__ import annotations

from typing import Any

from celery import bootsteps

__all__ = ("Beat", "Consumer", "Hub", "Pool", "StateDB", "Timer")


class Timer(bootsteps.Step):
    """``worker.timer``."""


class Hub(bootsteps.Step):
    """The event loop; ``worker.hub`` is None, for it runs no code of programs."""

    requires: Any = (Timer,)


class Pool(bootsteps.Step):
    """``worker.pool``."""

    requires: Any = (Hub,)


class Beat(bootsteps.Step):
    """The scheduler of ``-B``."""

    label: str | None = "Beat"
    conditional: bool = True


class StateDB(bootsteps.Step):
    """What outlives the worker."""


class Consumer(bootsteps.Step):
    """``worker.consumer``; its steps are made and started when all of the worker's are."""

    last: bool = True

    def create(self, parent: Any) -> Any:
        """Make it, with its steps."""
        parent.consumer = parent.make_consumer()
