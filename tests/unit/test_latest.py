"""A dict that forgets what was noted longest ago."""

from __future__ import annotations

from celeriac.latest import Latest


def test_the_oldest_is_forgotten_when_there_are_too_many() -> None:
    latest: Latest[str, int] = Latest(2)

    for value, key in enumerate("abc"):
        latest.note(key, value)

    assert latest == {"b": 1, "c": 2}


def test_what_is_noted_once_more_is_the_newest() -> None:
    latest: Latest[str, int] = Latest(2)
    latest.note("a", 1)
    latest.note("b", 2)

    latest.note("a", 3)
    latest.note("c", 4)

    assert latest == {"a": 3, "c": 4}
