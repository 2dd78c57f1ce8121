"""Writing messages with the transaction, and sending them when that is committed."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Sequence

from django.db import DEFAULT_DB_ALIAS, DatabaseError, transaction

from celeriac.app import Celeriac
from celeriac.composer import Prepared
from celeriac.contrib.django.outbox.models import CLAIM_SECONDS, OutboxMessage, claim, note, remove, row_of
from celeriac.errors import TransportError

logger: logging.Logger = logging.getLogger(__name__)


def send_on_commit(app: Celeriac, messages: Sequence[Prepared]) -> None:
    """Write messages with the running transaction, and send them when that is committed.

    What cannot be sent then stays in the table, for a `celeriac.contrib.django.outbox.relay.Relay`.

    Args:
        app: The app that sends them.
        messages: What its client has `held <celeriac.client.Client.held>`.

    Raises:
        DatabaseError: They could not be written; the transaction fails with it.
        EncodeError: A header or property has no form in msgpack.
    """
    written_at = time.monotonic()
    rows = [row_of(app.main or "", message.outgoing) for message in messages]
    for row in rows:
        row.save(force_insert=True, using=DEFAULT_DB_ALIAS)
    transaction.on_commit(functools.partial(_send_now, app, rows, messages, written_at))


def _send_now(
    app: Celeriac, rows: Sequence[OutboxMessage], messages: Sequence[Prepared], written_at: float
) -> None:
    """Send what is committed now. It raises nothing: others wait for the commit behind this."""
    mine = list(zip(rows, messages, strict=True))
    try:
        if time.monotonic() - written_at + app.conf.publish_timeout_seconds >= CLAIM_SECONDS:
            mine = [pair for pair in mine if claim(pair[0])]  # a relay may have seen it before us
        try:
            app.client.publish([message for _, message in mine])
        except TransportError as exc:
            logger.warning("Not sent on commit, and left to a worker: %s. %s", _named(rows), exc)
            for row, _ in mine:
                note(row, exc)
        else:
            remove([row for row, _ in mine])
    except DatabaseError as exc:  # the row is there still, so it is sent, perhaps once more
        logger.warning("The outbox could not be told what became of %s: %s", _named(rows), exc)


def _named(rows: Sequence[OutboxMessage]) -> str:
    return ", ".join(map(str, rows))
