"""Every error that Celeriac raises, in one tree, by who can act on it.

::

    CeleriacError
    ├── ConfigError               the settings are wrong: fix them and start again
    ├── UsageError                the calling code is wrong: fix the call
    │   ├── NotRegistered         (KeyError, TaskError) no task has that name in this process
    │   ├── AlreadyRegistered     (TaskError)
    │   ├── ComponentMissing      (AttributeError) nothing installed brings this part of an app
    │   ├── NoMoment              (ValueError) a countdown, eta or expires says no time
    │   ├── ScheduleError         (ValueError) no time can be told by this schedule
    │   │   ├── CrontabSyntaxError  a field of a crontab cannot be read
    │   │   └── NeverDue          (RuntimeError) no day is as the schedule says
    │   └── QueueNotFound         (KeyError, TaskError) no queue has that name and creating it is not allowed
    ├── SecurityError             a message or result was refused for safety
    ├── TransportError            the broker could not do it; ``retryable`` says whether trying again may help
    │   ├── BrokerUnreachable     nobody answers at the broker's address
    │   ├── PublishTimeout        the publish budget ran out before the broker confirmed
    │   └── PartlySent            many were to be sent, and the broker has only the first of them
    ├── BackendError              the result store could not do it
    │   ├── BackendUnreachable
    │   ├── BackendGetMetaError   it stayed away however often it was asked, as the settings say
    │   ├── BackendStoreError     the same, when a result was to be written
    │   └── ChordsUnsupported     (NotImplementedError) its results meet nowhere: use another store
    ├── CodecError                bytes and values did not fit
    │   ├── EncodeError           this value has no form in that serializer
    │   └── DecodeError           these bytes are not what they claim to be
    │       └── ContentRefused    a content type that ``accept_content`` does not list
    ├── TaskError                 what a task's result can say went wrong
    │   ├── TimeoutError          ``get(timeout=…)`` ran out (not the builtin of that name)
    │   ├── MaxRetriesExceededError
    │   ├── TaskRevokedError
    │   ├── ChordError
    │   ├── InvalidTaskError
    │   ├── IncompleteStream
    │   ├── WorkerLostError       the process that ran the task died
    │   ├── TimeLimitExceeded     the hard time limit ended the task
    │   └── SoftTimeLimitExceeded raised inside the task when its soft limit passes
    └── TaskSignal                raised by a task to say what shall become of it, not that it failed
        ├── Ignore
        ├── Reject
        └── Retry

    CeleriacWarning (UserWarning)
    └── AlwaysEagerIgnored        send_task() sends although tasks run eagerly
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

__all__ = [
    "AlreadyRegistered",
    "AlwaysEagerIgnored",
    "BackendError",
    "BackendGetMetaError",
    "BackendStoreError",
    "BackendUnreachable",
    "BrokerUnreachable",
    "CeleriacError",
    "CeleriacWarning",
    "ChordError",
    "ChordsUnsupported",
    "CodecError",
    "ComponentMissing",
    "ConfigError",
    "ContentRefused",
    "CrontabSyntaxError",
    "DecodeError",
    "EncodeError",
    "Ignore",
    "IncompleteStream",
    "InvalidTaskError",
    "MaxRetriesExceededError",
    "NeverDue",
    "NoMoment",
    "NotRegistered",
    "PartlySent",
    "PublishTimeout",
    "QueueNotFound",
    "Reject",
    "Retry",
    "ScheduleError",
    "SecurityError",
    "SoftTimeLimitExceeded",
    "TaskError",
    "TaskRevokedError",
    "TaskSignal",
    "TimeLimitExceeded",
    "TimeoutError",
    "TransportError",
    "UsageError",
    "WorkerLostError",
]


class CeleriacError(Exception):
    """Root of every error that Celeriac raises itself."""


class ConfigError(CeleriacError):
    """Raised when settings are missing, unknown, contradictory or of the wrong type."""


class SecurityError(CeleriacError):
    """Raised when a message, key or result is refused for safety."""


class UsageError(CeleriacError):
    """Raised when the calling code asks for something that cannot be."""


class ComponentMissing(UsageError, AttributeError):
    """Raised for a part of an app that nothing installed brings; `hasattr` is False then."""


class NoMoment(UsageError, ValueError):
    """Raised for a call whose ``countdown``, ``eta`` or ``expires`` says no time; it is not sent."""


class ScheduleError(UsageError, ValueError):
    """Raised for a schedule that tells no time: a number out of range, an unknown time zone or event."""


class CrontabSyntaxError(ScheduleError):
    """Raised for a field of a crontab that cannot be read."""


class NeverDue(ScheduleError, RuntimeError):
    """Raised for a schedule that is well formed but has no day: 30 February."""


class TaskError(CeleriacError):
    """Root of what a task's result can say went wrong."""


