"""Since when messages wait, as far as they say when they were sent."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from typing import Final

from celeriac.message import Envelope

MOST_LOOKED_AT: Final = 100  # messages of a queue

Found = tuple[Envelope, float | None]  # a message, and until when (epoch seconds) it was not to be run


def since(envelope: Envelope, not_before: float | None = None) -> float | None:
    """Return from when on a message could have been run: when it was sent, or the time it was sent for.

    Args:
        envelope: The message.
        not_before: Until when it was not to be run, if the broker knows; epoch seconds.

    Returns:
        Epoch seconds; None when it does not say when it was sent.
    """
    sent = envelope.properties.timestamp
    if sent is None:
        return None
    return max(float(sent), not_before or 0.0, _moment(envelope.headers.get("eta")))


def oldest(waiting: Iterable[Found], now: float) -> float | None:
    """Return since when the message waits that has waited longest.

    Those that were sent for later stand before others that have waited longer, where the broker puts them in
    front when their time comes. So they are looked through to the first that was not.

    Args:
        waiting: The messages, those first that were first in the queue; no more are read than needed.
        now: Epoch seconds; what was sent for later than that does not wait yet.
    """
    found: float | None = None
    for envelope, not_before in waiting:
        moment = since(envelope, not_before)
        if (
            moment is not None and moment <= now + 1
        ):  # clocks differ, and the time of sending is whole seconds
            found = moment if found is None else min(found, moment)
        if is_telling(envelope, not_before):
            break
    return found


def is_telling(envelope: Envelope, not_before: float | None = None) -> bool:
    """Return whether those behind a message in its queue have not waited longer, as far as it can be told."""
    later = not_before is not None or envelope.headers.get("eta") is not None
    return envelope.properties.timestamp is not None and not later


def _moment(eta: object) -> float:
    if not isinstance(eta, str):
        return 0.0
    try:
        moment = datetime.datetime.fromisoformat(eta)
    except ValueError:
        return 0.0  # no worker will run it
    return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp()
