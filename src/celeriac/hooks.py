"""Hooks: what other code connects to, to be called when something happens (Celery calls them signals)."""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Callable, Hashable
from types import MethodType
from typing import Any, TypeVar, cast, overload

from celeriac.forklock import ForkLock
from celeriac.parameters import takes_any_keyword

logger: logging.Logger = logging.getLogger(__name__)

Receiver = Callable[..., Any]  # Any: a receiver may return what it likes
F = TypeVar("F", bound=Receiver)

_RETRY_FIRST_SECONDS = 2.0
_RETRY_STEP_SECONDS = 2.0
_RETRY_MOST_SECONDS = 30.0


class Signal:
    """Something that happens, and the receivers to call then.

    Receivers are called as ``receiver(signal=…, sender=…, **named)`` and must take ``**kwargs``, so that new
    arguments never break them. What they raise is logged and returned, never raised.

    ``receivers`` is empty when nobody is connected: hot paths test it before they build the arguments.

    Args:
        providing_args: Names of the arguments; documentation only.
        use_caching: Accepted for Celery's sake, without effect.
        name: Shown in the repr and in log lines.
    """

    def __init__(
        self, providing_args: set[str] | None = None, use_caching: bool = False, name: str | None = None
    ) -> None:
        self.providing_args: set[str] = set(providing_args or ())
        self.use_caching = use_caching
        self.name = name
        # ((receiver key, sender key), reference, whether the reference is weak)
        self.receivers: list[tuple[tuple[Hashable, Hashable], Any, bool]] = []  # Any: ref or function
        self._lock = ForkLock()

    @overload
    def connect(
        self,
        receiver: F,
        sender: Any = None,
        weak: bool = True,
        dispatch_uid: Hashable = None,
        retry: bool = False,
    ) -> F: ...

    @overload
    def connect(
        self,
        receiver: None = None,
        sender: Any = None,
        weak: bool = True,
        dispatch_uid: Hashable = None,
        retry: bool = False,
    ) -> Callable[[F], F]: ...

    def connect(
        self,
        receiver: Any = None,  # Any: the overloads above say it
        sender: Any = None,  # Any: whatever the signal is sent with
        weak: bool = True,
        dispatch_uid: Hashable = None,
        retry: bool = False,
    ) -> Any:  # Any: the receiver, unchanged
        """Connect a receiver; usable as a decorator with and without arguments.

        Connecting the same receiver twice, for the same sender, connects it once.

        Args:
            receiver: A callable that takes ``**kwargs``.
            sender: Call it only for this sender; None: for all.
            weak: Hold the receiver weakly, so that it goes away with its owner.
            dispatch_uid: Names the receiver, instead of its identity.
            retry: Call it again, with growing pauses, until it succeeds.

        Raises:
            ValueError: The receiver does not take ``**kwargs``.
        """

        def attach(function: Receiver) -> Receiver:
            if not takes_any_keyword(function):
                raise ValueError(
                    f"The receiver {function!r} must accept keyword arguments (**kwargs): "
                    "later versions may send more of them."
                )
            key = (_receiver_key(function, dispatch_uid), self.sender_key(sender))
            called = self._persistent(function) if retry else function
            held = called is function and weak
            reference = self._weak(function, key) if held else called
            with self._lock:
                if all(existing != key for existing, _, _ in self.receivers):
                    # Replaced, not appended to: `send` iterates over the old list without the lock.
                    self.receivers = [*self.receivers, (key, reference, held)]
            return function

        return attach if receiver is None else attach(receiver)

    def disconnect(
        self,
        receiver: Receiver | None = None,
        sender: Any = None,  # Any: as for connect
        weak: bool | None = None,
        dispatch_uid: Hashable = None,
    ) -> bool:
        """Disconnect a receiver (given as for `connect`) and return whether it was connected."""
        key = (_receiver_key(receiver, dispatch_uid), self.sender_key(sender))
        return self._remove(key)

    def send(self, sender: Any, **named: Any) -> list[tuple[Receiver, Any]]:  # Any: what receivers take
        """Call every receiver connected for the sender and return what each returned or raised."""
        responses: list[tuple[Receiver, Any]] = []
        if not self.receivers:
            return responses
        key = self.sender_key(sender)
        for (_, wanted), reference, weak in self.receivers:
            if wanted is not None and wanted != key:
                continue
            receiver = reference() if weak else reference
            if receiver is None:
                continue
            try:
                response = receiver(signal=self, sender=sender, **named)
            except Exception as exc:  # wall: a receiver must not break what it listens to
                logger.exception("Signal handler %r raised: %r", receiver, exc)
                response = exc
            responses.append((receiver, response))
        return responses

    send_robust = send

    def has_listeners(self, sender: Any = None) -> bool:  # Any: as for connect
        """Return whether anybody would be called for the sender."""
        key = self.sender_key(sender)
        return any(wanted is None or wanted == key for (_, wanted), _, _ in self.receivers)

    def sender_key(self, sender: Any) -> Hashable:  # Any: as for connect
        """Return what two equal senders have in common: text is compared by value, objects by identity."""
        if sender is None or isinstance(sender, str):
            return sender
        return id(sender)

    def __repr__(self) -> str:
        """Name the signal and what it sends."""
        return f"<Signal: {self.name or ''} providing_args={self.providing_args!r}>"

    def _weak(self, function: Receiver, key: tuple[Hashable, Hashable]) -> Any:  # Any: a kind of weakref
        def gone(_: object) -> None:
            self._remove(key)

        if isinstance(function, MethodType):
            return weakref.WeakMethod(function, gone)
        return weakref.ref(function, gone)

    def _remove(self, key: tuple[Hashable, Hashable]) -> bool:
        with self._lock:
            kept = [entry for entry in self.receivers if entry[0] != key]
            found = len(kept) != len(self.receivers)
            self.receivers = kept
        return found

    def _persistent(self, function: Receiver) -> Receiver:
        def until_it_succeeds(**named: Any) -> Any:  # Any: as the receiver has it
            pause = _RETRY_FIRST_SECONDS
            while True:
                try:
                    return function(**named)
                except Exception as exc:  # noqa: BLE001 - whatever it is, it is tried again
                    logger.warning("Signal handler %r raised: %r; again in %.0f s", function, exc, pause)
                    time.sleep(pause)
                    pause = min(pause + _RETRY_STEP_SECONDS, _RETRY_MOST_SECONDS)

        return until_it_succeeds