class NotRegistered(KeyError, UsageError, TaskError):
    """Raised when no task of that name is registered in this process."""

    def __repr__(self) -> str:
        """Say what is missing and what to do about it."""
        return f"Task of kind {self} never registered, please make sure it's imported."


class AlreadyRegistered(UsageError, TaskError):
    """Raised when a name is taken by another object."""


class QueueNotFound(KeyError, UsageError, TaskError):
    """Raised when a queue is named that is not declared and may not be created."""


class TransportError(CeleriacError):
    """Raised when the broker could not do what was asked.

    Args:
        message: What failed, on which broker, and what happens next.
        retryable: Whether the same call may succeed later.
    """

    def __init__(self, message: str = "", *, retryable: bool = True) -> None:
        super().__init__(message)
        self.retryable = retryable


class BrokerUnreachable(TransportError):
    """Raised when nobody answers at the broker's address, or the broker refuses us."""


class PublishTimeout(TransportError):
    """Raised when the publish budget ran out before the broker had the message."""


class PartlySent(TransportError):
    """Raised when the broker failed after it had taken a part of what was to be sent.

    Sending all of it again would run that part twice: send the rest, or revoke the part. The piece that
    failed may have reached the broker, too.

    Args:
        message: What failed, and what to do.
        sent: How many messages, from the first on, the broker has confirmed.
        results: The results to come of the calls that were sent; empty for those sent in a ``batch`` block.

    Attributes:
        sent: See above.
        results: See above.
    """

    def __init__(self, message: str = "", *, sent: int = 0, results: Sequence[Any] = ()) -> None:
        super().__init__(message, retryable=False)
        self.sent = sent
        self.results: list[Any] = [*results]


class BackendError(CeleriacError):
    """Raised when the result store could not do what was asked."""


class ChordsUnsupported(BackendError, NotImplementedError):
    """Raised when a result store is asked for chords that cannot have them; Celery's is the latter kind."""


class BackendUnreachable(BackendError):
    """Raised when nobody answers at the result store's address, or it refuses us."""


class BackendGetMetaError(BackendError):
    """Raised when the result store could not read a result, however often it was asked.

    Args:
        *args: The message.
        task_id: The id of the task.
    """

    def __init__(
        self, *args: object, task_id: str = "", **kwargs: Any
    ) -> None:  # Any: accepted as Celery does
        self.task_id = task_id
        super().__init__(*args)

    def __repr__(self) -> str:
        return f"{super().__repr__()} task_id:{self.task_id}"


class BackendStoreError(BackendError):
    """Raised when the result store could not write a result, however often it was asked.

    Args:
        *args: The message.
        state: The state that was to be stored.
        task_id: The id of the task.
    """

    def __init__(
        self, *args: object, state: str = "", task_id: str = "", **kwargs: Any
    ) -> None:  # Any: as above
        self.state = state
        self.task_id = task_id
        super().__init__(*args)

    def __repr__(self) -> str:
        return f"{super().__repr__()} state:{self.state} task_id:{self.task_id}"


class CodecError(CeleriacError):
    """Root of the errors between values and bytes."""


class EncodeError(CodecError):
    """Raised when a value has no form in the chosen serializer."""


class DecodeError(CodecError):
    """Raised when bytes are not what their content type says."""


class ContentRefused(DecodeError):
    """Raised for a content type that ``accept_content`` does not list."""


class TimeoutError(TaskError):
    """Raised when waiting for a result took longer than the caller allowed."""


