"""Commands to workers: Celery's ``app.control``."""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import closing
from typing import Any

from celeriac.errors import DuplicateNodenameWarning, TransportError
from celeriac.remote.mailbox import Mailbox, OnReply, Reply, terms_of
from celeriac.revocations import Revocation, of_stamps, of_tasks
from celeriac.signum import signal_name
from celeriac.wire import control as wire

logger: logging.Logger = logging.getLogger(__name__)

_WAIT_SECONDS = 1.0
_SIGNAL = "SIGTERM"
_PAUSES_CHANGED = "pauses_changed"  # what workers hear when a queue was paused or resumed

Replies = list[Reply] | None
Destination = Sequence[str] | None


class Control:
    """Tells workers what to do.

    Every method takes, besides its own arguments, those of `broadcast`: ``destination``, ``reply``,
    ``timeout``, ``limit``, ``callback``, ``pattern`` and ``matcher``; it returns the answers when ``reply``
    is set, and None otherwise.

    Args:
        app: The app; a Celeriac.

    Raises:
        ConfigError: The settings of control's queues contradict each other.
    """

    def __init__(self, app: Any = None) -> None:  # Any: see above
        self.app = app
        terms_of(app.conf)
        self.mailbox: Mailbox = Mailbox(app)

    @property
    def inspect(self) -> Any:  # Any: a class whose instances know this app
        """The class of questions; see `celeriac.remote.inspection.Inspect`."""
        return self.app.subclass_with_self(
            importlib.import_module("celeriac.remote.inspection").Inspect, reverse="control.inspect"
        )

    def broadcast(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        destination: Destination = None,
        connection: Any = None,
        reply: bool = False,
        timeout: float | None = 1.0,
        limit: int | None = None,
        callback: OnReply | None = None,
        channel: Any = None,
        pattern: str | None = None,
        matcher: str | None = None,
        **extra_kwargs: Any,
    ) -> Replies:
        """Send a command to all workers, or some of them.

        Args:
            command: Its name.
            arguments: Its arguments.
            destination: Names of nodes; None: all.
            connection: Accepted for Celery's sake; the app's broker is used.
            reply: Wait for answers and return them.
            timeout: Seconds to wait.
            limit: Enough answers.
            callback: Called with each answer as it comes.
            channel: As ``connection``.
            pattern: Only nodes whose names fit; takes effect with ``matcher``.
            matcher: ``glob`` or ``pcre``.
            **extra_kwargs: More arguments of the command.

        Raises:
            ValueError: The destination is no list.
            TransportError: The broker cannot be reached.
        """
        if destination is not None and not isinstance(destination, (list, tuple, set, frozenset)):
            raise ValueError(f"destination must be a list/tuple not {type(destination)}")
        message = wire.Command(
            method=command,
            arguments={**(arguments or {}), **extra_kwargs},
            destination=None if destination is None else list(destination),
            pattern=pattern,
            matcher=matcher,
        )
        self._note(message)
        if not reply:
            self.mailbox.tell(message, timeout)
            return None
        return self.mailbox.ask(message, _WAIT_SECONDS if timeout is None else timeout, limit, callback)

    def _note(self, command: wire.Command) -> None:
        """Have the broker remember a revocation, before workers hear of it: some may not be there."""
        revoked = _revoked_by(command)
        transport = self.app.transport
        if not revoked or not command.for_all or not transport.caps.revocations:
            return
        try:
            transport.revocations().note(revoked, kept_seconds=self.app.conf.task_revoked_expires)
            command.noted = True
        except TransportError as exc:
            if exc.retryable:
                raise
            logger.warning("Only workers that run now will know what was revoked: %s", exc)

    # --- questions to workers as such ------------------------------------------------------------------

    def ping(self, destination: Destination = None, timeout: float = 1.0, **kwargs: Any) -> Replies:
        """Ask who is there."""
        return self.broadcast("ping", {}, destination, reply=True, timeout=timeout, **kwargs)

    def heartbeat(self, destination: Destination = None, **kwargs: Any) -> Replies:
        """Have workers send a heartbeat event now."""
        return self.broadcast("heartbeat", {}, destination, **kwargs)

    def shutdown(self, destination: Destination = None, **kwargs: Any) -> Replies:
        """Have workers stop once their running tasks have ended."""
        return self.broadcast("shutdown", {}, destination, **kwargs)

    def enable_events(self, destination: Destination = None, **kwargs: Any) -> Replies:
        """Have workers send task events."""
        return self.broadcast("enable_events", {}, destination, **kwargs)

    def disable_events(self, destination: Destination = None, **kwargs: Any) -> Replies:
        """Have workers send no task events."""
        return self.broadcast("disable_events", {}, destination, **kwargs)

    def election(self, id: str, topic: str, action: Any = None, connection: Any = None) -> None:
        """Have the workers choose one of them to do something."""
        self.broadcast("election", {"id": id, "topic": topic, "action": action})

    # --- tasks -----------------------------------------------------------------------------------------

    def revoke(
        self,
        task_id: str | Iterable[str],
        destination: Destination = None,
        terminate: bool = False,
        signal: str | int | None = _SIGNAL,
        **kwargs: Any,
    ) -> Replies:
        """Have workers ignore tasks.

        Args:
            task_id: An id or several.
            destination: See `broadcast`.
            terminate: Also end those that run.
            signal: What ends them.
            **kwargs: See `broadcast`.
        """
        ids = task_id if isinstance(task_id, str) else list(task_id)
        arguments = {"task_id": ids, "terminate": terminate, "signal": signal}
        return self.broadcast("revoke", arguments, destination, **kwargs)

    def terminate(
        self,
        task_id: str | Iterable[str],
        destination: Destination = None,
        signal: str | int | None = _SIGNAL,
        **kwargs: Any,
    ) -> Replies:
        """End tasks that run, and have them ignored where they do not yet."""
        return self.revoke(task_id, destination, terminate=True, signal=signal, **kwargs)

    def revoke_by_stamped_headers(
        self,
        headers: Mapping[str, Any],
        destination: Destination = None,
        terminate: bool = False,
        signal: str | int | None = _SIGNAL,
        **kwargs: Any,
    ) -> Replies:
        """Have workers ignore tasks with one of these stamps.

        Args:
            headers: Names of stamps, each with a value or several.
            destination: See `broadcast`.
            terminate: Also end those that run.
            signal: What ends them.
            **kwargs: See `broadcast`.
        """
        arguments = {"headers": headers, "terminate": terminate, "signal": signal}
        return self.broadcast("revoke_by_stamped_headers", arguments, destination, **kwargs)

    def rate_limit(
        self, task_name: str, rate_limit: float | str | None, destination: Destination = None, **kwargs: Any
    ) -> Replies:
        """Set how often a worker begins tasks of a kind, such as ``10/m``; 0: as often as it can."""
        arguments = {"task_name": task_name, "rate_limit": rate_limit}
        return self.broadcast("rate_limit", arguments, destination, **kwargs)

    def time_limit(
        self,
        task_name: str,
        soft: float | None = None,
        hard: float | None = None,
        destination: Destination = None,
        **kwargs: Any,
    ) -> Replies:
        """Set the limits in seconds of tasks of a kind that begin from now on."""
        arguments = {"task_name": task_name, "hard": hard, "soft": soft}
        return self.broadcast("time_limit", arguments, destination, **kwargs)

    # --- queues and slots ------------------------------------------------------------------------------

    def add_consumer(
        self,
        queue: str,
        exchange: str | None = None,
        exchange_type: str = "direct",
        routing_key: str | None = None,
        options: Mapping[str, Any] | None = None,
        destination: Destination = None,
        **kwargs: Any,
    ) -> Replies:
        """Have workers consume from one more queue."""
        arguments = {
            "queue": queue,
            "exchange": exchange,
            "exchange_type": exchange_type,
            "routing_key": routing_key,
            **(options or {}),
        }
        return self.broadcast("add_consumer", arguments, destination, **kwargs)

    def cancel_consumer(self, queue: str, destination: Destination = None, **kwargs: Any) -> Replies:
        """Have workers consume from a queue no longer."""
        return self.broadcast("cancel_consumer", {"queue": queue}, destination, **kwargs)

    def pool_grow(self, n: int = 1, destination: Destination = None, **kwargs: Any) -> Replies:
        """Have workers run so many more tasks at once."""
        return self.broadcast("pool_grow", {"n": n}, destination, **kwargs)

    def pool_shrink(self, n: int = 1, destination: Destination = None, **kwargs: Any) -> Replies:
        """Have workers run so many fewer tasks at once."""
        return self.broadcast("pool_shrink", {"n": n}, destination, **kwargs)

    def autoscale(self, max: int, min: int, destination: Destination = None, **kwargs: Any) -> Replies:
        """Set between how many slots workers choose."""
        return self.broadcast("autoscale", {"max": max, "min": min}, destination, **kwargs)

    def pool_restart(
        self,
        modules: Sequence[str] | None = None,
        reload: bool = False,
        reloader: Any = None,
        destination: Destination = None,
        **kwargs: Any,
    ) -> Replies:
        """Have workers begin anew with fresh processes.

        Args:
            modules: Modules to import first.
            reload: Import them again when they are there.
            reloader: Does that in its own way.
            destination: See `broadcast`.
            **kwargs: See `broadcast`.
        """
        arguments = {"modules": modules or [], "reload": reload, "reloader": reloader}
        return self.broadcast("pool_restart", arguments, destination, **kwargs)

    def pause_queue(self, queue: str, **kwargs: Any) -> Replies:
        """Have no worker of Celeriac take anything from a queue until it is resumed, those to come included.

        What was taken and has not begun goes back, what runs goes on to its end. Messages may still be sent.

        Args:
            queue: Its name.
            **kwargs: See `broadcast`.

        Raises:
            TransportError: The broker cannot be reached.
        """
        self._remember(queue, paused=True)
        return self.broadcast(_PAUSES_CHANGED, {}, **kwargs)

    def resume_queue(self, queue: str, **kwargs: Any) -> Replies:
        """Have workers take from a queue again; takes arguments and raises as `pause_queue` does."""
        self._remember(queue, paused=False)
        return self.broadcast(_PAUSES_CHANGED, {}, **kwargs)

    def paused_queues(self, queues: Collection[str] | None = None) -> list[str]:
        """Return the names of queues that are paused, in order.

        Args:
            queues: Which to look at; all that the app knows when it is not given.

        Raises:
            TransportError: The broker cannot be reached.
        """
        with closing(self.app.transport.pauses()) as pauses:
            return sorted(pauses.among(list(self.app.router.queues) if queues is None else queues))

    def _remember(self, queue: str, *, paused: bool) -> None:
        with closing(self.app.transport.pauses()) as pauses:
            (pauses.pause if paused else pauses.resume)(queue)

    def purge(self, connection: Any = None) -> int:
        """Throw away what waits in the queues that the app knows, and return how many messages that were."""
        return sum(self.app.transport.purge(name) for name in list(self.app.router.queues))

    discard_all = purge


def _revoked_by(command: wire.Command) -> list[Revocation]:
    arguments = command.arguments
    ends = command.method == "terminate" or arguments.get("terminate")
    signal = signal_name(arguments.get("signal")) if ends else ""
    if command.method in ("revoke", "terminate") and (task_id := arguments.get("task_id")):
        return of_tasks([task_id] if isinstance(task_id, str) else map(str, task_id), signal)
    if command.method == "revoke_by_stamped_headers" and (headers := arguments.get("headers")):
        return of_stamps(wire.stamps_in(headers), signal)
    return []


def flatten_reply(reply: Iterable[Reply]) -> Reply:
    """Return answers as one dict by the names of the nodes; warns when two nodes have the same."""
    nodes: Reply = {}
    twice: set[str] = set()
    for item in reply:
        twice.update(nodes.keys() & item.keys())
        nodes.update(item)
    if twice:
        several = "multiple replies from" if len(twice) == 1 else "multiple replies from these"
        warnings.warn(
            f"Received {several} {'name' if len(twice) == 1 else 'names'}: {', '.join(sorted(twice))}. "
            "Give every worker a name of its own with -n.",
            DuplicateNodenameWarning,
            stacklevel=3,
        )
    return nodes
