"""Doubts: what was sent in the place of deliveries, and may have arrived or not."""

from __future__ import annotations

from collections.abc import Iterable

from celeriac.message import Delivery, Outgoing
from celeriac.wire.task import RESENT_HEADER

Token = tuple[int, int]  # the connection that a delivery came through (counted), and its delivery tag there
Copy = tuple[Delivery, Outgoing]  # what is settled, and what is sent in its place


class Doubts:
    """Knows what is sent a second time because nobody has confirmed it the first time.

    1. A message for the queue that it came from says so: who has the first one in hand does not run it.
    2. A dead letter is sent just as before, with the time of then; so `AmqpGraveyard` takes both for one.
    """

    def __init__(self) -> None:
        self._sent: dict[Token, Outgoing] = {}

    def minded(self, copies: Iterable[Copy]) -> list[Copy]:
        """Return copies as they are to be sent."""
        return [(delivery, self._minded(delivery, copy)) for delivery, copy in copies]

    def note(self, copies: Iterable[Copy]) -> None:
        """Note what may have arrived."""
        self._sent.update((delivery.token, copy) for delivery, copy in copies)

    def forget(self, copies: Iterable[Copy]) -> None:
        """Forget what has arrived for certain."""
        for delivery, _ in copies:
            self._sent.pop(delivery.token, None)

    def keep(self, tokens: Iterable[Token]) -> None:
        """Forget what is about any other deliveries: those are RabbitMQ's again."""
        if self._sent:
            self._sent = {token: self._sent[token] for token in tokens if token in self._sent}

    def _minded(self, delivery: Delivery, copy: Outgoing) -> Outgoing:
        sent = self._sent.get(delivery.token)
        if sent is None:
            return copy
        if copy.routing_key == delivery.queue:
            copy.envelope.headers[RESENT_HEADER] = True
        elif copy.routing_key == sent.routing_key:
            return sent
        return copy