def _receiver_key(receiver: Receiver | None, dispatch_uid: Hashable) -> Hashable:
    if dispatch_uid:
        return dispatch_uid
    if isinstance(receiver, MethodType):
        return (id(receiver.__self__), id(receiver.__func__))
    return id(receiver)


# Every signal by name, with what its receivers are given besides `signal` and `sender`.
SIGNALS: dict[str, tuple[str, ...]] = {
    "before_task_publish": (
        "body",
        "exchange",
        "routing_key",
        "headers",
        "properties",
        "declare",
        "retry_policy",
    ),
    "after_task_publish": ("body", "headers", "exchange", "routing_key"),
    "task_sent": ("task_id", "task", "args", "kwargs", "eta", "taskset"),
    "task_received": ("request",),
    "task_prerun": ("task_id", "task", "args", "kwargs"),
    "task_postrun": ("task_id", "task", "args", "kwargs", "retval", "state"),
    "task_success": ("result",),
    "task_retry": ("request", "reason", "einfo"),
    "task_failure": ("task_id", "exception", "args", "kwargs", "traceback", "einfo"),
    "task_internal_error": ("task_id", "args", "kwargs", "request", "exception", "traceback", "einfo"),
    "task_revoked": ("request", "terminated", "signum", "expired"),
    "task_unknown": ("message", "exc", "name", "id"),
    "task_rejected": ("message", "exc"),
    "import_modules": (),
    "celeryd_init": ("instance", "conf", "options"),
    "celeryd_after_setup": ("instance", "conf"),
    "worker_init": (),
    "worker_before_create_process": (),
    "worker_process_init": (),
    "worker_process_shutdown": ("pid", "exitcode"),
    "worker_ready": (),
    "heartbeat_sent": (),
    "worker_shutting_down": ("sig", "how", "exitcode"),
    "worker_shutdown": (),
    "setup_logging": ("loglevel", "logfile", "format", "colorize"),
    "after_setup_logger": ("logger", "loglevel", "logfile", "format", "colorize"),
    "after_setup_task_logger": ("logger", "loglevel", "logfile", "format", "colorize"),
    "beat_init": (),
    "beat_embedded_init": (),
    "eventlet_pool_started": (),
    "eventlet_pool_preshutdown": (),
    "eventlet_pool_postshutdown": (),
    "eventlet_pool_apply": ("target", "args", "kwargs"),
    "user_preload_options": ("app", "options"),
}


class Hooks:
    """One `Signal` for everything that an app and its workers announce (`SIGNALS` lists them)."""

    before_task_publish: Signal
    after_task_publish: Signal
    task_sent: Signal
    task_received: Signal
    task_prerun: Signal
    task_postrun: Signal
    task_success: Signal
    task_retry: Signal
    task_failure: Signal
    task_internal_error: Signal
    task_revoked: Signal
    task_unknown: Signal
    task_rejected: Signal
    import_modules: Signal
    celeryd_init: Signal
    celeryd_after_setup: Signal
    worker_init: Signal
    worker_before_create_process: Signal
    worker_process_init: Signal
    worker_process_shutdown: Signal
    worker_ready: Signal
    heartbeat_sent: Signal
    worker_shutting_down: Signal
    worker_shutdown: Signal
    setup_logging: Signal
    after_setup_logger: Signal
    after_setup_task_logger: Signal
    beat_init: Signal
    beat_embedded_init: Signal
    eventlet_pool_started: Signal
    eventlet_pool_preshutdown: Signal
    eventlet_pool_postshutdown: Signal
    eventlet_pool_apply: Signal
    user_preload_options: Signal

    def __init__(self) -> None:
        for name, arguments in SIGNALS.items():
            setattr(self, name, Signal(name=name, providing_args=set(arguments)))

    def get(self, name: str) -> Signal:
        """Return a signal by name."""
        return cast("Signal", getattr(self, name))
