"""The guard: keeps calls of unique tasks out that are on their way already, and joins debounced ones."""

from __future__ import annotations

import datetime
import importlib
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from celeriac import bursts, locks
from celeriac.bursts import Bursts, Turn
from celeriac.errors import TransportError
from celeriac.locks import COLLECTED_SECONDS, UNSENT_SECONDS, Lock, Locks
from celeriac.uniqueness import UNTIL_STARTED, Uniqueness
from celeriac.wire.task import BURST_HEADER, LOCK_HEADER

logger: logging.Logger = logging.getLogger(__name__)

# What waits for these under an id that it knows already would never hear of it.
_FOLLOWED_BY: Final = ("chord", "chain", "link")
_LEAST_SECONDS: Final = 1.0
_LEAST_DEADLINE_SECONDS: Final = 0.02  # a server that is well answers in less


class Guard:
    """Takes locks for the calls that a client sends.

    1. take the lock of a call, or say which call has it; make a debounced one the last of its burst
    2. hold it for some seconds only until the call is sent: whoever sends may die before that
    3. let go of that when the call could not be sent
    4. leave alone what others wait for under its id, and what is sent again

    Safe for threads, and usable after a fork.

    Args:
        app: The app.
    """

    def __init__(self, app: Any) -> None:  # Any: a Celeriac, whose module imports this one
        self._app = app
        self._locks: Locks | None = None
        self._bursts: Bursts | None = None

    def enter(
        self,
        rule: Uniqueness,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: dict[str, Any],
        *,
        inside: bool,
    ) -> tuple[Lock | Turn | None, str | None]:
        """Take the lock of a call, or its turn, within the publish budget.

        Args:
            rule: What its task says.
            args: Its positional arguments.
            kwargs: Its keyword arguments.
            options: Those of the call; its id, and what its message says of lock or turn, are added.
            inside: Whether it is sent by a task that runs here.

        Returns:
            What it has got; and the id of the call that it is left out for, if it is.

        Raises:
            UsageError: The arguments do not have what tells them apart.
            TransportError: The store of locks cannot be reached, or refuses.
            ConfigError: There is none.
        """
        headers = dict(options.get("headers") or {})
        told, turned = headers.pop(LOCK_HEADER, None), headers.pop(BURST_HEADER, None)
        if options.get("retries"):  # it has its lock, or has had it
            if turned is not None or (told is not None and told.startswith(UNTIL_STARTED)):
                options["headers"] = headers
            return None, None
        if rule.debounce_seconds:
            options["headers"] = headers
            return self._join(rule, args, kwargs, options, inside=inside), None
        task_id = options["task_id"] = options.get("task_id") or self._app.new_id()
        lock = Lock(rule.name(args, kwargs, self._encode), task_id, self._seconds(rule, options))
        budget_seconds = self._app.conf.publish_timeout_seconds
        [holder] = self._store().take([self._unsent(lock)], deadline=budget_seconds)
        if holder is None and rule.mode:
            headers[LOCK_HEADER] = locks.to_header(rule.mode, lock.name)
        options["headers"] = headers
        if holder is None:
            return lock, None
        return None, None if _is_awaited(options, inside=inside) else holder

    def confirm(self, held: Sequence[Lock | Turn], deadline: float) -> None:
        """Have the locks of calls last for their time, as they are sent.

        Args:
            held: What they have got.
            deadline: Seconds that this may take.
        """
        sent = [lock for lock in held if isinstance(lock, Lock) and lock.seconds > UNSENT_SECONDS]
        if not sent:
            return
        try:
            self._store().confirm(sent, deadline=max(_LEAST_DEADLINE_SECONDS, deadline))
        except TransportError as exc:
            logger.warning(
                "Calls of unique tasks are sent and keep others like them out for %.0f s only: %s",
                UNSENT_SECONDS,
                exc,
            )

    def leave(self, held: Sequence[Lock | Turn], deadline: float) -> None:
        """Free the locks of calls that were not sent, and have nobody wait for their turns.

        Args:
            held: What they have got.
            deadline: Seconds that this may take.
        """
        taken = [lock for lock in held if isinstance(lock, Lock)]
        end = time.monotonic() + max(_LEAST_DEADLINE_SECONDS, deadline)
        try:
            if taken:
                self._store().exchange(taken, (), deadline=end - time.monotonic())
            for turn in held:
                if isinstance(turn, Turn):
                    self._joined().leave(turn, deadline=end - time.monotonic())
        except TransportError as exc:
            seconds = max((lock.seconds for lock in taken), default=bursts.GRACE_SECONDS)
            logger.warning(
                "A call that was not sent keeps others like it out, or waiting, for %.0f s at most: %s",
                seconds,
                exc,
            )

    def close(self) -> None:
        """Close the connection; the next call opens another one."""
        for store in (self._locks, self._bursts):
            if store is not None:
                store.close()
        self._locks = self._bursts = None

    def _join(
        self,
        rule: Uniqueness,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: dict[str, Any],
        *,
        inside: bool,
    ) -> Turn | None:
        """Make a call the last one of its burst; the options of it get the id and the time of that."""
        if not options.get("countdown") and not options.get("eta"):
            options["countdown"] = rule.debounce_seconds
        if _is_awaited(options, inside=inside):
            return None
        eta, _ = self._app.client.times(options.get("countdown"), options.get("eta"), None)
        due_seconds = max(0.0, _ahead(eta))
        name, task_id = rule.name(args, kwargs, self._encode), options.get("task_id") or self._app.new_id()
        joined = self._joined().join(
            name,
            task_id,
            due_seconds,
            due_seconds + rule.lock_seconds,
            deadline=self._app.conf.publish_timeout_seconds,
        )
        options["task_id"], turn = joined[0], Turn(name, joined[1])
        options["headers"][BURST_HEADER] = bursts.to_header(turn)
        return turn

    def _unsent(self, lock: Lock) -> Lock:
        """Return a lock as it is held until its call is sent: this process may die before that."""
        client = self._app.client
        seconds = COLLECTED_SECONDS if client.collects else UNSENT_SECONDS
        # Sending may take that long, and the lock has to be there in the end.
        seconds = max(seconds, 2 * self._app.conf.publish_timeout_seconds)
        return msgspec.structs.replace(lock, seconds=min(lock.seconds, seconds))

    def _encode(self, value: Any) -> bytes:  # Any: the user's arguments
        data: bytes = self._app.codecs.encode(value, "json")[2]
        return data

    def _store(self) -> Locks:
        store = self._locks
        if store is None:
            app = self._app
            connections: Any = importlib.import_module("celeriac.connections")
            store = self._locks = connections.connect_locks(app.conf, app.transport, app_name=app.main)
        return store

    def _joined(self) -> Bursts:
        store = self._bursts
        if store is None:
            app = self._app
            connections: Any = importlib.import_module("celeriac.connections")
            store = self._bursts = connections.connect_bursts(app.conf, app.transport, app_name=app.main)
        return store

    def _seconds(self, rule: Uniqueness, options: Mapping[str, Any]) -> float:
        if rule.window_seconds:
            return rule.window_seconds
        eta, expires = self._app.client.times(
            options.get("countdown"), options.get("eta"), options.get("expires")
        )
        seconds = rule.lock_seconds + (0.0 if eta is None else max(0.0, _ahead(eta)))
        # Nobody runs it after that; who runs it then keeps the lock.
        return seconds if expires is None else max(_LEAST_SECONDS, min(seconds, _ahead(expires)))


def _is_awaited(options: Mapping[str, Any], *, inside: bool) -> bool:
    """Return whether something waits for a call under its own id, so that no other can stand in for it.

    That is so for what was frozen, which has an address for its result. The members of a group that a client
    sends are, too, but nobody has been told their ids yet.
    """
    if any(options.get(name) for name in _FOLLOWED_BY):
        return True
    return "reply_to" in options and (inside or "group_id" not in options)


def _ahead(text: str) -> float:
    """Return how many seconds ahead a moment in ISO 8601 is."""
    moment = datetime.datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return moment.timestamp() - time.time()
