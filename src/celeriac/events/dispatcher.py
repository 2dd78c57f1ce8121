"""Sending events without an event loop: what clients, tasks and programs use."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, Self

from celeriac import ids
from celeriac.errors import TransportError
from celeriac.events.terms import terms_of
from celeriac.message import Broadcast
from celeriac.ports import Fanout
from celeriac.queues import Exchange
from celeriac.wire import event as wire
from celeriac.wire.event import Event

_PUBLISH_SECONDS: Final = 5.0
_MOST_BUFFERED: Final = 10_000


class EventDispatcher:
    """Sends events, from any thread: Celery's ``app.events.Dispatcher``.

    Args:
        connection: Accepted for Celery's sake: events travel over the app's own connections.
        hostname: Who sends them; ``gen<pid>@host`` when not given.
        enabled: Send from the beginning; `enable` does later.
        channel: Accepted as ``connection`` is.
        buffer_while_offline: Keep what the broker does not take, for `flush`; otherwise that is an error.
        app: The app; a Celeriac.
        serializer: Its name; the setting ``event_serializer`` when not given.
        groups: Send only events of these groups, such as ``worker``; all when empty.
        delivery_mode: 1 transient, 2 persistent.
        buffer_group: Groups whose events are kept and sent together, as lists.
        buffer_limit: How many of these at most.
        on_send_buffered: Called when such a list was sent.
    """

    app: Any = None

    def __init__(
        self,
        connection: Any = None,
        hostname: str | None = None,
        enabled: bool = True,
        channel: Any = None,
        buffer_while_offline: bool = True,
        app: Any = None,
        serializer: str | None = None,
        groups: Iterable[str] | None = None,
        delivery_mode: int = 1,
        buffer_group: Iterable[str] | None = None,
        buffer_limit: int = 24,
        on_send_buffered: Callable[[], object] | None = None,
    ) -> None:
        self.app = app or self.app
        self.connection = connection
        self.channel = channel
        self.hostname: str = hostname or ids.origin()
        self.buffer_while_offline = buffer_while_offline
        self.serializer: str = serializer or self.app.conf.event_serializer
        self.groups: set[str] = set(groups or ())
        self.delivery_mode = delivery_mode
        self.buffer_group: frozenset[str] = frozenset(buffer_group or ())
        self.buffer_limit = buffer_limit
        self.on_send_buffered = on_send_buffered
        self.on_enabled: set[Callable[[], object]] = set()
        self.on_disabled: set[Callable[[], object]] = set()
        self.tzoffset: int = wire.utc_offset()
        self.clock: Any = self.app.clock
        self.pid: int = os.getpid()
        self.exchange: Exchange = terms_of(self.app.conf).exchange
        self.enabled: bool = False
        self._lock = threading.RLock()
        self._offline: deque[Event] = deque(maxlen=_MOST_BUFFERED)
        self._groups: dict[str, list[Event]] = {}
        if enabled:
            self.enable()

    def enable(self) -> None:
        """Send what is told from now on."""
        self.enabled = True
        for told in self.on_enabled:
            told()

    def disable(self) -> None:
        """Send nothing from now on."""
        if self.enabled:
            self.enabled = False
            self.close()
            for told in self.on_disabled:
                told()

    def send(
        self,
        type: str,
        blind: bool = False,
        utcoffset: Callable[[], int] | None = None,
        retry: bool = False,
        retry_policy: Any = None,
        Event: Callable[..., Event] | None = None,  # noqa: N803 - Celery's name
        **fields: Any,
    ) -> None:
        """Send an event.

        Args:
            type: Its type, with a dash behind its group, such as ``task-progress``.
            blind: Send no value of the logical clock.
            utcoffset: Says the offset to tell; this machine's when not given.
            retry: Accepted for Celery's sake: connections are made anew by themselves.
            retry_policy: Accepted as ``retry`` is.
            Event: Makes the event of its type and fields.
            **fields: What it tells.

        Raises:
            TransportError: The broker cannot be reached, and nothing is kept for later.
        """
        group = wire.group_of(type)
        if not self.enabled or (self.groups and group not in self.groups):
            return
        told = self._event(type, fields, blind=blind, utcoffset=utcoffset, make=Event)
        if group in self.buffer_group:
            with self._lock:
                waiting = self._groups.setdefault(group, [])
                waiting.append(told)
                full = len(waiting) >= self.buffer_limit
            if full:
                self.flush()
            elif self.on_send_buffered is not None:
                self.on_send_buffered()
        else:
            self._send(told)

    def send_many(self, told: Iterable[tuple[str, Event]], *, deadline: float = _PUBLISH_SECONDS) -> None:
        """Send events, each alone, in one go.

        Args:
            told: Their types and fields.
            deadline: Seconds that it may take.

        Raises:
            TransportError: The broker cannot be reached.
        """
        events = [self._event(kind, fields, blind=False, utcoffset=None, make=None) for kind, fields in told]
        messages = [self._message(event, wire.routing_key(event["type"])) for event in events]
        self._publish(messages, deadline)

    def publish(
        self,
        type: str,
        fields: Event,
        producer: Any = None,
        blind: bool = False,
        Event: Callable[..., Event] | None = None,  # noqa: N803 - Celery's name
        **kwargs: Any,
    ) -> None:
        """Send an event at once, whatever is enabled.

        Args:
            type: Its type.
            fields: What it tells.
            producer: Accepted for Celery's sake.
            blind: Send no value of the logical clock.
            Event: Makes the event of its type and fields.
            **kwargs: Accepted for Celery's sake: retry, retry_policy, utcoffset.

        Raises:
            TransportError: The broker cannot be reached.
        """
        told = self._event(type, fields, blind=blind, utcoffset=kwargs.get("utcoffset"), make=Event)
        self._publish([self._message(told, wire.routing_key(type))])

    def flush(self, errors: bool = True, groups: bool = True) -> None:
        """Send what waits.

        Args:
            errors: What the broker has not taken before.
            groups: What is kept to be sent together.
        """
        with self._lock:
            offline = [*self._offline] if errors else []
            if errors:
                self._offline.clear()
            kept: dict[str, list[Event]] = {}
            if groups:
                kept, self._groups = self._groups, {}
        messages = [self._message(told, wire.routing_key(told["type"])) for told in offline]
        messages += [self._message(told, f"{group}.multi") for group, told in kept.items() if told]
        if not messages:
            return
        try:
            self._publish(messages)
        except TransportError:
            if not self.buffer_while_offline:
                raise
            with self._lock:
                self._offline.extend([*offline, *(event for events in kept.values() for event in events)])

    def extend_buffer(self, other: EventDispatcher) -> None:
        """Take over what waits in another one."""
        self._offline.extend(other._offline)

    def close(self) -> None:
        """Let go of the connection."""
        self.flush(errors=False)

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Close it."""
        self.close()

    def _event(
        self,
        kind: str,
        fields: Event,
        *,
        blind: bool,
        utcoffset: Callable[[], int] | None,
        make: Callable[..., Event] | None,
    ) -> Event:
        if make is not None:
            return make(kind, **fields)
        return {
            "hostname": self.hostname,
            "utcoffset": self.tzoffset if utcoffset is None else utcoffset(),
            "pid": os.getpid(),
            "clock": None if blind else self.clock.forward(),
            **fields,
            "timestamp": fields.get("timestamp") or time.time(),
            "type": kind,
        }

    def _send(self, told: Event) -> None:
        try:
            self._publish([self._message(told, wire.routing_key(told["type"]))])
        except TransportError:
            if not self.buffer_while_offline:
                raise
            self._offline.append(told)

    def _message(self, body: Event | list[Event], key: str) -> Broadcast:
        encoded = self.app.codecs.encode(body, self.serializer)
        return wire.broadcast(encoded, self.exchange, key, self.hostname, self.delivery_mode)

    def _publish(self, messages: list[Broadcast], deadline: float = _PUBLISH_SECONDS) -> None:
        fanout: Fanout = self.app.transport.fanout()
        try:
            fanout.publish(messages, deadline=deadline)
        finally:
            fanout.close()
