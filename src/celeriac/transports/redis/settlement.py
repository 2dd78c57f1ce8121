"""Verdicts as commands; pure."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence

import msgspec

from celeriac.message import Ack, DeadLetter, Park, Reject, Requeue, Start, Verdict
from celeriac.net.redis_link import pack
from celeriac.transports.redis import postmarks
from celeriac.transports.redis.holding import Token, list_of
from celeriac.transports.redis.names import Names
from celeriac.transports.redis.scripts import SETTLE, TAKE_IN

Operation = tuple[bytes | str | float, ...]  # what the script does with one message


class DeadLetterNote(msgspec.Struct, frozen=True):
    """What is kept with a dead letter, and how many a queue keeps."""

    node: str
    limit: int
    at: float = 0.0  # epoch seconds

    def line(self, verdict: DeadLetter, attempt: int) -> str:
        """Return the line of JSON that goes before the message."""
        return json.dumps(
            {
                "reason": verdict.reason,
                "kind": verdict.kind,
                "at": round(self.at, 3),
                "node": self.node,
                "attempt": attempt,
            }
        )


class Settlement(msgspec.Struct):
    """What to send, and what is true once it was answered."""

    data: bytes = b""
    count: int = 0  # answers
    started: list[Token] = []
    ended: list[Token] = []
    refills: bool = False  # something went back into a list


def settlement(
    pairs: Sequence[tuple[Token, int, Verdict]], id_: str, names: Names, note: DeadLetterNote
) -> Settlement:
    """Return the commands for verdicts on deliveries of one lease: one HDEL and one script at most.

    What was caught and is done needs an LREM each, and everything else about it two scripts: so be it, for
    hardly anything that is caught takes long enough to be begun.

    Args:
        pairs: The deliveries that are ours, each with its attempt and its verdict.
        id_: The id that the lease is kept by.
        names: The names of keys.
        note: What is kept with dead letters.
    """
    lease, catch = names.lease(id_), names.catch(id_)
    done: list[bytes] = []
    caught: list[Token] = []
    operations: list[Operation] = []
    result = Settlement()
    for token, attempt, verdict in pairs:
        if type(verdict) is Ack or type(verdict) is Reject:
            if token.caught:
                result.data += pack(("LREM", catch, -1, token.message))
                result.count += 1
            else:
                done.append(token.field)
                if token.begun:
                    done.append(b"!" + token.field)
            result.ended.append(token)
            continue
        if token.caught:
            caught.append(token)
        if type(verdict) is Start:
            if not token.begun:
                operations.append(("start", token.field))
                result.started.append(token)
            continue
        result.refills = result.refills or type(verdict) is Requeue
        operations.append(_operation(token, attempt, verdict, names, note))
        result.ended.append(token)
    if caught:
        result.data += taken_in(caught, id_, names)
        result.count += 1
    if done:
        result.data += pack(("HDEL", lease, *done))
        result.count += 1
    if operations:
        parts = itertools.chain.from_iterable(_in_order(operations))
        result.data += SETTLE.call([lease, names.due], [names.prefix, note.limit, *parts])
        result.count += 1
    return result


def _in_order(operations: list[Operation]) -> list[Operation]:
    """Return the operations so that what was taken first is put back last: that comes out first."""
    back = [operation for operation in operations if operation[0] == "back"]
    return [operation for operation in operations if operation[0] != "back"] + back[::-1]


def _operation(token: Token, attempt: int, verdict: Verdict, names: Names, note: DeadLetterNote) -> Operation:
    """Return what SETTLE is told of a verdict."""
    field = token.field
    if type(verdict) is Requeue:
        if verdict.untouched:
            return ("back", field)
        following = 2 if verdict.willing else attempt + 1
        message, key = postmarks.redelivered(token.message, following), postmarks.key_of(token.message)
        return ("again", field, message) if key is None else ("turn", field, message, key)
    if type(verdict) is Park:
        queue, key = names.queue_of(list_of(field)), postmarks.key_of(token.message)
        parked = (field, queue, verdict.until)
        return ("park", *parked) if key is None else ("rest", *parked, key)
    assert type(verdict) is DeadLetter
    return ("dead", field, names.dead(names.queue_of(list_of(field))), note.line(verdict, attempt))


def taken_in(caught: Sequence[Token], id_: str, names: Names) -> bytes:
    """Return the packed command that puts what was caught into the hash of a lease; one answer."""
    arguments = [part for token in caught for part in (token.field, token.message)]
    command = TAKE_IN.call([names.lease(id_), names.catch(id_)], arguments)
    for token in caught:
        token.caught = False  # for every later command; should this one be lost, joining puts it right
    return command


def bury(key: bytes, note: DeadLetterNote, verdict: DeadLetter, message: bytes) -> bytes:
    """Return two packed commands that keep a message which no lease holds as a dead letter."""
    entry = note.line(verdict, 1).encode() + b"\n" + message
    return pack(("LPUSH", key, entry)) + pack(("LTRIM", key, 0, note.limit - 1))
