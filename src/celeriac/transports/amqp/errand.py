"""A connection to RabbitMQ for one errand, on threads."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Collection, Iterator, Sequence

from celeriac.errors import BrokerUnreachable
from celeriac.transports.amqp.address import Address
from celeriac.transports.amqp.connection import Event, Lost, Refused
from celeriac.transports.amqp.link import Link


def nothing(event: Event) -> None:
    """Do nothing with what the broker sends unasked."""


@contextlib.contextmanager
def errand(
    addresses: Sequence[Address],
    until: float,
    on_event: Callable[[Event], None] = nothing,
    *,
    unless: Collection[int] = (),
) -> Iterator[Link]:
    """Lend a connection of one's own; what fails on it is told as `celeriac.errors` knows it.

    Args:
        addresses: One broker, or several of which one answers.
        until: The moment to give up connecting (`time.monotonic`).
        on_event: Called with what the broker sends unasked.
        unless: Codes of refusals that end the errand without an error.

    Raises:
        TransportError: Nobody answers, the connection is lost, or the broker refuses.
    """
    turn = threading.Condition(threading.Lock())
    with turn:
        link = _connected(addresses, turn, until, on_event)
        try:
            yield link
        except Refused as exc:
            if exc.code not in unless:
                raise link.address.failure(exc) from exc
        except (Lost, TimeoutError) as exc:
            raise link.address.failure(exc) from exc
        finally:
            link.close()


def _connected(
    addresses: Sequence[Address], turn: threading.Condition, until: float, on_event: Callable[[Event], None]
) -> Link:
    """Return a connection to the first broker that answers."""
    *others, last = addresses
    for address in others:
        link = Link(address, turn, on_event)
        with contextlib.suppress(BrokerUnreachable):  # the last one tells
            link.connect(until)
            return link
    link = Link(last, turn, on_event)
    link.connect(until)
    return link
