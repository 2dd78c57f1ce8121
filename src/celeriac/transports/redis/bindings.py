"""Exchanges on Redis: sets of bindings that publishers read, as kombu keeps them."""

from __future__ import annotations

from collections.abc import Iterable

from celeriac.errors import ConfigError
from celeriac.net.redis_link import pack
from celeriac.queues import Queue
from celeriac.transports.exchanges import bindings_of, topic_matches
from celeriac.transports.redis.names import Names, topic_regex


def declaration(queue: Queue, names: Names) -> tuple[bytes, int]:
    """Return the packed commands that make a queue's bindings known, and how many answers they get.

    Raises:
        ConfigError: One of its exchanges is of a type that Redis cannot emulate.
    """
    commands = []
    for kind, bound in bindings_of(queue):
        if kind not in ("direct", "topic", "fanout"):
            raise ConfigError(
                f"Queue {queue.name!r} is bound to exchange {bound.exchange!r} of type {kind!r}; on Redis "
                "there are direct, topic and fanout exchanges only."
            )
        pattern = topic_regex(bound.routing_key) if kind == "topic" else ""
        member = names.member(bound.routing_key, pattern, queue.name)
        commands.append(pack(("SADD", names.binding(bound.exchange), member)))
        if "x-expires" not in queue.arguments:
            commands.append(pack(("SADD", names.lasting_binding(bound.exchange), member)))
    return b"".join(commands), len(commands)


def routed(members: Iterable[bytes], routing_key: str, names: Names) -> list[str]:
    """Return the queues that an exchange's bindings choose for a routing key, in a stable order.

    A member with a pattern is one of a topic exchange. It is matched as AMQP has it, not by the stored
    regular expression: that comes from others, and its ``*`` covers several words.
    """
    chosen = set()
    for member in members:
        parts = names.split_member(member)
        if parts is not None:
            key, pattern, queue = parts
            if topic_matches(key, routing_key) if pattern else key == routing_key:
                chosen.add(queue)
    return sorted(chosen)
