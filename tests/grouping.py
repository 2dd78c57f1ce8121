"""Which tests stay together when a run is spread over several processes (`--dist loadgroup`).

1. Tests marked ``together(name)`` share something that is dear to make, such as a fleet of workers: one
   process runs them all.
2. RabbitMQ costs 120 MB and five seconds of processor time to start, so a few processes have one, and run
   all the tests that need it.
Everything else goes wherever there is room.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

RABBITMQ_PROCESSES = 3


@dataclass(frozen=True, slots=True)
class Need:
    """What is to be known of a test.

    Attributes:
        test: Its name.
        together: The name of the company that it has to stay in, if any.
        on_rabbitmq: Whether it needs RabbitMQ.
    """

    test: str
    together: str | None = None
    on_rabbitmq: bool = False


def groups(needs: Sequence[Need]) -> list[str | None]:
    """Return for each test the name of its group, or None when it may run anywhere.

    The order of the tests does not matter: all processes of a run have to come to the same answer.
    """
    places = _spread(Counter(need.together or need.test for need in needs if need.on_rabbitmq))
    return [places.get(need.together or need.test, need.together) for need in needs]


def _spread(companies: Counter[str]) -> dict[str, str]:
    """Give each company a place, the largest first, always where the fewest tests are."""
    load = {f"rabbitmq-{number}": 0 for number in range(1, RABBITMQ_PROCESSES + 1)}
    places = {}
    for name, size in sorted(companies.items(), key=lambda item: (-item[1], item[0])):
        place = min(load, key=load.__getitem__)
        places[name] = place
        load[place] += size
    return places
