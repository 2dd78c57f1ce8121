"""Dead letters as they are kept, and which of them a person wants to see."""

from __future__ import annotations

import msgspec

from celeriac.message import Envelope

MOST_LETTERS = 10_000  # that a queue keeps, unless told otherwise; the oldest go first


class Letter(msgspec.Struct, kw_only=True):
    """A message that was given up on, and what is known of that."""

    id: str  # unique within its queue, the same as long as it is kept
    queue: str
    kind: str  # one of `message.LetterKind`; "" when it was kept without one
    reason: str  # for people
    at: float = 0.0  # epoch seconds; 0 when unknown
    node: str = ""  # the node that gave it up
    attempt: int = 0  # how many times it had been handed to a worker; 0 when unknown
    exchange: str = ""
    routing_key: str = ""
    envelope: Envelope  # as it was sent; of an unreadable one the body has all its bytes


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which letters are meant; what is left empty does not matter."""

    names: frozenset[str] = frozenset()  # of tasks
    kinds: frozenset[str] = frozenset()
    ids: frozenset[str] = frozenset()  # of letters or of tasks
    since: float | None = None  # epoch seconds: given up then or later
    before: float | None = None  # epoch seconds: given up earlier


EVERYTHING = Wanted()


def matches(letter: Letter, wanted: Wanted) -> bool:
    """Return whether a letter is among those that are wanted."""
    return (
        (not wanted.names or task_of(letter) in wanted.names)
        and (not wanted.kinds or letter.kind in wanted.kinds)
        and (not wanted.ids or letter.id in wanted.ids or task_id_of(letter) in wanted.ids)
        and (wanted.since is None or letter.at >= wanted.since)
        and (wanted.before is None or letter.at < wanted.before)
    )


def task_of(letter: Letter) -> str:
    """Return the name of the task; empty when the message has none that can be read."""
    return _header(letter, "task")


def task_id_of(letter: Letter) -> str:
    """Return the id of the task; empty when the message has none that can be read."""
    return _header(letter, "id") or letter.envelope.properties.correlation_id or ""


def _header(letter: Letter, name: str) -> str:
    value = letter.envelope.headers.get(name)
    return value if isinstance(value, str) else ""
