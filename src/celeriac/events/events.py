"""The events of an app: Celery's ``app.events``."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Events:
    """Classes to send, hear and keep events with, which know the app.

    Args:
        app: The app; a Celeriac.
    """

    receiver_cls: type[Any] | str = "celeriac.events.receiver:EventReceiver"
    dispatcher_cls: type[Any] | str = "celeriac.events.dispatcher:EventDispatcher"
    state_cls: type[Any] | str = "celeriac.events.state:State"

    def __init__(self, app: Any = None) -> None:  # Any: see above
        self.app = app

    @property
    def Receiver(self) -> Any:  # noqa: N802 - Celery's name
        """The class of receivers; see `celeriac.events.receiver.EventReceiver`."""
        return self.app.subclass_with_self(self.receiver_cls, reverse="events.Receiver")

    @property
    def Dispatcher(self) -> Any:  # noqa: N802 - Celery's name
        """The class of senders; see `celeriac.events.dispatcher.EventDispatcher`."""
        return self.app.subclass_with_self(self.dispatcher_cls, reverse="events.Dispatcher")

    @property
    def State(self) -> Any:  # noqa: N802 - Celery's name
        """The class that keeps what events have told; see `celeriac.events.state.State`."""
        name = self.state_cls
        if not isinstance(name, str):
            return name
        module, _, attribute = name.partition(":")
        return getattr(importlib.import_module(module), attribute)  # as it is: states are pickled

    @contextmanager
    def default_dispatcher(
        self, hostname: str | None = None, enabled: bool = True, buffer_while_offline: bool = False
    ) -> Iterator[Any]:
        """Return a block with a sender of events.

        Args:
            hostname: Who sends them.
            enabled: Send at all.
            buffer_while_offline: Keep what the broker does not take.
        """
        with self.Dispatcher(
            hostname=hostname, enabled=enabled, buffer_while_offline=buffer_while_offline
        ) as dispatcher:
            yield dispatcher
