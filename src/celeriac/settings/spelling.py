"""Finds the name that somebody meant to type."""

from __future__ import annotations

from collections.abc import Iterable

_MOST_SLIPS = 2


class Speller:
    """Knows some names and finds the one that a misspelt name stands for.

    A slip is a letter too many, too few, wrong, or two swapped; long names may have two of them.

    Args:
        names: The right names.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._by_length: dict[int, list[tuple[int, str]]] = {}
        for name in names:
            self._by_length.setdefault(len(name), []).append((_letters(name), name))

    def closest(self, name: str) -> str | None:
        """Return the name that is meant, or None when it resembles none of them.

        A Django project has hundreds of names that are not ours, so the table of slips is only made for
        those few whose length and letters leave room for a slip.
        """
        slips = _MOST_SLIPS if len(name) >= 10 else 1
        letters = _letters(name)
        best: str | None = None
        for length in range(len(name) - slips, len(name) + slips + 1):
            for others, other in self._by_length.get(length, ()):
                if (letters ^ others).bit_count() <= 2 * slips:
                    distance = _distance(name, other)
                    if distance <= slips:
                        best, slips = other, distance - 1
        return best


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """Return the one of the known names that is a slip of the keyboard away, if there is one."""
    return Speller(known).closest(name)


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
