"""The dead letters of a RabbitMQ broker."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Final

from celeriac.letters import EVERYTHING, Letter, Wanted, matches, task_id_of
from celeriac.message import Outgoing
from celeriac.transports.amqp import frames, topology
from celeriac.transports.amqp.address import Address
from celeriac.transports.amqp.connection import Message
from celeriac.transports.amqp.errand import errand
from celeriac.transports.amqp.producer import AmqpProducer
from celeriac.wire.task import RESENT_HEADER

_CHANNEL: Final = 1
_NOT_FOUND: Final = 404
_LOOK_SECONDS: Final = 30.0
_SEND_SECONDS: Final = 5.0
_GETS: Final = 500  # basic.get in one write

See = Callable[[Letter], bool]  # what to do with a letter; whether to remove it from its queue


class AmqpGraveyard:
    """Finds, retries and removes dead letters; a letter's id is a hash of all that is kept of it.

    AMQP reads a queue from its old end only, so each of these walks through all letters. A connection of
    its own holds them meanwhile and gives them back, in their old places, when it closes or breaks: none can
    be lost, but whoever looks at the same time sees none.

    A letter that a node has sent twice, as nobody had confirmed the first one, is taken for one (`doubts`).
    When two nodes have given a message up, as RabbitMQ had not heard of the first, there are two. When
    they are sent again together, the second says that it may be there already.

    A letter is sent again with a confirm and then removed. When this process is killed between both, it is
    in its queue and kept as a letter as well: AMQP cannot do both in one step.

    Args:
        addresses: One broker, or several of which one answers.
        producer: Sends again, with confirms.
    """

    def __init__(self, addresses: Sequence[Address], producer: AmqpProducer) -> None:
        self._addresses = addresses
        self._producer = producer

    def find(self, queue: str, wanted: Wanted = EVERYTHING, limit: int = 100) -> list[Letter]:
        """See `celeriac.ports.Graveyard`."""
        newest: deque[Letter] = deque(maxlen=max(limit, 0))

        def see(letter: Letter) -> bool:
            if matches(letter, wanted):
                newest.append(letter)
            return False

        self._walk(queue, see)
        return list(reversed(newest))

    def retry(self, queue: str, ids: Collection[str]) -> list[str]:
        """See `celeriac.ports.Graveyard`, and above for what AMQP cannot do."""
        moved: list[str] = []
        turns: set[tuple[str, str, bytes]] = set()

        def see(letter: Letter) -> bool:
            if letter.id not in ids:
                return False
            envelope = letter.envelope
            turn = (task_id_of(letter), repr(envelope.headers.get("retries")), envelope.body)
            if turn in turns and turn[0]:
                envelope.headers[RESENT_HEADER] = True
            turns.add(turn)
            again = Outgoing(envelope=envelope, routing_key=queue)
            self._producer.send([again], deadline=_SEND_SECONDS)
            moved.append(letter.id)
            return True

        self._walk(queue, see)
        return moved

    def purge(self, queue: str, ids: Collection[str]) -> list[str]:
        """See `celeriac.ports.Graveyard`."""
        removed: list[str] = []

        def see(letter: Letter) -> bool:
            if letter.id in ids:
                removed.append(letter.id)
            return letter.id in ids

        self._walk(queue, see)
        return removed

    def _walk(self, queue: str, see: See) -> None:
        """Show all letters of a queue, the oldest first, and remove those that ``see`` says so of."""
        until = time.monotonic() + _LOOK_SECONDS
        seen: dict[str, bool] = {}  # by their ids, whether they are removed
        # Not found: there are no dead letters.
        with errand(self._addresses, until, unless=(_NOT_FOUND,)) as link:
            while True:
                asked = [
                    link.core.request(_CHANNEL, "basic.get", 0, queue + topology.DEAD_SUFFIX, False)
                    for _ in range(_GETS)
                ]
                link.await_all(asked, until)
                found = [request.answer for request in asked if isinstance(request.answer, Message)]
                for message in found:
                    letter = topology.read_letter(message, queue)
                    # What has no time of ours may be the same twice because it was sent twice.
                    if not letter.at or letter.id not in seen:
                        seen[letter.id] = see(letter)
                    if seen[letter.id]:
                        link.send(frames.ack(_CHANNEL, message.tag), until)
                if len(found) < _GETS:
                    return
