"""Sending what stayed in the outbox: its sender died, or the broker was away."""

from __future__ import annotations

import logging
import threading
from typing import Final

import msgspec
from django.db import close_old_connections, connections
from django.db.models.functions import Now

from celeriac.app import Celeriac
from celeriac.contrib.django.outbox.models import claim, message_of, note, remove, rows
from celeriac.errors import BrokerUnreachable, TransportError
from celeriac.wire.task import RESENT_HEADER

logger: logging.Logger = logging.getLogger(__name__)

SWEEP_EVERY_SECONDS: Final = 5.0
_AT_ONCE: Final = 500  # rows that a sweep reads
_GOODBYE_SECONDS: Final = 10.0


class Swept(msgspec.Struct, frozen=True):
    """What a sweep has come to."""

    sent: int = 0
    failed: int = 0


class Relay:
    """Sends what stayed in the outbox of an app.

    1. Looks for messages that belong to nobody, the oldest first, and claims each before it is sent, so that
       any number of relays may work side by side.
    2. Marks them as sent again: their sender may have died after it had sent them. A worker that has run one
       does not run it a second time; another one is told that it is a redelivery.
    3. Writes down what could not be sent and why, and tries again later, more and more rarely, for ever.

    Args:
        app: The app.
        every_seconds: Between two looks of its thread.
    """

    def __init__(self, app: Celeriac, every_seconds: float = SWEEP_EVERY_SECONDS) -> None:
        self._app = app
        self._every_seconds = every_seconds
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Sweep now and then in a thread."""
        self._stopped.clear()
        self._thread = threading.Thread(target=self._run, name="celeriac-outbox", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; what it was sending is seen through."""
        self._stopped.set()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(_GOODBYE_SECONDS)

    def sweep(self, *, everything: bool = False) -> Swept:
        """Send what stayed in the outbox, and return how many messages were sent, and how many were not.

        It ends early when the broker is away.

        Args:
            everything: Send also what somebody may be sending just now; for when nobody is.
        """
        sent = failed = 0
        waiting = rows().filter(app=self._app.main or "")
        for row in (waiting if everything else waiting.filter(due__lte=Now()))[:_AT_ONCE]:
            if not claim(row):
                continue
            try:
                outgoing = message_of(row)
                outgoing.envelope.headers[RESENT_HEADER] = True
                self._app.client.forward([outgoing])
            except (TransportError, ValueError) as exc:
                failed += 1
                note(row, exc)
                logger.error("%s is in the outbox still, after attempt %d: %s", row, row.attempts + 1, exc)
                if isinstance(exc, BrokerUnreachable):
                    break
            else:
                remove([row])
                sent += 1
        if sent:
            logger.warning("Sent %d message(s) that had stayed in the outbox.", sent)
        return Swept(sent, failed)

    def _run(self) -> None:
        told = ""
        try:
            while not self._stopped.is_set():
                close_old_connections()
                try:
                    self.sweep()
                    told = ""
                except Exception as exc:  # wall: the database may be away, the worker goes on
                    if str(exc) != told:
                        logger.exception(
                            "The outbox cannot be read; trying on every %g s.", self._every_seconds
                        )
                    told = str(exc)
                self._stopped.wait(self._every_seconds)
        finally:
            connections.close_all()
