"""The exceptions of `celery.exceptions`: families, texts, pickles."""

import datetime
import pickle

from celery import exceptions, states
from quiz.asking import question

NAMES = (
    *("CeleryWarning", "AlwaysEagerIgnored", "DuplicateNodenameWarning", "FixupWarning", "NotConfigured"),
    *("SecurityWarning", "CeleryError", "ImproperlyConfigured", "SecurityError", "TaskPredicate", "Retry"),
    *("RetryTaskError", "Ignore", "Reject", "TaskError", "QueueNotFound", "IncompleteStream"),
    *("AlreadyRegistered", "TaskRevokedError", "InvalidTaskError", "ChordError", "NotRegistered"),
    *("TimeoutError", "MaxRetriesExceededError", "BackendError", "BackendGetMetaError", "BackendStoreError"),
    *("CPendingDeprecationWarning", "CDeprecationWarning", "WorkerTerminate", "SystemTerminate"),
    *("WorkerShutdown", "CeleryCommandException", "OperationalError", "SoftTimeLimitExceeded"),
    *("TimeLimitExceeded", "WorkerLostError", "Terminated"),
)
FAMILIES = (
    *("CeleryError", "TaskError", "TaskPredicate", "BackendError", "CeleryWarning", "BackendGetMetaError"),
)
BUILT_IN = (KeyError, SystemExit, UserWarning, DeprecationWarning, PendingDeprecationWarning, Exception)


@question
def every_name_is_there():
    return [name for name in NAMES if not hasattr(exceptions, name)], callable(exceptions.reraise)


@question
def families():
    return {
        name: [
            family
            for family in FAMILIES
            if family != name and issubclass(getattr(exceptions, name), getattr(exceptions, family))
        ]
        + [cls.__name__ for cls in BUILT_IN if issubclass(getattr(exceptions, name), cls)]
        for name in NAMES
    }


def texts(error):
    again = pickle.loads(pickle.dumps(error))
    return [str(error), type(again) is type(error), str(again)]


@question
def plain_ones():
    plain = (
        *(
            "CeleryError",
            "ImproperlyConfigured",
            "SecurityError",
            "TaskError",
            "QueueNotFound",
            "IncompleteStream",
        ),
        *("AlreadyRegistered", "TaskRevokedError", "InvalidTaskError", "ChordError", "NotRegistered"),
        *("TimeoutError", "MaxRetriesExceededError", "SoftTimeLimitExceeded", "TimeLimitExceeded"),
        *("WorkerLostError", "WorkerShutdown", "WorkerTerminate", "Ignore"),
    )
    found = {}
    for name in plain:
        error = getattr(exceptions, name)("text")
        found[name] = [str(error), list(error.args), str(pickle.loads(pickle.dumps(error)))]
    return found


@question
def reprs_of_ours():
    return [
        repr(exceptions.NotRegistered("a.b")),
        str(exceptions.NotRegistered("a.b")),
        repr(exceptions.TimeLimitExceeded(3)),
        repr(exceptions.Ignore("why")),
        repr(exceptions.TaskRevokedError("revoked")),
    ]


@question
def retries():
    cls = exceptions.Retry
    when = datetime.datetime(2030, 1, 1)
    made = [
        cls("text"),
        cls(exc=KeyError("x")),
        cls(exc=KeyError("x"), when=3),
        cls(exc="text", when=when),
        cls("m", KeyError("x"), 2.5),
        cls(when=1, is_eager=True, sig="s"),
    ]
    return [
        [*texts(one), one.message, repr(one.exc), one.excs, one.when, one.is_eager, one.sig, one.humanize()]
        for one in made
    ]


@question
def rejects():
    cls = exceptions.Reject
    return [
        [repr(one), one.reason, one.requeue, pickle.loads(pickle.dumps(one)).requeue]
        for one in (cls(), cls("why"), cls("why", requeue=True), cls(KeyError("x"), True))
    ]


@question
def retries_exhausted():
    one = exceptions.MaxRetriesExceededError("text", task_args=(1,), task_kwargs={"a": 2})
    bare = exceptions.MaxRetriesExceededError()
    return [str(one), one.task_args, one.task_kwargs, bare.task_args, bare.task_kwargs]


@question
def errors_of_backends():
    get = exceptions.BackendGetMetaError("text", task_id="i")
    store = exceptions.BackendStoreError("text", state="FAILURE", task_id="i")
    return [[str(one), repr(one), one.task_id] for one in (get, store)], store.state


@question
def states_and_their_sets():
    names = ("READY_STATES", "UNREADY_STATES", "EXCEPTION_STATES", "PROPAGATE_STATES", "ALL_STATES")
    return (
        {name: sorted(getattr(states, name)) for name in names},
        sorted(
            [states.SUCCESS, "CUSTOM", states.PENDING, states.FAILURE, states.RETRY], key=states.precedence
        ),
        states.state("SUCCESS") > states.state("PENDING"),
        states.state("CUSTOM") > states.state("PENDING"),
        [states.IGNORED, states.REJECTED, states.RECEIVED],
        states.PRECEDENCE,
    )


@question
def errors_are_caught_by_the_names_of_kombu_and_billiard():
    import billiard.exceptions
    import kombu.exceptions

    return [
        issubclass(exceptions.SoftTimeLimitExceeded, billiard.exceptions.SoftTimeLimitExceeded),
        issubclass(exceptions.TimeLimitExceeded, billiard.exceptions.TimeLimitExceeded),
        issubclass(exceptions.WorkerLostError, billiard.exceptions.WorkerLostError),
        exceptions.OperationalError is kombu.exceptions.OperationalError,
    ]
