"""What a worker shows when it starts: who it is, where its messages come from, and what it can run."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Sequence

import msgspec

from celeriac.queues import Queue

# A celeriac: leaves above, the root below.
_GUTTER = (
    r"   \ \ | / /    ",
    r"    \ \|/ /     ",
    r"  .--\ | /--.   ",
    r" /    '|'    \  ",
    r"|   ~     ~   | ",
    r"|     ~  ~    | ",
    r"|  ~        ~ | ",
    r" \    ~  ~   /  ",
    r"  '-._____.-'   ",
    r"     / / \      ",
    r"                ",
)


class BannerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the banner tells."""

    hostname: str
    version: str
    app: str
    transport: str
    results: str
    concurrency: str
    events: bool
    queues: Sequence[Queue]
    tasks: Sequence[str]
    show_tasks: bool


def render(facts: BannerFacts, now: datetime.datetime) -> str:
    """Return the banner's text.

    Args:
        facts: What it tells.
        now: The time it shows.
    """
    events = "ON" if facts.events else "OFF (enable -E to monitor tasks in this worker)"
    lines = [
        f"{facts.hostname} v{facts.version}",
        "",
        f"{platform.platform()} {now:%Y-%m-%d %H:%M:%S}",
        "",
        "[config]",
        f".> app:         {facts.app}",
        f".> transport:   {facts.transport}",
        f".> results:     {facts.results}",
        f".> concurrency: {facts.concurrency}",
        f".> task events: {events}",
        "",
    ]
    text = [f"{art} {line}".rstrip() for art, line in zip(_GUTTER, lines, strict=True)]
    text += [f"{'':16} [queues]"]
    text += [f"{'':16} {_queue_line(queue)}" for queue in facts.queues]
    if facts.show_tasks:
        text += ["", "[tasks]", *(f"  . {name}" for name in sorted(facts.tasks))]
    return "\n".join(["", *text, ""])


def _queue_line(queue: Queue) -> str:
    exchange = queue.exchange
    return f".> {queue.name:<16} exchange={exchange.name}({exchange.type}) key={queue.routing_key}"
