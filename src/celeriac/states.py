"""The states of a task, and what each means to somebody who waits.

The names, sets and the order of ``precedence`` are Celery's; peers compare them as text.
"""

from __future__ import annotations

from typing import Final

PENDING: Final = "PENDING"  # nothing is known of the id
RECEIVED: Final = "RECEIVED"  # seen in events only, never stored
STARTED: Final = "STARTED"
SUCCESS: Final = "SUCCESS"
FAILURE: Final = "FAILURE"
REVOKED: Final = "REVOKED"
REJECTED: Final = "REJECTED"  # seen in events only, never stored
RETRY: Final = "RETRY"
IGNORED: Final = "IGNORED"  # never stored

# What `AsyncResult.known_state` tells apart where the state, as Celery has it, is PENDING:
UNKNOWN: Final = "UNKNOWN"  # nobody who can be asked has heard of the id, or it is over and was not kept
QUEUED: Final = "QUEUED"  # the broker has it
SCHEDULED: Final = "SCHEDULED"  # the broker has it, and its time has not come
PROGRESS: Final = "PROGRESS"  # what `Task.update_progress` stores

READY_STATES: Final = frozenset({SUCCESS, FAILURE, REVOKED})
UNREADY_STATES: Final = frozenset({PENDING, RECEIVED, STARTED, REJECTED, RETRY})
EXCEPTION_STATES: Final = frozenset({RETRY, FAILURE, REVOKED})
PROPAGATE_STATES: Final = frozenset({FAILURE, REVOKED})
ALL_STATES: Final = frozenset({PENDING, RECEIVED, STARTED, SUCCESS, FAILURE, RETRY, REVOKED})

PRECEDENCE: Final = (SUCCESS, FAILURE, None, REVOKED, STARTED, RECEIVED, REJECTED, RETRY, PENDING)
_RANK: Final = {name: rank for rank, name in enumerate(PRECEDENCE)}


def stays(stored: str, new: str) -> bool:
    """Return whether a stored state stays when another one of the same task comes in.

    A SUCCESS does. So does every end of a task when a RETRY comes in: the next run may have ended before the
    RETRY of the one before it is stored, and whoever waits would wait for ever.
    """
    return stored == SUCCESS or (new == RETRY and stored in READY_STATES)


def precedence(state: str) -> int:
    """Return the rank of a state; 0 is the strongest, custom states rank between FAILURE and REVOKED."""
    return _RANK.get(state, _RANK[None])
