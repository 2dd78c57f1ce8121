"""How the four kinds of exchange choose queues, as RabbitMQ does it; pure."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from celeriac.queues import Queue


class Bound(msgspec.Struct, frozen=True, kw_only=True):
    """One way from an exchange into a queue."""

    exchange: str
    queue: str
    routing_key: str = ""
    arguments: dict[str, Any] = {}  # Any: header values to match on


def bindings_of(queue: Queue) -> list[tuple[str, Bound]]:
    """Return every binding that a queue's declaration asks for, each with its exchange's type."""
    found = []
    if queue.exchange.name:
        bound = Bound(exchange=queue.exchange.name, queue=queue.name, routing_key=queue.routing_key)
        found.append((queue.exchange.type, bound))
    for extra in queue.bindings:
        if extra.exchange.name:
            bound = Bound(
                exchange=extra.exchange.name,
                queue=queue.name,
                routing_key=extra.routing_key,
                arguments=extra.arguments,
            )
            found.append((extra.exchange.type, bound))
    return found


def route(
    kind: str,
    bindings: Iterable[Bound],
    routing_key: str,
    headers: Mapping[str, Any],  # Any: header values are whatever the sender put there
) -> list[str]:
    """Return the queues that a message goes to, each once, in the order of their bindings.

    Args:
        kind: direct, topic, fanout or headers.
        bindings: Those of the exchange that the message was sent to.
        routing_key: The message's.
        headers: The message's; only the headers exchange looks at them.
    """
    chosen: dict[str, None] = {}
    for bound in bindings:
        match kind:
            case "fanout":
                hit = True
            case "topic":
                hit = topic_matches(bound.routing_key, routing_key)
            case "headers":
                hit = _headers_match(bound.arguments, headers)
            case _:
                hit = bound.routing_key == routing_key
        if hit:
            chosen[bound.queue] = None
    return list(chosen)


@functools.lru_cache(maxsize=4096)
def topic_matches(pattern: str, routing_key: str) -> bool:
    """Return whether a topic pattern covers a routing key: ``*`` is one word, ``#`` any number of words."""
    return _words_match(_words(pattern), _words(routing_key))


def _words(text: str) -> list[str]:
    return text.split(".") if text else []


def _words_match(pattern: list[str], words: list[str]) -> bool:
    if not pattern:
        return not words
    first, rest = pattern[0], pattern[1:]
    if first == "#":
        return any(_words_match(rest, words[skip:]) for skip in range(len(words) + 1))
    return bool(words) and first in ("*", words[0]) and _words_match(rest, words[1:])


def _headers_match(wanted: Mapping[str, Any], headers: Mapping[str, Any]) -> bool:
    pairs = [(key, value) for key, value in wanted.items() if not key.startswith("x-")]
    hits = [headers.get(key) == value for key, value in pairs]
    return any(hits) if wanted.get("x-match") == "any" else all(hits)
