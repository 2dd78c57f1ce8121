"""What becomes of a message, given what became of its job: one pure table.

::

    report                     early ack (Celery's default)   acks_late
    ─────────────────────────  ─────────────────────────────  ─────────────────────────────────────────────
    started                    Start                          —
    success retry ignore       Ack                            Ack
    revoked
    failure                    Ack                            Ack, or Reject unless acks_on_failure
    failure of the last retry  DeadLetter, where the task     DeadLetter, where the task wants that; else as
                               wants that; else Ack           any failure
    reject                     Ack (it was acknowledged)      Reject
    requeue                    Ack (it was acknowledged)      Requeue(willing)
    invalid                    DeadLetter                     DeadLetter
    lost before it started     Requeue(untouched)             Requeue(untouched)
    lost while it ran          DeadLetter                     Requeue if reject_on_worker_lost and deliveries
                                                              are left, else DeadLetter
    lost as the worker was     DeadLetter                     Requeue(willing)
    told to stop at once
    hard time limit            Ack                            Ack, or Requeue unless acks_on_timeout
                                                              (DeadLetter when no deliveries are left)
"""

from __future__ import annotations

import msgspec

from celeriac.message import (
    Ack,
    DeadLetter,
    Finished,
    Lost,
    OutcomeKind,
    Reject,
    Report,
    Requeue,
    Start,
    Started,
    Verdict,
)

# Verdicts are values: one of each serves every delivery.
_ACK = Ack()
_START = Start()
_REJECT = Reject()
_REQUEUE = Requeue()
_AS_ASKED = Requeue(willing=True)
_UNTOUCHED = Requeue(untouched=True)

_LATE: dict[OutcomeKind, Verdict] = {
    "success": _ACK,
    "failure": _ACK,
    "retry": _ACK,
    "ignore": _ACK,
    "revoked": _ACK,
    "reject": _REJECT,
    "requeue": _AS_ASKED,
}


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What a task and its settings say about acknowledging."""

    acks_late: bool = False
    acks_on_failure: bool = True
    acks_on_timeout: bool = True
    reject_on_worker_lost: bool = False
    dead_letter: bool = False  # keep the message when its last retry has failed
    max_deliveries: int = 3  # a task that keeps killing its worker stops here; 0 = never


def verdict(terms: Terms, report: Report, attempt: int = 1) -> Verdict | None:
    """Decide what becomes of a message.

    Args:
        terms: How the task wants to be acknowledged.
        report: What the pool says of its job.
        attempt: How many times the message has been handed to a worker, this time included.

    Returns:
        The verdict; None when the message stays as it is for now (a late-acknowledged task has begun).
    """
    match report:
        case Finished():
            return _finished(terms, report)
        case Started():
            return None if terms.acks_late else _START
        case Lost():
            return _lost(terms, report, attempt)


def fails(report: Lost, decided: Verdict) -> bool:
    """Return whether losing a job is stored as the task's failure: unless it is going to run again."""
    return report.started and not isinstance(decided, Requeue)


def _finished(terms: Terms, report: Finished) -> Verdict:
    kind = report.kind
    if kind == "invalid":
        return DeadLetter(report.exception_repr or "It could not be read.", "undecodable")
    if terms.dead_letter and kind == "failure" and report.exhausted:
        return DeadLetter(f"Its last retry failed: {report.exception_repr}", "exhausted")
    if not terms.acks_late:
        return _ACK  # whatever it asks for: the message was given up when it began
    if kind == "failure" and not terms.acks_on_failure:
        return _REJECT
    return _LATE[kind]


def _lost(terms: Terms, report: Lost, attempt: int) -> Verdict:
    if not report.started:
        return _UNTOUCHED
    if report.stopped:
        return _AS_ASKED if terms.acks_late else DeadLetter(report.reason, "lost")
    if report.limit_seconds is not None:
        if not terms.acks_late or terms.acks_on_timeout:
            return _ACK
        return _again(terms, report, attempt)
    if terms.acks_late and terms.reject_on_worker_lost:
        return _again(terms, report, attempt)
    return DeadLetter(report.reason, "lost")


def _again(terms: Terms, report: Lost, attempt: int) -> Verdict:
    if terms.max_deliveries and attempt >= terms.max_deliveries:
        reason = f"{report.reason} It was delivered {attempt} times; that is the limit."
        return DeadLetter(reason, "poison")
    return _REQUEUE
