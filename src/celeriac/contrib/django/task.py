"""Tasks that are sent when the database transaction is through."""

from __future__ import annotations

import functools
from typing import Any, ParamSpec, TypeVar

from django.db import transaction

from celeriac.task import Task

P = ParamSpec("P")
R = TypeVar("R")


class DjangoTask(Task[P, R]):
    """A task that can wait for the commit of the current transaction.

    A worker may be quicker than the commit; a task sent before it would not find what it is about.
    """

    abstract = True

    def delay_on_commit(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Send it with these arguments once the transaction is committed; never when it is rolled back."""
        transaction.on_commit(functools.partial(self.delay, *args, **kwargs))

    def apply_async_on_commit(self, *args: Any, **kwargs: Any) -> None:  # Any: as `apply_async`
        """Do the same with the arguments of `apply_async`."""
        transaction.on_commit(functools.partial(self.apply_async, *args, **kwargs))
