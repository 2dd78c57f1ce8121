"""Celery's names for what Celeriac raises, and Celery's warnings.

`OperationalError` and `Terminated` are kombu's and billiard's own classes, imported when asked for: most
programs never do.
"""

from __future__ import annotations

import importlib
from types import TracebackType
from typing import Any, NoReturn

from celeriac.errors import (
    AlreadyRegistered,
    AlwaysEagerIgnored,
    BackendError,
    BackendGetMetaError,
    BackendStoreError,
    ChordError,
    DuplicateNodenameWarning,
    Ignore,
    IncompleteStream,
    InvalidTaskError,
    MaxRetriesExceededError,
    NotRegistered,
    QueueNotFound,
    Reject,
    Retry,
    SecurityError,
    SoftTimeLimitExceeded,
    TaskError,
    TaskRevokedError,
    TimeLimitExceeded,
    TimeoutError,  # noqa: A004 - Celery's name
    WorkerLostError,
)
from celeriac.errors import CeleriacError as CeleryError
from celeriac.errors import CeleriacWarning as CeleryWarning
from celeriac.errors import ConfigError as ImproperlyConfigured
from celeriac.errors import TaskSignal as TaskPredicate

__all__ = (
    "AlreadyRegistered",
    "AlwaysEagerIgnored",
    "BackendError",
    "BackendGetMetaError",
    "BackendStoreError",
    "CDeprecationWarning",
    "CPendingDeprecationWarning",
    "CeleryCommandException",  # noqa: F822 - see `__getattr__`
    "CeleryError",
    "CeleryWarning",
    "ChordError",
    "DuplicateNodenameWarning",
    "FixupWarning",
    "Ignore",
    "ImproperlyConfigured",
    "IncompleteStream",
    "InvalidTaskError",
    "MaxRetriesExceededError",
    "NotConfigured",
    "NotRegistered",
    "OperationalError",  # noqa: F822 - see `__getattr__`
    "QueueNotFound",
    "Reject",
    "Retry",
    "RetryTaskError",
    "SecurityError",
    "SecurityWarning",
    "SoftTimeLimitExceeded",
    "SystemTerminate",
    "TaskError",
    "TaskPredicate",
    "TaskRevokedError",
    "Terminated",  # noqa: F822 - see `__getattr__`
    "TimeLimitExceeded",
    "TimeoutError",
    "WorkerLostError",
    "WorkerShutdown",
    "WorkerTerminate",
    "reraise",
)

RetryTaskError = Retry

_ELSEWHERE = {
    "CeleryCommandException": "celery.bin.base",
    "OperationalError": "kombu.exceptions",
    "Terminated": "billiard.exceptions",
}


class FixupWarning(CeleryWarning):
    """Django is asked for but is not there."""


class NotConfigured(CeleryWarning):
    """There are no settings."""


class SecurityWarning(CeleryWarning):
    """Something is not as safe as it could be."""


class CPendingDeprecationWarning(PendingDeprecationWarning):
    """Something will be deprecated."""


class CDeprecationWarning(DeprecationWarning):
    """Something is deprecated."""


class WorkerTerminate(SystemExit):
    """Raised to end a worker at once."""


SystemTerminate = WorkerTerminate


class WorkerShutdown(SystemExit):
    """Raised to end a worker when its tasks are done."""


def reraise(tp: type[BaseException], value: BaseException, tb: TracebackType | None = None) -> NoReturn:
    """Raise an exception with a traceback."""
    raise value if value.__traceback__ is tb else value.with_traceback(tb)


def __getattr__(name: str) -> Any:  # Any: an exception class
    if name not in _ELSEWHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(importlib.import_module(_ELSEWHERE[name]), name)
    return found
