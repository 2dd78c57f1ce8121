"""Which of our errors peers know under which name; both kinds of results, JSON and pickle, use the names.

A real client resolves ``celery.exceptions.ChordError`` to its own class and could not make anything of ours.
"""

from __future__ import annotations

from typing import Any, Final

from celeriac import errors


class UnpickleableError(Exception):
    """Stands in a result for an exception that pickle cannot carry.

    Args:
        exc_module: Where its class lives.
        exc_cls_name: Name of its class.
        exc_args: Its arguments, each by its repr when pickle refuses it.
        text: Its repr.
    """

    def __init__(self, exc_module: str, exc_cls_name: str, exc_args: tuple[Any, ...], text: str = "") -> None:
        super().__init__(exc_module, exc_cls_name, exc_args, text)
        self.exc_module = exc_module
        self.exc_cls_name = exc_cls_name
        self.exc_args = exc_args
        self.text = text


NAMES: Final[dict[type[BaseException], tuple[str, str]]] = {
    errors.CeleriacError: ("celery.exceptions", "CeleryError"),
    errors.ConfigError: ("celery.exceptions", "ImproperlyConfigured"),
    errors.SecurityError: ("celery.exceptions", "SecurityError"),
    errors.NotRegistered: ("celery.exceptions", "NotRegistered"),
    errors.AlreadyRegistered: ("celery.exceptions", "AlreadyRegistered"),
    errors.QueueNotFound: ("celery.exceptions", "QueueNotFound"),
    errors.BackendError: ("celery.exceptions", "BackendError"),
    errors.TaskError: ("celery.exceptions", "TaskError"),
    errors.TimeoutError: ("celery.exceptions", "TimeoutError"),
    errors.MaxRetriesExceededError: ("celery.exceptions", "MaxRetriesExceededError"),
    errors.TaskRevokedError: ("celery.exceptions", "TaskRevokedError"),
    errors.ChordError: ("celery.exceptions", "ChordError"),
    errors.InvalidTaskError: ("celery.exceptions", "InvalidTaskError"),
    errors.IncompleteStream: ("celery.exceptions", "IncompleteStream"),
    errors.TaskSignal: ("celery.exceptions", "TaskPredicate"),
    errors.Ignore: ("celery.exceptions", "Ignore"),
    errors.Reject: ("celery.exceptions", "Reject"),
    errors.Retry: ("celery.exceptions", "Retry"),
    errors.WorkerLostError: ("billiard.exceptions", "WorkerLostError"),
    errors.TimeLimitExceeded: ("billiard.exceptions", "TimeLimitExceeded"),
    errors.SoftTimeLimitExceeded: ("billiard.exceptions", "SoftTimeLimitExceeded"),
    errors.EncodeError: ("kombu.exceptions", "EncodeError"),
    errors.DecodeError: ("kombu.exceptions", "DecodeError"),
    errors.ContentRefused: ("kombu.exceptions", "ContentDisallowed"),
    errors.TransportError: ("kombu.exceptions", "OperationalError"),
}
CLASSES: Final[dict[tuple[str, str], type[BaseException]]] = {name: cls for cls, name in NAMES.items()}
