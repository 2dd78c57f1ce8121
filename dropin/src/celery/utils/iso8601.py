"""Times in ISO 8601."""

from __future__ import annotations

import datetime

__all__ = ("parse_iso8601",)


def parse_iso8601(datestring: str) -> datetime.datetime:
    """Return the time of a text.

    Raises:
        ValueError: It is no such text.
    """
    try:
        return datetime.datetime.fromisoformat(datestring)
    except ValueError as exc:
        raise ValueError(f"unable to parse date string {datestring!r}") from exc
