"""What a question is, and how answers are made comparable."""

import itertools
import re
import warnings

from celery import Celery, exceptions

QUESTIONS = {}

# From the most special to the most general: an error is told by the first that it is one of.
_ERRORS = (
    *("MaxRetriesExceededError", "NotRegistered", "QueueNotFound", "AlreadyRegistered", "TaskRevokedError"),
    *("InvalidTaskError", "ChordError", "IncompleteStream", "TimeoutError", "Retry", "Ignore", "Reject"),
    *("ImproperlyConfigured", "SecurityError", "TaskError", "TaskPredicate"),
)
_numbers = itertools.count(1)


def question(function):
    """Make a function a question."""
    QUESTIONS[f"{function.__module__.rpartition('.')[2]}.{function.__name__}"] = function
    return function


def shown(value):
    """Return a value as text that does not tell whose it is: no addresses, no ids."""
    text = value if isinstance(value, str) else repr(value)
    text = re.sub(r"0x[0-9a-f]+", "0x…", text)
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "<id>", text)
    text = re.sub(r"gen\d+@[\w.-]+", "<origin>", text)
    return re.sub(r"memory://quiz-\d+", "memory://", text)


def told(error):
    """Return the name that programs catch an exception by."""
    from kombu.exceptions import ContentDisallowed, DecodeError, EncodeError, OperationalError

    for cls in (EncodeError, ContentDisallowed, DecodeError, OperationalError):
        if isinstance(error, cls):
            return cls.__name__
    for name in _ERRORS:
        if isinstance(error, getattr(exceptions, name)):
            return name
    return type(error).__name__


def error(function, *args, **kwargs):
    """Return the name of what a call raises, or its value."""
    try:
        return ["no error", function(*args, **kwargs)]
    except Exception as exc:
        return told(exc)


def error_text(function, *args, **kwargs):
    """Return name and text of what a call raises, or its value."""
    try:
        return ["no error", function(*args, **kwargs)]
    except Exception as exc:
        return [told(exc), str(exc)]


def new_app(main="quiz", **settings):
    """Return an app with a broker and a result store of its own, in memory."""
    settings.setdefault("broker", f"memory://quiz-{next(_numbers)}")
    settings.setdefault("backend", "cache+memory://")
    return Celery(main, **settings)


def answers(modules):
    """Return what the questions of some modules answer."""
    found = {}
    for name, function in QUESTIONS.items():
        if name.partition(".")[0] not in modules:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                found[name] = as_json(function())
            except Exception as exc:
                found[name] = f"!! {type(exc).__name__}: {shown(exc)}"
    return found


def as_json(value):
    """Return a value in plain types, everything unknown as text."""
    if isinstance(value, dict):
        return {shown(key): as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(item) for item in value]
    if value is None or isinstance(value, (bool, int)):
        return value
    return shown(value)


def one():
    return 1


def one_of(x):
    return 1


def args_of(*args):
    return args
