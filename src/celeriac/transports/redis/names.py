"""The names of keys and channels: Celery's where peers read them, ``celeriac.…`` where they do not."""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from typing import Any, Final

from celeriac.errors import ConfigError

SEPARATOR: Final = "\x06\x16"
STEPS: Final = (0, 3, 6, 9)
ALL_STEPS: Final = tuple(range(10))
HIGHEST_PRIORITY: Final = 9


class Names:
    """Every name that one configuration of the transport uses.

    Peers on the same database have to agree on all options here.

    Args:
        database: Part of the channel names, for channels belong to the whole server.
        options: ``global_keyprefix``, ``sep``, ``priority_steps``, ``fanout_prefix`` and
            ``fanout_patterns``, as kombu has them; ``high_priority_first``: 9 is the most urgent, and each
            priority has a list of its own unless ``priority_steps`` says otherwise.

    Raises:
        ConfigError: ``priority_steps`` is no list of numbers.
    """

    def __init__(self, database: int, options: Mapping[str, Any]) -> None:
        self.prefix: str = options.get("global_keyprefix") or ""
        self.separator: str = options.get("sep") or SEPARATOR
        self.high_first: bool = bool(options.get("high_priority_first"))
        usual = ALL_STEPS if self.high_first else STEPS
        self.steps: tuple[int, ...] = _steps(options.get("priority_steps"), usual)
        fanout = options.get("fanout_prefix", True)
        if fanout is True:
            fanout = "/{db}."
        self._channel_prefix = str(fanout).format(db=database) if fanout else ""
        self._channel_keys = bool(options.get("fanout_patterns", True))
        self._suffixes = {str(step) for step in self.steps if step}
        self.nodes: bytes = self.key("celeriac.nodes")
        self.outage: bytes = self.key("celeriac.outage")
        self.due: bytes = self.key("celeriac.due")
        self.sent_once: bytes = self.key("celeriac.sent_once")
        self.catching: bytes = self.key("celeriac.catching")
        self._cache: dict[tuple[str, int], bytes] = {}

    def key(self, name: str) -> bytes:
        """Return a key with the prefix that all keys of this configuration have."""
        return (self.prefix + name).encode()

    def list_of(self, queue: str, priority: int | None) -> bytes:
        """Return the list that messages of a priority go to; the lowest step is served first."""
        wanted = min(max(priority or 0, 0), HIGHEST_PRIORITY)
        if self.high_first:
            wanted = HIGHEST_PRIORITY - wanted
        key = self._cache.get((queue, wanted))
        if key is None:
            step = self.steps[max(bisect.bisect_right(self.steps, wanted) - 1, 0)]
            key = self._cache[queue, wanted] = self.key(self._list(queue, step))
        return key

    def lists(self, queue: str) -> tuple[bytes, ...]:
        """Return the lists of a queue, the one served first first."""
        return tuple(self.key(self._list(queue, step)) for step in self.steps)

    def queue_of(self, list_: bytes) -> str:
        """Return the queue that a list belongs to; the list without the prefix."""
        name = list_.decode()
        queue, found, step = name.rpartition(self.separator)
        return queue if found and step in self._suffixes else name

    def bare(self, key: bytes) -> bytes:
        """Return a key without the prefix."""
        return key[len(self.prefix.encode()) :]

    def parked(self, queue: str) -> bytes:
        """Return the sorted set of messages that wait for their time, scored with it in epoch seconds."""
        return self.key(f"celeriac.parked:{queue}")

    def keyed(self, list_: bytes) -> bytes:
        """Return the sorted set of a list's messages that take turns by a key, scored with their round."""
        return self.key("celeriac.keyed:") + self.bare(list_)

    def dead(self, queue: str) -> bytes:
        """Return the list of dead letters."""
        return self.key(f"celeriac.dead:{queue}")

    def lease(self, holder: str) -> bytes:
        """Return the hash of what a node holds."""
        return self.key(f"celeriac.lease:{holder}")

    def catch(self, holder: str) -> bytes:
        """Return the list of what the server has handed to a node and the node has not put into its hash."""
        return self.key(f"celeriac.catch:{holder}")

    def binding(self, exchange: str) -> bytes:
        """Return the set of an exchange's bindings."""
        return self.key(f"_kombu.binding.{exchange}")

    def lasting_binding(self, exchange: str) -> bytes:
        """Return the set of those bindings that kombu 5.7 may not clear away after a while."""
        return self.key(f"_kombu.binding_permanent.{exchange}")

    def member(self, routing_key: str, pattern: str, queue: str) -> str:
        """Return a binding as a member of that set."""
        return self.separator.join((routing_key, pattern, queue))

    def split_member(self, member: bytes) -> tuple[str, str, str] | None:
        """Return routing key, pattern and queue of a member; None when it is something else."""
        parts = member.decode("utf-8", "replace").split(self.separator)
        return (parts[0], parts[1], parts[2]) if len(parts) == 3 else None

    def channel(self, exchange: str, routing_key: str) -> str:
        """Return the channel that a fanout exchange publishes on."""
        name = f"{self.prefix}{self._channel_prefix}{exchange}"
        return f"{name}/{routing_key}" if routing_key and self._channel_keys else name

    def channel_pattern(self, exchange: str, routing_key: str) -> str:
        """Return the pattern to subscribe to: ``#`` of a topic becomes ``*``, which here spans words too."""
        return self.channel(exchange, routing_key.replace("#", "*"))

    def _list(self, queue: str, step: int) -> str:
        return f"{queue}{self.separator}{step}" if step else queue


def topic_regex(routing_key: str) -> str:
    """Return the regular expression that kombu stores beside a topic binding: real peers match with it."""
    words = [{"*": r".*?[^\.]", "#": r".*?"}.get(word, _escape(word)) for word in routing_key.split(".")]
    return "^" + r"\.".join(words) + "$"


def _escape(word: str) -> str:
    return "".join(c if c.isalnum() or c == "_" else f"\\{c}" for c in word)


def _steps(given: Sequence[int] | None, usual: tuple[int, ...]) -> tuple[int, ...]:
    if given is None:
        return usual
    try:
        steps = tuple(sorted(int(step) for step in given))
    except (TypeError, ValueError):
        steps = ()
    if not steps:
        raise ConfigError(
            f"priority_steps is {given!r}; it has to be a list of numbers, such as [0, 3, 6, 9]."
        )
    return steps
