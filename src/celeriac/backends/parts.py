"""Parts of chords, many at once."""

from __future__ import annotations

from collections.abc import Iterable

from celeriac.message import Part


def by_chord(batch: Iterable[Part]) -> dict[str, list[Part]]:
    """Return the parts of each chord, the first of each task.

    The chords are in the order of their ids: who locks one after the other, as another node does at the same
    moment, must not wait for somebody who waits for him.
    """
    chords: dict[str, dict[str, Part]] = {}
    for part in batch:
        chords.setdefault(part.chord_id, {}).setdefault(part.task_id, part)
    return {chord_id: list(chords[chord_id].values()) for chord_id in sorted(chords)}
