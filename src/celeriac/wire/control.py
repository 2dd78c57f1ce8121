"""Remote control on the wire: kombu's process mailboxes (pidbox). Pure.

A command goes to the exchange ``<name>.pidbox``, which every node listens to; an answer goes to
``reply.<name>.pidbox`` under a key that the one who asks has chosen.
"""

from __future__ import annotations

import fnmatch
import functools
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from celeriac.errors import DecodeError
from celeriac.queues import Exchange, Queue

MATCHERS: Final = ("glob", "pcre")
NOTED_HEADER: Final = "celeriac_noted"  # of the message


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """How the exchanges and queues of control are declared: the settings ``control_…``."""

    name: str = "celery"
    ttl_seconds: float | None = 300.0
    expires_seconds: float | None = 10.0
    durable: bool = False
    exclusive: bool = False

    @property
    def commands(self) -> Exchange:
        """The exchange that commands are sent to."""
        return Exchange(name=f"{self.name}.pidbox", type="fanout", durable=False)

    @property
    def answers(self) -> Exchange:
        """The exchange that answers are sent to."""
        return Exchange(name=f"reply.{self.name}.pidbox", type="direct", durable=False)

    def node_queue(self, node: str) -> Queue:
        """Return the queue in which a node hears commands."""
        return self._queue(f"{node}.{self.commands.name}", self.commands, "")

    def answer_queue(self, key: str) -> Queue:
        """Return the queue in which somebody waits for answers."""
        return self._queue(f"{key}.{self.answers.name}", self.answers, key)

    def _queue(self, name: str, exchange: Exchange, key: str) -> Queue:
        arguments = {
            argument: int(seconds * 1000)
            for argument, seconds in (
                ("x-message-ttl", self.ttl_seconds),
                ("x-expires", self.expires_seconds),
            )
            if seconds is not None
        }
        return Queue(
            name=name,
            exchange=exchange,
            routing_key=key,
            durable=self.durable,
            exclusive=self.exclusive,
            auto_delete=not self.durable,
            no_ack=True,
            arguments=arguments,
        )


class Command(msgspec.Struct, kw_only=True):
    """A command for all nodes, or some of them."""

    method: str
    arguments: dict[str, Any] = {}  # Any: the command's own
    destination: list[str] | None = None  # node names; None: all
    pattern: str | None = None  # of node names; only looked at together with a matcher
    matcher: str | None = None  # glob | pcre
    ticket: str | None = None  # names the question in its answers
    answer_exchange: str | None = None  # None: no answer is wanted
    answer_key: str | None = None
    noted: bool = False  # the broker remembers it already; in a header, for peers do not know of it

    @property
    def for_all(self) -> bool:
        """Whether it is for every node, those that start later included."""
        return not self.destination and not (self.pattern and self.matcher)


def pack(command: Command) -> dict[str, Any]:  # Any: the command's arguments
    """Return the body of a command."""
    body: dict[str, Any] = {
        "method": command.method,
        "arguments": command.arguments,
        "destination": command.destination,
        "pattern": command.pattern,
        "matcher": command.matcher,
    }
    if command.answer_key is not None:
        body["ticket"] = command.ticket
        body["reply_to"] = {"exchange": command.answer_exchange, "routing_key": command.answer_key}
    return body


def unpack(body: Any) -> Command:  # Any: whatever somebody sent
    """Return the command of a body.

    Raises:
        DecodeError: It is none.
    """
    if not isinstance(body, Mapping) or not isinstance(body.get("method"), str):
        raise DecodeError(f"a command is an object with a method, and not {type(body).__name__}")
    arguments = body.get("arguments") or {}
    destination = body.get("destination")
    reply_to = body.get("reply_to") or {}
    if not isinstance(arguments, Mapping) or not isinstance(reply_to, Mapping):
        raise DecodeError("the arguments and the address for answers are objects")
    if isinstance(destination, str):
        destination = [destination]
    return Command(
        method=body["method"],
        arguments={str(name): value for name, value in arguments.items()},
        destination=None if destination is None else [str(node) for node in destination],
        pattern=_text(body.get("pattern")),
        matcher=_text(body.get("matcher")),
        ticket=_text(body.get("ticket")),
        answer_exchange=_text(reply_to.get("exchange")),
        answer_key=_text(reply_to.get("routing_key")),
    )


def concerns(command: Command, node: str) -> bool:
    """Return whether a node shall do a command.

    As in Celery a destination wins over a pattern, and a pattern without a matcher is not looked at.

    Raises:
        DecodeError: The pattern is none, or there is no such matcher.
    """
    if command.destination:
        return node in command.destination
    if not command.pattern or not command.matcher:
        return True
    if command.matcher == "glob":
        return fnmatch.fnmatch(node, command.pattern)
    if command.matcher == "pcre":
        return _regex(command.pattern).match(node) is not None
    raise DecodeError(f"there is no matcher {command.matcher!r}; there are {', '.join(MATCHERS)}")


def stamps_in(headers: Mapping[str, Any] | Iterable[str]) -> dict[str, Any]:  # Any: a value, or several
    """Return the stamps that somebody names: by name, or as ``name=value``."""
    if isinstance(headers, Mapping):
        return dict(headers)
    stamps: dict[str, Any] = {}
    for item in [headers] if isinstance(headers, str) else headers:
        name, _, value = item.partition("=")
        stamps.setdefault(name, []).append(value)
    return stamps


@functools.lru_cache(maxsize=64)
def _regex(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as exc:
        raise DecodeError(f"{pattern!r} is no regular expression: {exc}") from exc


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
