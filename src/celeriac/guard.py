"""The guard: keeps calls of unique tasks out that are on their way already."""

from __future__ import annotations

import datetime
import importlib
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from celeriac.errors import TransportError
from celeriac.locks import Lock, Locks, to_header
from celeriac.uniqueness import UNTIL_STARTED, Uniqueness
from celeriac.wire.task import LOCK_HEADER

logger: logging.Logger = logging.getLogger(__name__)

# What waits for these under an id that it knows already would never hear of it.
_FOLLOWED_BY: Final = ("chord", "chain", "link")
_LEAST_SECONDS: Final = 1.0


class Guard:
    """Takes locks for the calls that a client sends.

    1. take the lock of a call, or say which call has it
    2. let go of it when the call could not be sent
    3. leave alone what others wait for under its id, and what is sent again

    Safe for threads, and usable after a fork.

    Args:
        app: The app.
    """

    def __init__(self, app: Any) -> None:  # Any: a Celeriac, whose module imports this one
        self._app = app
        self._locks: Locks | None = None

    def enter(
        self,
        rule: Uniqueness,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: dict[str, Any],
        *,
        inside: bool,
    ) -> tuple[Lock | None, str | None]:
        """Take the lock of a call.

        Args:
            rule: What its task says.
            args: Its positional arguments.
            kwargs: Its keyword arguments.
            options: Those of the call; its id and what its message says of the lock are added.
            inside: Whether it is sent by a task that runs here.

        Returns:
            The lock, if it was taken; and the id of the call that it is left out for, if it is.

        Raises:
            UsageError: The arguments do not have what tells them apart.
            TransportError: The store of locks cannot be reached, or refuses.
            ConfigError: There is none.
        """
        headers = dict(options.get("headers") or {})
        told = headers.pop(LOCK_HEADER, None)
        if options.get("retries"):  # it has its lock, or has had it
            if told is not None and told.startswith(UNTIL_STARTED):
                options["headers"] = headers
            return None, None
        task_id = options["task_id"] = options.get("task_id") or self._app.new_id()
        lock = Lock(rule.name(args, kwargs, self._encode), task_id, self._seconds(rule, options))
        [holder] = self._store().take([lock])
        if holder is None and rule.mode:
            headers[LOCK_HEADER] = to_header(rule.mode, lock.name)
        options["headers"] = headers
        if holder is None:
            return lock, None
        return None, None if _is_awaited(options, inside=inside) else holder

    def leave(self, locks: Sequence[Lock]) -> None:
        """Free the locks of calls that were not sent."""
        if not locks:
            return
        try:
            self._store().exchange(locks, ())
        except TransportError as exc:
            logger.warning(
                "A call that was not sent keeps others like it out, for %.0f s at most: %s",
                max(lock.seconds for lock in locks),
                exc,
            )

    def close(self) -> None:
        """Close the connection; the next call opens another one."""
        locks, self._locks = self._locks, None
        if locks is not None:
            locks.close()

    def _encode(self, value: Any) -> bytes:  # Any: the user's arguments
        data: bytes = self._app.codecs.encode(value, "json")[2]
        return data

    def _store(self) -> Locks:
        locks = self._locks
        if locks is None:
            app = self._app
            connections: Any = importlib.import_module("celeriac.connections")
            locks = self._locks = connections.connect_locks(app.conf, app.transport, app_name=app.main)
        return locks

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
