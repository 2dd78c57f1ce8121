"""Threads, and what is kept for each."""

from __future__ import annotations

import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import get_ident
from typing import Any

from celery.local import Proxy

__all__ = ("Local", "LocalManager", "LocalStack", "bgThread", "default_socket_timeout", "get_ident")


@contextmanager
def default_socket_timeout(timeout: float | None) -> Iterator[None]:
    """Give new sockets a timeout meanwhile."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(timeout)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


class bgThread(threading.Thread):  # noqa: N801 - Celery's name
    """A thread that calls `body` again and again until it is stopped; one that raises is said and ended.

    Args:
        name: The thread's name; the class's by default.
        **kwargs: Taken, and without a meaning.
    """

    def __init__(self, name: str | None = None, **kwargs: Any) -> None:
        super().__init__(name=name or type(self).__name__, daemon=True)
        self._is_shutdown = threading.Event()
        self._has_stopped = threading.Event()

    def body(self) -> None:
        """Do a piece of work."""
        raise NotImplementedError(f"{type(self).__name__} has no body()")

    def on_crash(self, msg: str, *fmt: Any, **kwargs: Any) -> None:
        """Tell that `body` raised."""
        sys.stderr.write(msg.format(*fmt) + "\n")
        traceback.print_exc()

    def run(self) -> None:
        """Work until stopped."""
        try:
            while not self._is_shutdown.is_set():
                try:
                    self.body()
                except Exception as exc:  # noqa: BLE001 - said with its traceback; the thread ends
                    self.on_crash("{0!r} crashed: {1!r}", self.name, exc)
                    return
        finally:
            self._has_stopped.set()

    def stop(self) -> None:
        """End after the piece of work that is done now, and wait for that."""
        self._is_shutdown.set()
        self._has_stopped.wait()
        if self.is_alive() and threading.current_thread() is not self:
            self.join(threading.TIMEOUT_MAX)


def release_local(local: Any) -> None:  # Any: a Local or LocalStack
    """Forget what is kept for this thread."""
    local.__release_local__()


class Local:
    """Has attributes of their own in each thread and context."""

    __slots__ = ("_values",)

    def __init__(self) -> None:
        object.__setattr__(self, "_values", ContextVar("celery.utils.threads.Local"))

    def _own(self) -> dict[str, Any]:
        values: dict[str, Any] = self._values.get({})
        return values

    def __call__(self, proxy: str) -> Proxy:
        """Return what stands for an attribute."""
        return Proxy(lambda: getattr(self, proxy))

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return iter(self._own().items())

    def __getattr__(self, name: str) -> Any:
        try:
            return self._own()[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name: str, value: Any) -> None:
        self._values.set({**self._own(), name: value})

    def __delattr__(self, name: str) -> None:
        values = dict(self._own())
        if name not in values:
            raise AttributeError(name)
        del values[name]
        self._values.set(values)

    def __release_local__(self) -> None:
        self._values.set({})


class LocalStack:
    """A stack of its own in each thread and context."""

    def __init__(self) -> None:
        self._stack: ContextVar[tuple[Any, ...]] = ContextVar("celery.utils.threads.LocalStack")

    def push(self, obj: Any) -> list[Any]:
        """Put something on top; return the stack."""
        self._stack.set((*self._stack.get(()), obj))
        return self.stack

    def pop(self) -> Any:  # Any: whatever was pushed; None from an empty stack
        """Take the top off, and return it."""
        items = self._stack.get(())
        if not items:
            return None
        self._stack.set(items[:-1])
        return items[-1]

    @property
    def stack(self) -> list[Any]:
        """What is on it, the top last."""
        return list(self._stack.get(()))

    @property
    def top(self) -> Any:  # Any: as `pop`
        """What is on top, or None."""
        items = self._stack.get(())
        return items[-1] if items else None

    def __len__(self) -> int:
        return len(self._stack.get(()))

    def __call__(self) -> Proxy:
        """Return what stands for the top."""

        def top() -> Any:
            if not len(self):
                raise RuntimeError("object unbound")
            return self.top

        return Proxy(top)

    def __release_local__(self) -> None:
        self._stack.set(())


class LocalManager:
    """Forgets what several locals keep for this thread.

    Args:
        locals: The locals.
        ident_func: Tells threads apart; kept only.
    """

    def __init__(
        self, locals: Iterable[Any] | Any | None = None, ident_func: Callable[[], int] | None = None
    ) -> None:
        if locals is None:
            self.locals: list[Any] = []
        elif isinstance(locals, (Local, LocalStack)):
            self.locals = [locals]
        else:
            self.locals = list(locals)
        self.ident_func: Callable[[], int] = ident_func or get_ident

    def get_ident(self) -> int:
        """Return what tells this thread from others."""
        return self.ident_func()

    def cleanup(self) -> None:
        """Forget what the locals keep for this thread."""
        for one in self.locals:
            release_local(one)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} storages: {len(self.locals)}>"
