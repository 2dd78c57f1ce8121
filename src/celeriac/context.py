"""What the running task knows of its call, and which task is running here.

The stack of running tasks lives in a `contextvars.ContextVar`: every thread, greenlet and coroutine has its
own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from celeriac.message import Call
from celeriac.steps import Remainder


class Context:
    """The call that a task is running for: ``self.request`` of a bound task.

    Every header of the message is an attribute, also those that users add; ``headers`` has only the latter.
    """

    # Any: values are what the peer sent; names and defaults are Celery's
    args: Any = None
    attempt: int = 1  # how many times the message was handed to a worker, this time included, as far as known
    kwargs: Any = None
    callbacks: Any = None
    called_directly: bool = True
    chain: Any = None
    chord: Any = None
    correlation_id: str | None = None
    delivery_info: Any = None
    errbacks: Any = None
    eta: str | None = None
    expires: Any = None
    group: str | None = None
    group_index: int | None = None
    headers: dict[str, Any] | None = None
    hostname: str | None = None
    id: str | None = None
    ignore_result: bool | None = False
    is_eager: bool = False
    logfile: str | None = None
    loglevel: int | None = None
    origin: str | None = None
    parent_id: str | None = None
    properties: Any = None
    replaced_task_nesting: int = 0
    _retries_exhausted: bool = False  # it asked for one retry more than it has
    reply_to: str | None = None
    retries: int = 0
    root_id: str | None = None
    shadow: str | None = None
    stamped_headers: list[str] | None = None
    stamps: dict[str, Any] | None = None
    taskset: str | None = None
    timelimit: Any = None  # [hard, soft], seconds
    utc: bool | None = None
    _children: list[Any] | None = None
    _remainder: Remainder | None = None  # of its chain, where nobody has looked at that
    _passed_on: bool = False  # another message with the same id goes on with this call
    _added: int = 0  # parts that the chord has grown by in this run
    _protected: bool = False  # the body runs already, below an overridden `__call__`

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...  # Any: a header of somebody's own

        def __setattr__(self, name: str, value: Any) -> None: ...  # Any: as above

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # Any: as for dict
        self.update(*args, **kwargs)

    def update(self, *args: Any, **kwargs: Any) -> None:  # Any: as for dict
        """Set attributes, given as for ``dict.update``."""
        self.__dict__.update(*args, **kwargs)

    def clear(self) -> None:
        """Forget everything that was set."""
        self.__dict__.clear()

    def get(self, key: str, default: Any = None) -> Any:  # Any: an attribute's value
        """Return an attribute, or the default when there is none of that name."""
        return getattr(self, key, default)

    def _keep_undecoded(self, remainder: Remainder) -> None:
        """Take what remains of the chain, for `chain` to be decoded when somebody looks at it."""
        self.__dict__.pop("chain", None)  # a header of that name
        self.__dict__["_remainder"] = remainder

    def _steps_to_come(self) -> Any:
        """Return the steps of the chain that are left: a list, or a `Remainder` that stays undecoded."""
        return self.__dict__.get("chain", self._remainder)

    @property
    def children(self) -> list[Any]:  # Any: results, of floor 3's other modules
        """The results of the tasks that this one has sent."""
        if self._children is None:
            self._children = []
        return self._children

    def as_execution_options(self) -> dict[str, Any]:  # Any: options of `apply_async`
        """Return the options that send this same call again."""
        hard, soft = self.timelimit or (None, None)
        return {
            "task_id": self.id,
            "root_id": self.root_id,
            "parent_id": self.parent_id,
            "group_id": self.group,
            "group_index": self.group_index,
            "shadow": self.shadow,
            "chord": self.chord,
            "chain": self.chain,
            "link": self.callbacks,
            "link_error": self.errbacks,
            "expires": self.expires,
            "soft_time_limit": soft,
            "time_limit": hard,
            "headers": self.headers,
            "retries": self.retries,
            "reply_to": self.reply_to,
            "replaced_task_nesting": self.replaced_task_nesting,
            "origin": self.origin,
            **(
                {"stamped_headers": self.stamped_headers, **(self.stamps or {})}
                if self.stamped_headers
                else {}
            ),
        }

    def __repr__(self) -> str:
        """Show what was set."""
        return f"<Context: {self.__dict__!r}>"


class _Chain:
    """The attribute ``chain``: a list once somebody looks at it, or what was assigned."""

    def __get__(self, request: Context | None, owner: type[Context]) -> Any:
        """Decode the steps, unless they are in the request's ``__dict__``, where Python looks first."""
        if request is None or request._remainder is None:
            return None
        steps = request.__dict__["chain"] = request._remainder.decoded()
        return steps


