"""Verdicts as commands; pure."""

from __future__ import annotations

import json
from collections.abc import Sequence

import msgspec

from celeriac.message import Ack, DeadLetter, Park, Reject, Requeue, Start, Verdict
from celeriac.net.redis_link import pack
from celeriac.transports.redis import postmarks
from celeriac.transports.redis.holding import Token, list_of
from celeriac.transports.redis.names import Names
from celeriac.transports.redis.scripts import SETTLE


class DeadLetterNote(msgspec.Struct, frozen=True):
    """What is kept with a dead letter, and how many a queue keeps."""

    node: str
    limit: int
    at: float = 0.0  # epoch seconds

    def line(self, reason: str) -> str:
        """Return the line of JSON that goes before the message."""
        return json.dumps({"reason": reason, "at": round(self.at, 3), "node": self.node})


class Settlement(msgspec.Struct):
    """What to send, and what is true once it was answered."""

    data: bytes = b""
    count: int = 0  # answers
    started: list[Token] = []
    ended: list[Token] = []
    refills: bool = False  # something went back into a list


def settlement(
    pairs: Sequence[tuple[Token, int, Verdict]], lease: bytes, names: Names, note: DeadLetterNote
) -> Settlement:
    """Return the commands for verdicts on deliveries of one lease: one HDEL and one script at most.

    Args:
        pairs: The deliveries that are ours, each with its attempt and its verdict.
        lease: The key of the lease.
        names: The names of keys.
        note: What is kept with dead letters.
    """
    done: list[bytes] = []
    operations: list[bytes | str | float] = []
    result = Settlement()
    for token, attempt, verdict in pairs:
        field = token.field
        if type(verdict) is Ack or type(verdict) is Reject:
            done.append(field)
            if token.begun:
                done.append(b"!" + field)
        elif type(verdict) is Start:
            if not token.begun:
                operations += ("start", field)
                result.started.append(token)
            continue
        elif type(verdict) is Requeue:
            result.refills = True
            if verdict.untouched:
                operations += ("back", field)
            else:
                following = 2 if verdict.willing else attempt + 1
                operations += ("again", field, postmarks.redelivered(token.message, following))
        elif type(verdict) is Park:
            operations += ("park", field, names.queue_of(list_of(field)), verdict.until)
        elif type(verdict) is DeadLetter:
            operations += (
                "dead",
                field,
                names.dead(names.queue_of(list_of(field))),
                note.line(verdict.reason),
            )
        result.ended.append(token)
    if done:
        result.data += pack(("HDEL", lease, *done))
        result.count += 1
    if operations:
        result.data += SETTLE.call([lease, names.due], [names.prefix, note.limit, *operations])
        result.count += 1
    return result


def bury(key: bytes, note: DeadLetterNote, reason: str, message: bytes) -> bytes:
    """Return two packed commands that keep a message which no lease holds as a dead letter."""
    entry = note.line(reason).encode() + b"\n" + message
    return pack(("LPUSH", key, entry)) + pack(("LTRIM", key, 0, note.limit - 1))


def exhumed(entry: bytes) -> tuple[str, bytes]:
    """Return the reason and the message of an item of a list of dead letters."""
    line, _, message = entry.partition(b"\n")
    try:
        return str(json.loads(line)["reason"]), message
    except (ValueError, KeyError, TypeError):
        return "", entry
