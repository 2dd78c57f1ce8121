"""Whose message of a queue comes next, where tenants share it: the rule for brokers that can run it. Pure.

A message may say whom it is for, by a key. The queue is then served in rounds, in each of which every key has
one message at most: who has one waits for the round that is under way, whatever others have sent. Messages
without a key take part as if they were those of one more.

This is start-time fair queueing, with rounds for its virtual time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

FAIR_KEY_HEADER: Final = "celeriac_fair_key"
_MOST_CHARACTERS: Final = 200  # of a key; who calls sends no longer one


class Choice(NamedTuple):
    """What is served next, and what is true after that."""

    keyed: int  # how many of the messages with a key, the first ones
    plain: int  # how many of those without
    now: int  # the round under way
    last: int | None  # that of the last message without a key


def fair_key(headers: Mapping[str, Any]) -> str | None:  # Any: whatever the sender put there
    """Return the key of a message; None when it has none, or nothing that could be one."""
    key = headers.get(FAIR_KEY_HEADER)
    return key if isinstance(key, str) and len(key) <= _MOST_CHARACTERS else None


def join(now: int, last: int | None) -> int:
    """Return the round of a new message.

    Args:
        now: The round under way.
        last: That of the message of its key which came before; None when none is known.
    """
    return now if last is None else max(now, last + 1)


def next_ones(now: int, last: int | None, waiting: Sequence[int], others: int, limit: int) -> Choice:
    """Return what is served next.

    Args:
        now: The round under way.
        last: That of the message without a key which was served last; None when none is known.
        waiting: The rounds of the first messages with a key, in order: as many as ``limit``, if there are.
        others: How many there are without one.
        limit: How many are wanted.
    """
    own, keyed, plain = join(now, last), 0, 0
    while keyed + plain < limit:
        if keyed < len(waiting) and (plain == others or waiting[keyed] <= own):
            now = waiting[keyed]
            own = max(own, now)
            keyed += 1
        elif plain < others:
            now = last = own
            own += 1
            plain += 1
        else:
            break
    return Choice(keyed, plain, now, last)
