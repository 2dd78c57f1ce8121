"""One field of a crontab: its text, or numbers, into the set of numbers that it allows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from celeriac.errors import CrontabSyntaxError, ScheduleError

__all__ = [
    "DAY_OF_MONTH",
    "DAY_OF_WEEK",
    "HOUR",
    "MINUTE",
    "MONTHS",
    "MONTH_OF_YEAR",
    "WEEKDAYS",
    "CronField",
]

WEEKDAYS: Final = {
    name: number for number, name in enumerate(("sun", "mon", "tue", "wed", "thu", "fri", "sat"))
}
MONTHS: Final = {
    name: number
    for number, name in enumerate(
        ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"), 1
    )
}
_EITHER: Final = {**WEEKDAYS, **MONTHS}
_SYNTAX: Final = "'*', '*/n', 'a', 'a-b', 'a-b/n', or several of these with commas between"


@dataclass(frozen=True, slots=True)
class CronField:
    """What one field of a crontab may say.

    Args:
        name: As messages call the field.
        lowest: The smallest number that it allows.
        highest: The largest number that it allows.
        names: Words for some numbers, known by their first three letters.
    """

    name: str
    lowest: int
    highest: int
    names: Mapping[str, int] = field(default_factory=lambda: _EITHER)

    def numbers(self, spec: Any) -> set[int]:  # Any: what a program gave, which may be of a wrong type
        """Return the numbers that a specification allows.

        Args:
            spec: A number, numbers, or a text of the syntax `parse` reads.

        Raises:
            TypeError: It is none of these.
            ScheduleError: A number is out of range, or the text cannot be read.
        """
        if isinstance(spec, str):
            return self.parse(spec)
        if isinstance(spec, int):
            return {self._in_range(spec, spec)}
        if isinstance(spec, Iterable) and not isinstance(spec, bytes | Mapping):
            numbers = list(spec)
            if all(isinstance(number, int) for number in numbers):
                return {self._in_range(number, number) for number in numbers}
        raise TypeError(f"{self.name} of a crontab is an int, a str or an iterable of ints, not {spec!r}")

    def parse(self, text: str) -> set[int]:
        """Return the numbers that a text allows: comma separated ``*``, ``*/n``, ``a``, ``a-b`` or ``a-b/n``.

        A range whose end is below its start goes on at the lowest number (``fri-mon``).

        Raises:
            CrontabSyntaxError: The text is not of that form.
            ScheduleError: A number or name in it is not one of this field.
        """
        numbers: set[int] = set()
        for part in text.split(","):
            numbers |= self._part(part.strip(), text)
        return numbers

    def _part(self, part: str, text: str) -> set[int]:
        if not part:
            raise self._unreadable("empty part", text)
        span, slash, step_text = part.partition("/")
        start, dash, end = span.partition("-")
        if span == "*":
            first, last = self.lowest, self.highest
        elif dash:
            if not start:
                raise self._unreadable("negative numbers not supported", text)
            first, last = self._number(start, text), self._number(end, text)
        elif slash:
            raise self._unreadable("a step needs a range or '*' before it", text)
        else:
            first = last = self._number(span, text)
        step = self._step(step_text, text) if slash else 1
        if last < first:
            last += self.highest - self.lowest + 1
        width = self.highest - self.lowest + 1
        return {(number - self.lowest) % width + self.lowest for number in range(first, last + 1, step)}

    def _step(self, digits: str, text: str) -> int:
        if not digits:
            raise self._unreadable("empty filter", text)
        if not digits.isdecimal() or int(digits) == 0:
            raise self._unreadable(f"step {digits!r} is no number above 0", text)
        return int(digits)

    def _number(self, word: str, text: str) -> int:
        word = word.strip()
        if word.isdecimal():
            return self._in_range(int(word), text)
        if len(word) >= 3 and word.isalpha() and word[:3].lower() in self.names:
            return self._in_range(self.names[word[:3].lower()], text)
        raise self._unreadable(f"{word!r} is neither a number nor a name", text)

    def _in_range(self, number: int, found: object) -> int:
        if self.lowest <= number <= self.highest:
            return number
        more = "" if found == number else f" in {found!r}"
        raise ScheduleError(
            f"{self.name} of a crontab cannot be {number}{more}: it is {self.lowest} to {self.highest}"
        )

    def _unreadable(self, reason: str, text: str) -> CrontabSyntaxError:
        return CrontabSyntaxError(
            f"{self.name} of a crontab, {text!r}, cannot be read: {reason}; "
            f"allowed are {_SYNTAX}, with numbers {self.lowest} to {self.highest}"
        )


MINUTE: Final = CronField("minute", 0, 59)
HOUR: Final = CronField("hour", 0, 23)
DAY_OF_WEEK: Final = CronField("day_of_week", 0, 6)
DAY_OF_MONTH: Final = CronField("day_of_month", 1, 31)
MONTH_OF_YEAR: Final = CronField("month_of_year", 1, 12)
