"""What went back to RabbitMQ with a lost connection before anything was done with it."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Final

from celeriac.latest import Latest
from celeriac.message import Delivery

_MOST: Final = 10_000  # messages to remember; of one that is forgotten RabbitMQ's count is believed


class Unbegun:
    """How often messages came to this node and went back before they began.

    RabbitMQ tells of that as of what began and took its worker down. A message that waits behind a long task
    while the connection is lost three times would look like one that has killed three workers.
    """

    def __init__(self) -> None:
        self._times: Latest[Hashable, int] = Latest(_MOST)

    def note(self, delivery: Delivery) -> None:
        """Note that a delivery goes back and nothing was done with it."""
        key = _key(delivery)
        self._times.note(key, self._times.get(key, 0) + 1)

    def correct(self, delivery: Delivery) -> None:
        """Take what came to nothing here out of a delivery's count."""
        if self._times:
            times = self._times.get(_key(delivery), 0)
            # Where RabbitMQ does not count, it has said only that there was something; and that is known now.
            delivery.attempt = max(1, delivery.attempt - min(times, 1 if delivery.uncounted else times))
            delivery.uncounted = delivery.uncounted and not times

    def forget(self, deliveries: Iterable[Delivery]) -> None:
        """Forget messages that are settled and not put back: what takes their place is counted anew."""
        if self._times:
            for delivery in deliveries:
                self._times.pop(_key(delivery), None)


def _key(delivery: Delivery) -> Hashable:
    headers = delivery.envelope.headers
    id_, retries = headers.get("id"), headers.get("retries")
    # What others send may hold anything.
    return (
        delivery.queue,
        id_ if isinstance(id_, str) else None,
        retries if isinstance(retries, int) else None,
    )
