"""Finds the name that somebody meant to type."""

from __future__ import annotations

from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """Return the one of the known names that is a slip of the keyboard away from ``name``, if there is one.

    A slip is a letter too many, too few, wrong, or two swapped; long names may have two of them.
    """
    slips = 2 if len(name) >= 10 else 1
    letters = _letters(name)
    best: str | None = None
    for other in known:
        # Most names differ by more letters than slips can explain: three operations instead of a table.
        if abs(len(other) - len(name)) > slips or (letters ^ _letters(other)).bit_count() > 2 * slips:
            continue
        distance = _distance(name, other)
        if distance <= slips:
            best, slips = other, distance - 1
    return best


def _letters(name: str) -> int:
    bits = 0
    for letter in name:
        bits |= 1 << (ord(letter) & 31)
    return bits


def _distance(one: str, two: str) -> int:
    """Return how many slips turn one text into the other (optimal string alignment)."""
    before: list[int] = []
    above = list(range(len(two) + 1))
    for i, a in enumerate(one, 1):
        row = [i]
        for j, b in enumerate(two, 1):
            cost = min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (a != b))
            if i > 1 and j > 1 and a == two[j - 2] and one[i - 2] == b:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        before, above = above, row
    return above[-1]
