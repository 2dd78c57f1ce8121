"""Locks that a fork waits for.

A forked child has one thread. A lock that another thread of its parent held at that moment would stay shut in
it for ever, and what the lock guards would stay half done.
"""

from __future__ import annotations

# Before a fork the hooks run in reverse order, and logging has one that takes its own lock. Loaded after us,
# it would have that lock while we wait for a thread that is loading a module, which wants a logger.
import logging  # noqa: F401 - as said
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Final

PATIENCE_SECONDS: Final = 5.0


class ForkLock:
    """A lock that a thread may take again while it holds it, for what is made once and without waiting.

    A fork in another thread waits until it is free, `PATIENCE_SECONDS` at most: who holds it may be waiting
    for the thread that forks. After that the child finds it open, and what it guards as it was.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        _locks.add(self)

    def __enter__(self) -> None:
        """Take it."""
        self._lock.acquire()

    def __exit__(self, *exc_info: object) -> None:
        """Let it go."""
        self._lock.release()

    def acquire(self, timeout_seconds: float) -> bool:
        """Take it if that is possible in time; return whether it was."""
        return self._lock.acquire(timeout=timeout_seconds)

    def release(self) -> None:
        """Let it go."""
        self._lock.release()

    def reopen(self) -> None:
        """Be open, whoever holds it: for a child in which that thread does not exist."""
        self._lock = threading.RLock()


def around_forks(before: Callable[[], None], after: Callable[[], None]) -> None:
    """Have functions called around each fork, while all `ForkLock`s are held: nothing is made meanwhile.

    Args:
        before: Called in the parent.
        after: Called in the parent and in the child.
    """
    _around.append((before, after))


_around: list[tuple[Callable[[], None], Callable[[], None]]] = []
_locks: weakref.WeakSet[ForkLock] = weakref.WeakSet()
_of_fork = threading.local()  # .held: what the thread that forks has taken, .shut: what it could not take


def _before() -> None:
    """Take all locks: all or, so that nobody waits in a circle, none while waiting for one of them."""
    until = time.monotonic() + PATIENCE_SECONDS
    locks = list(_locks)
    while True:
        held, shut = _take(locks)
        left = until - time.monotonic()
        if not shut or left <= 0:
            break
        for lock in held:
            lock.release()
        if shut[0].acquire(left):
            shut[0].release()
    _of_fork.held, _of_fork.shut = held, shut
    for before, _ in _around:
        before()


def _take(locks: list[ForkLock]) -> tuple[list[ForkLock], list[ForkLock]]:
    """Take what can be taken at once; return those locks and the others."""
    held: list[ForkLock] = []
    shut: list[ForkLock] = []
    for lock in locks:
        (held if lock.acquire(0) else shut).append(lock)
    return held, shut


def _after_in_parent() -> None:
    for _, after in _around:
        after()
    for lock in _of_fork.held:
        lock.release()
    _of_fork.held, _of_fork.shut = [], []


def _after_in_child() -> None:
    for lock in _of_fork.shut:
        lock.reopen()
    _after_in_parent()


os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
