"""What strategies of tasks have of a worker's pool: it calls functions for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from celeriac.execute import function
from celeriac.pools.base import nothing

# Any in this module: functions of programs, and their arguments

__all__ = ("BasePool", "PoolCall")


class PoolCall(NamedTuple):
    """A function that the pool is to call, and who hears of it."""

    name: str
    packed: bytes  # the function and its arguments, pickled
    accept_callback: Callable[..., object]  # with the process id, and when it began on the monotonic clock
    callback: Callable[..., object]  # with what it has returned
    error_callback: Callable[..., object] | None  # with an `ExceptionInfo`


class BasePool:
    """Calls functions in the pool of a worker, whatever its kind.

    Args:
        limit: How many slots it has.
        call: Called with each `PoolCall`.
    """

    signal_safe: bool = True
    is_green: bool = False
    task_join_will_block: bool = True
    uses_semaphore: bool = False
    body_can_be_buffer: bool = False

    def __init__(self, limit: int, call: Callable[[PoolCall], None]) -> None:
        self.limit = limit
        self._call = call

    @property
    def num_processes(self) -> int:
        """How many slots it has."""
        return self.limit

    @property
    def active(self) -> bool:
        """Whether it takes calls."""
        return True

    def apply_async(
        self,
        target: Callable[..., Any],
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        accept_callback: Callable[..., object] | None = None,
        callback: Callable[..., object] | None = None,
        error_callback: Callable[..., object] | None = None,
        **options: Any,
    ) -> None:
        """Have a function called when there is a slot free, in the order of asking.

        The callbacks are called in the thread of the strategies.

        Args:
            target: The function; it and its arguments are pickled.
            args: Its positional arguments.
            kwargs: Its keyword arguments.
            accept_callback: Called when it begins, with a process id and the time on the monotonic clock.
            callback: Called with what it has returned.
            error_callback: Called with an `ExceptionInfo` when it has raised something or was lost.
            **options: Taken.

        Raises:
            Exception: Something cannot be pickled.
        """
        packed = function.pack(target, args or (), kwargs or {})
        name = f"{target.__module__}.{getattr(target, '__qualname__', target)}"
        self._call(PoolCall(name, packed, accept_callback or nothing, callback or nothing, error_callback))