class MaxRetriesExceededError(TaskError):
    """Raised by ``retry()`` when a task has used up its retries.

    Args:
        *args: The message.
        task_args: Positional arguments of the call that gave up.
        task_kwargs: Keyword arguments of the call that gave up.
    """

    def __init__(self, *args: object, **kwargs: Any) -> None:  # Any: Celery's open keyword form
        self.task_args: Any = kwargs.pop("task_args", [])
        self.task_kwargs: Any = kwargs.pop("task_kwargs", {})
        super().__init__(*args)


class TaskRevokedError(TaskError):
    """Raised for the caller when the task was revoked or has expired."""


class ChordError(TaskError):
    """Raised for the caller when a part of a chord failed."""


class InvalidTaskError(TaskError):
    """Raised when a message is no valid task message."""


class IncompleteStream(TaskError):
    """Raised when the results below a result are not all there yet."""


class WorkerLostError(TaskError):
    """Raised for the caller when the process that ran the task died."""


class TimeLimitExceeded(TaskError):
    """Raised for the caller when the hard time limit ended the task."""

    def __str__(self) -> str:
        """Return Celery's text, which tools look for: ``TimeLimitExceeded(15,)``."""
        return f"{type(self).__name__}{self.args}"


class SoftTimeLimitExceeded(TaskError):
    """Raised inside a task when its soft time limit passes; catch it to clean up."""

    def __str__(self) -> str:
        """Return Celery's text, which tools look for: ``SoftTimeLimitExceeded()``."""
        return f"{type(self).__name__}{self.args}"


class TaskSignal(CeleriacError):
    """Root of what a task raises to say what shall become of it."""


class Ignore(TaskSignal):
    """Raised by a task: acknowledge the message and store no state."""


class Reject(TaskSignal):
    """Raised by a task: refuse the message (``requeue=True`` puts it back).

    Args:
        reason: Why, for the log.
        requeue: Whether the message goes back to its queue.
    """

    def __init__(self, reason: object = None, requeue: bool = False) -> None:
        self.reason = reason
        self.requeue = requeue
        super().__init__(reason, requeue)

    def __repr__(self) -> str:
        """Say whether it is requeued and why, as Celery's log line has it."""
        return f"reject requeue={self.requeue}: {self.reason}"

    __str__ = __repr__


class Retry(TaskSignal):
    """Raised by ``task.retry()``: this run is over and another one has been sent.

    Args:
        message: Text for the log; made from ``exc`` and ``when`` when not given.
        exc: The exception that made the task retry, or its text.
        when: Seconds until the next run, or the moment of it.
        is_eager: Whether the task runs without a worker.
        sig: The signature of the next run.
    """

    def __init__(
        self,
        message: str | None = None,
        exc: BaseException | str | None = None,
        when: float | datetime.datetime | None = None,
        is_eager: bool = False,
        sig: Any = None,  # Any: a Signature, which lives floors above
        **kwargs: Any,  # Any: accepted and ignored, as Celery does
    ) -> None:
        self.message = message
        self.exc: BaseException | None = exc if isinstance(exc, BaseException) else None
        self.excs: str | None = repr(exc) if isinstance(exc, BaseException) else exc
        self.when = when
        self.is_eager = is_eager
        self.sig = sig
        super().__init__(exc, when)

    def humanize(self) -> str:
        """Return ``in 3s`` or ``at 2030-01-01 00:00:00``."""
        return f"in {self.when}s" if isinstance(self.when, (int, float)) else f"at {self.when}"

    def __str__(self) -> str:
        """Return Celery's text: ``Retry in 1s: RuntimeError('boom')``."""
        if self.message:
            return self.message
        return f"Retry {self.humanize()}" + (f": {self.excs}" if self.excs else "")

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the three fields that mean something in another process."""
        return self.__class__, (self.message, self.exc, self.when)


class CeleriacWarning(UserWarning):
    """Root of the warnings."""


class AlwaysEagerIgnored(CeleriacWarning):
    """``send_task`` sends, also where tasks run eagerly: it need not know the task."""


class DuplicateNodenameWarning(CeleriacWarning):
    """Several workers answer to one name."""
