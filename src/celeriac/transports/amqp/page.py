"""A page of a timetable on RabbitMQ: lines with their revisions, in one message."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from celeriac.message import Envelope, Outgoing, Props
from celeriac.queues import Queue
from celeriac.timetable import Line

_NEVER: Final = (None, 0)


class Page(msgspec.Struct, array_like=True, frozen=True):
    """The lines, and the revision of the newest of them."""

    revision: int = 0
    lines: dict[str, tuple[bytes | None, int]] = {}

    def line(self, key: str) -> tuple[bytes | None, int]:
        """Return a line's value and revision; None and 0 when there is none."""
        return self.lines.get(key, _NEVER)

    def revised(self, changes: Mapping[str, bytes | None], *, most_removed: int) -> Page:
        """Return the page with other lines.

        Args:
            changes: Their values by key; None removes one.
            most_removed: How many removed lines are kept, the newest, so that others see that they were.
        """
        revision = self.revision + 1
        lines = {**self.lines, **{key: (value, revision) for key, value in changes.items()}}
        removed = [(at, key) for key, (value, at) in lines.items() if value is None]
        for _, key in sorted(removed)[: max(len(removed) - most_removed, 0)]:
            del lines[key]
        return Page(revision, lines)

    def since(self, revision: int) -> dict[str, Line]:
        """Return the lines that are newer than a revision of this page."""
        return {key: Line(value, at) for key, (value, at) in self.lines.items() if at > revision}

    def unlike(self, before: Page) -> dict[str, Line]:
        """Return the lines that are not as they were on another page, those that are gone without a value."""
        lines = {
            key: Line(*line)
            for key, line in self.lines.items()
            if line != before.lines.get(key)
        }  # fmt: skip
        return lines | dict.fromkeys(before.lines.keys() - self.lines.keys(), Line(None, self.revision))

    def outgoing(self, queue: Queue) -> Outgoing:
        """Return the message that puts the page into a queue."""
        envelope = Envelope(headers={}, body=_encode(self), properties=Props())
        return Outgoing(envelope=envelope, routing_key=queue.name, queue=queue)


def newest(pages: Iterable[Page]) -> Page:
    """Return the page with the newest revision; an empty one when there is none."""
    return max(pages, key=lambda page: page.revision, default=Page())


def united(pages: Iterable[Page]) -> Page:
    """Return the newest of all lines, in the newest revision."""
    ordered = sorted(pages, key=lambda page: page.revision)
    lines: dict[str, tuple[bytes | None, int]] = {}
    for page in ordered:
        lines |= {key: line for key, line in page.lines.items() if line[1] >= lines.get(key, _NEVER)[1]}
    return Page(newest(ordered).revision, lines)


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Page).decode


def read_page(body: bytes) -> Page:
    """Return the page in a message.

    Raises:
        msgspec.MsgspecError: There is none in it.
    """
    return _decode(body)
