"""From messages as they lay in a list to deliveries."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from celeriac.message import Delivery, Park, Verdict
from celeriac.net.redis_link import RedisFailure, Refused, ReplyError
from celeriac.net.redis_stream import Answers
from celeriac.transports.redis import postmarks
from celeriac.transports.redis.holding import Token, list_of, number_of
from celeriac.transports.redis.membership import Membership
from celeriac.transports.redis.names import Names
from celeriac.transports.redis.settlement import DeadLetterNote, settlement


class Arrivals:
    """Takes in what has been leased to us.

    Duties: 1. read messages, whatever they are, and hand them on as deliveries; 2. park those that were sent
    to come later.

    Args:
        names: The names of keys.
        membership: Ours; the deliveries are noted in its holding.
        deliver: Called with each delivery.
        on_broken: Called when parking was refused.
    """

    def __init__(
        self,
        names: Names,
        membership: Membership,
        deliver: Callable[[Delivery], None],
        on_broken: Callable[[RedisFailure], None],
    ) -> None:
        self._names = names
        self._membership = membership
        self._deliver = deliver
        self._on_broken = on_broken

    def take_in(
        self,
        messages: Sequence[bytes],
        list_: bytes,
        first_number: int,
        now: float,
        *,
        caught: bool = False,
    ) -> float | None:
        """Take in messages of one list; returns when the first of those is due that had to be parked.

        Args:
            messages: As they lay in the list.
            list_: Its name without the prefix.
            first_number: The number in the field of the first message; the others follow.
            now: Epoch seconds.
            caught: They lie in the list of what was caught.
        """
        holding = self._membership.holding
        queue, label = self._names.queue_of(list_), b":" + list_
        early: list[tuple[Token, int, Verdict]] = []
        due: float | None = None
        for number, message in enumerate(messages, first_number):
            found = postmarks.opened(message)
            token = Token(holding, number, b"%d%s" % (number, label), message, caught=caught)
            if found.not_before is not None and found.not_before > now:
                early.append((token, 1, Park(found.not_before)))
                due = min(due or found.not_before, found.not_before)
                continue
            holding.tokens[token.field] = token
            self._deliver(found.delivery(queue, token))
        if early:
            self._park(early)
        return due

    def take_lost(self, field: bytes, message: bytes) -> None:
        """Hand on a delivery that a dead node had begun; it is in our lease already."""
        holding = self._membership.holding
        token = Token(holding, number_of(field), field, message, begun=True)
        holding.tokens[field] = token
        found = postmarks.opened(message)
        found.redelivered = True
        found.attempt += 1
        delivery = found.delivery(self._names.queue_of(list_of(field)), token)
        delivery.lost = True
        self._deliver(delivery)

    def _park(self, early: list[tuple[Token, int, Verdict]]) -> None:
        """Put away what came early. It never counted as held: a new connection would put it back."""
        todo = settlement(early, self._membership.holding.id, self._names, DeadLetterNote("", 0))
        stream = self._membership.current()
        if stream is not None:
            stream.ask(todo.data, todo.count, self._parked)

    def _parked(self, answer: Answers | RedisFailure) -> None:
        if not isinstance(answer, RedisFailure) and isinstance(answer[0], ReplyError):
            self._membership.drop()
            self._on_broken(Refused(str(answer[0])))
