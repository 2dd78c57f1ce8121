"""The port of what is revoked: ids and stamps that are remembered for workers that were not there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec

MOST: Final = 50_000  # revocations that are kept; the oldest are forgotten first
KEPT_SECONDS: Final = 86_400.0  # for how long, unless a setting says otherwise


class Revocation(msgspec.Struct, frozen=True):
    """Something that shall not begin, or with a signal: not go on. One task, or all that have a stamp.

    Who revokes and terminates says both. So a worker that knows nothing of signals still lets nothing begin.
    """

    value: str  # the task's id, or the stamp's value in JSON
    stamp: str = ""  # the stamp's name; empty for a task
    signal: str = ""  # ends what runs of it, such as SIGTERM; empty: it shall not begin


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


def of_tasks(ids: Iterable[str], signal: str = "") -> list[Revocation]:
    """Return the revocations of tasks by their ids.

    Args:
        ids: The ids.
        signal: Ends those that run, as `celeriac.signum.signal_name` writes it; empty: they go on.
    """
    return _with_ends([Revocation(task_id) for task_id in ids], signal)


def of_stamps(stamps: Mapping[str, Any], signal: str = "") -> list[Revocation]:
    """Return the revocations of all that have one of these stamps.

    Args:
        stamps: A value, or one of several, by name.
        signal: As for `of_tasks`.
    """
    these = [Revocation(text, name) for name, value in stamps.items() for text in stamp_texts(value)]
    return _with_ends(these, signal)


def _with_ends(these: list[Revocation], signal: str) -> list[Revocation]:
    if not signal:
        return these
    return these + [Revocation(each.value, each.stamp, signal) for each in these]


def stamp_texts(value: Any) -> list[str]:  # Any: a stamp's value, or several
    """Return the values of a stamp as they are compared and kept: in JSON."""
    several = value if isinstance(value, (list, tuple, set, frozenset)) else [value]
    return [_JSON.encode(each).decode() for each in several]


_JSON: Final = msgspec.json.Encoder(enc_hook=repr, order="sorted")
