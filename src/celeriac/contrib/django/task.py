"""Tasks that are sent when the database transaction is through."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any, Final, ParamSpec, TypeVar

from django.apps import apps
from django.db import transaction

from celeriac.task import Task

P = ParamSpec("P")
R = TypeVar("R")

OUTBOX: Final = "celeriac.contrib.django.outbox"  # among INSTALLED_APPS: what it says about itself


class DjangoTask(Task[P, R]):
    """A task that can wait for the commit of the current transaction.

    A worker may be quicker than the commit; a task sent before it would not find what it is about.

    With `celeriac.contrib.django.outbox` among ``INSTALLED_APPS`` the message is written with the
    transaction, and sent even when this process dies, or the broker is away, after the commit. Without it,
    a broker that is away raises out of the block of the transaction, which is committed by then, and a
    process that dies in between loses the call. So it is with unique, throttled and debounced tasks, too:
    they take their lock when they are sent, which may not be before the commit.
    """

    abstract = True

    def delay_on_commit(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Send it with these arguments once the transaction is committed; never when it is rolled back."""
        self._on_commit(functools.partial(self.delay, *args, **kwargs))

    def apply_async_on_commit(self, *args: Any, **kwargs: Any) -> None:  # Any: as `apply_async`
        """Do the same with the arguments of `apply_async`."""
        self._on_commit(functools.partial(self.apply_async, *args, **kwargs))

    def _on_commit(self, send: Callable[[], Any]) -> None:
        app = self._get_app()
        in_transaction = transaction.get_connection().in_atomic_block
        is_kept = apps.is_installed(OUTBOX) and self.name not in app.uniques
        if not in_transaction or app.conf.task_always_eager or not is_kept:
            transaction.on_commit(send)
            return
        with app.client.held() as messages:
            send()
        # Imported here because it has a table, which only projects have that want it.
        importlib.import_module(f"{OUTBOX}.outbox").send_on_commit(app, messages)
