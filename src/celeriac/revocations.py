"""The port of what is revoked: ids and stamps that are remembered for workers that were not there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec

MOST: Final = 50_000  # revocations that are kept; the oldest are forgotten first
KEPT_SECONDS: Final = 86_400.0  # for how long, unless a setting says otherwise


class Revocation(msgspec.Struct, frozen=True):
    """Something that shall not run: one task, or all that have a stamp."""

    value: str  # the task's id, or the stamp's value in JSON
    stamp: str = ""  # the stamp's name; empty for a task


class Remembered(msgspec.Struct, frozen=True):
    """A revocation that was kept, and how long ago it was made, by the clock of whoever kept it."""

    revocation: Revocation
    age_seconds: float


class Revocations(Protocol):
    """Keeps revocations, `MOST` of them or some more. Its calls block; they are safe for threads.

    Cheap to make: there is no I/O before the first call, and nothing has to be closed.
    """

    def note(self, revoked: Sequence[Revocation], *, kept_seconds: float) -> None:
        """Keep these from now on; what is kept already begins anew.

        Args:
            revoked: What to keep.
            kept_seconds: What is older than that, whoever has noted it, may be thrown away.

        Raises:
            TransportError: The store cannot be reached, or refuses.
        """
        ...

    def recall(self) -> list[Remembered]:
        """Return what is kept, with everything whose `note` has returned before; the oldest first.

        Raises:
            TransportError: The store cannot be reached, or refuses.
        """
        ...


def of_tasks(ids: Iterable[str]) -> list[Revocation]:
    """Return the revocations of tasks by their ids."""
    return [Revocation(task_id) for task_id in ids]


def of_stamps(stamps: Mapping[str, Any]) -> list[Revocation]:
    """Return the revocations of all that have one of these stamps: a value, or one of several, by name."""
    return [Revocation(text, name) for name, value in stamps.items() for text in stamp_texts(value)]


def stamp_texts(value: Any) -> list[str]:  # Any: a stamp's value, or several
    """Return the values of a stamp as they are compared and kept: in JSON."""
    several = value if isinstance(value, (list, tuple, set, frozenset)) else [value]
    return [_JSON.encode(each).decode() for each in several]


_JSON: Final = msgspec.json.Encoder(enc_hook=repr, order="sorted")