Context.chain = _Chain()

# Headers with a meaning of their own; all others are somebody's.
KNOWN_HEADERS = frozenset(
    {
        "argsrepr",
        "compression",
        "eta",
        "expires",
        "group",
        "group_index",
        "id",
        "ignore_result",
        "kwargsrepr",
        "lang",
        "meth",
        "origin",
        "parent_id",
        "replaced_task_nesting",
        "retries",
        "root_id",
        "shadow",
        "stamped_headers",
        "stamps",
        "task",
        "timelimit",
    }
)


def request_of_message(headers: Mapping[str, Any], call: Call, **more: Any) -> Context:
    """Return the request that a task runs with for a message.

    Args:
        headers: The message's headers (protocol 2).
        call: Its decoded body.
        **more: What the receiver knows: ``delivery_info``, ``hostname``, ``reply_to``, ``correlation_id`` and
            ``properties``.
    """
    request = Context.__new__(Context)
    attributes = request.__dict__
    attributes.update(headers)
    if headers.get("retries") is None:
        attributes["retries"] = 0
    if headers.get("ignore_result") is None:
        attributes.pop("ignore_result", None)
    if not headers.keys() <= KNOWN_HEADERS:
        attributes["headers"] = {k: v for k, v in headers.items() if k not in KNOWN_HEADERS}
    attributes["args"] = call.args
    attributes["kwargs"] = call.kwargs
    attributes["callbacks"] = call.callbacks
    attributes["errbacks"] = call.errbacks
    if call.remainder is None:
        attributes["chain"] = call.chain
    else:
        request._keep_undecoded(call.remainder)
    attributes["chord"] = call.chord
    attributes["called_directly"] = False
    attributes.update(more)
    return request


EMPTY = Context()  # what `task.request` is where no task is running


class Frame:
    """One running task, on top of the one that called it."""

    __slots__ = ("outer", "request", "task")

    def __init__(self, task: Any, request: Context, outer: Frame | None) -> None:  # Any: a Task, upstairs
        self.task: Any = task
        self.request: Context = request
        self.outer: Frame | None = outer


_top: ContextVar[Frame | None] = ContextVar("celeriac_task", default=None)
_join_allowed: ContextVar[bool | None] = ContextVar("celeriac_join_allowed", default=None)

current: Callable[[], Frame | None] = _top.get  # the innermost running `Frame`, or None


def push(task: Any, request: Context) -> None:  # Any: a Task, upstairs
    """Say that a task runs here from now on; every push needs its `pop`."""
    _top.set(Frame(task, request, _top.get()))


def pop() -> None:
    """Say that the innermost task is done."""
    frame = _top.get()
    if frame is not None:
        _top.set(frame.outer)


def request_of(task: Any) -> Context:  # Any: a Task, upstairs
    """Return the innermost call of a task that is running here, or the shared empty one."""
    frame = _top.get()
    while frame is not None:
        if frame.task is task:
            return frame.request
        frame = frame.outer
    return EMPTY


class Requests:
    """The calls that a task is running for, here: ``task.request_stack``, for tests and extensions."""

    def __init__(self, task: Any) -> None:  # Any: a Task, upstairs
        self._task = task

    @property
    def top(self) -> Context | None:
        """The innermost call, or None."""
        found = request_of(self._task)
        return None if found is EMPTY else found

    def push(self, request: Context) -> None:
        """Have ``task.request`` be this call."""
        push(self._task, request)

    def pop(self) -> None:
        """Take back the last `push`."""
        pop()


def worker_frame() -> Frame | None:
    """Return the innermost task that runs for a message (or eagerly), not as a plain function call."""
    frame = _top.get()
    while frame is not None and frame.request.called_directly:
        frame = frame.outer
    return frame


def join_blocks() -> bool:
    """Return whether waiting for a result here could wait for ever: inside a task, unless it was allowed."""
    allowed = _join_allowed.get()
    if allowed is not None:
        return not allowed
    frame = worker_frame()
    return frame is not None and not frame.request.is_eager


@contextmanager
def allow_join_result() -> Iterator[None]:
    """Let tasks wait for results inside this block."""
    token = _join_allowed.set(True)
    try:
        yield
    finally:
        _join_allowed.reset(token)


@contextmanager
def denied_join_result() -> Iterator[None]:
    """Make waiting for results an error inside this block."""
    token = _join_allowed.set(False)
    try:
        yield
    finally:
        _join_allowed.reset(token)
