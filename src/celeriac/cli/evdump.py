"""``celery events --dump``: every event as a line."""

from __future__ import annotations

import datetime
import sys
from typing import Any, Final, TextIO

from celeriac.events.lru import LRUCache
from celeriac.events.snapshot import watch
from celeriac.wire.event import Event

_MOST_NAMES: Final = 4095  # of tasks that are known by name
_TYPES: Final = {
    "worker-offline": "shutdown",
    "worker-online": "started",
    "worker-heartbeat": "heartbeat",
}


def humanize_type(type: str) -> str:
    """Return a type of event in words."""
    return _TYPES.get(type.lower()) or type.lower().replace("-", " ")


class Dumper:
    """Writes events as lines.

    Args:
        out: Where to.
    """

    def __init__(self, out: TextIO | None = None) -> None:
        self.out: TextIO = sys.stdout if out is None else out
        self._names: LRUCache[str, str] = LRUCache(_MOST_NAMES)

    def say(self, msg: str) -> None:
        """Write a line."""
        print(msg, file=self.out, flush=True)

    def on_event(self, ev: Event) -> None:
        """Write an event."""
        fields = dict(ev)
        sent = datetime.datetime.fromtimestamp(fields.pop("timestamp"), datetime.UTC)
        kind, hostname = fields.pop("type").lower(), fields.pop("hostname")
        if kind.startswith("task-"):
            uuid = fields.pop("uuid")
            task = self._task(kind, uuid, fields)
        else:
            task = ""
        told = ", ".join(f"{name}={fields[name]}" for name in sorted(fields))
        colon = ":" if told else ""
        self.say(f"{hostname} [{sent}] {humanize_type(kind)}{task}{colon} {told}")

    def _task(self, kind: str, uuid: str, fields: dict[str, Any]) -> str:
        if kind in ("task-received", "task-sent"):
            name = f"{fields.pop('name', None)}({uuid})"
            self._names[uuid] = name
            return f": {name} args={fields.pop('args', None)} kwargs={fields.pop('kwargs', None)}"
        return f": {self._names.get(uuid, '')}{'' if uuid in self._names else uuid}"


def evdump(app: Any, out: TextIO | None = None) -> None:
    """Write events as lines until interrupted.

    Args:
        app: The app; a Celeriac.
        out: Where to.
    """
    dumper = Dumper(out)
    dumper.say("-> evdump: starting capture...")
    try:
        watch(app, {"*": dumper.on_event})
    except (KeyboardInterrupt, SystemExit):
        return
