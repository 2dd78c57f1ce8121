"""Whether a message is taken in: a pure decision about one delivery."""

from __future__ import annotations

import datetime
from typing import Literal, Protocol

import msgspec

from celeriac.errors import (
    DecodeError,
    InvalidTaskError,
    NotRegistered,
    SecurityError,
    TaskRevokedError,
)
from celeriac.message import Ack, DeadLetter, Delivery, Envelope, TaskHeaders, Verdict
from celeriac.node.policy import Policy
from celeriac.wire.task import unpack_headers

# Later than this, and it is worth a round trip to have the broker keep it.
PARK_SECONDS = 2.0

Why = Literal["defect", "invalid", "unregistered", "too large", "expired", "revoked"]


class Admitted(msgspec.Struct):
    """Run it now."""

    headers: TaskHeaders
    policy: Policy


class Early(msgspec.Struct):
    """Run it when its time has come."""

    headers: TaskHeaders
    policy: Policy
    until: float  # epoch seconds
    at_broker: bool  # far enough away that the broker shall keep it


class Dead(msgspec.Struct):
    """Do not run it: its worker has died of it. Tell so, with all that follows from a failure."""

    headers: TaskHeaders
    policy: Policy
    letter: DeadLetter


class Refused(msgspec.Struct):
    """Do not run it."""

    why: Why
    verdict: Verdict
    error: Exception
    headers: TaskHeaders | None = None  # None when they cannot be read
    state: str | None = None  # what its caller is told, with the error as the result; None: nothing


Decision = Admitted | Early | Dead | Refused


class Reception(Protocol):
    """What the decision rests on."""

    max_bytes: int

    def is_revoked(self, headers: TaskHeaders) -> bool:
        """Return whether somebody has revoked a task."""
        ...

    def policy(self, name: str) -> Policy | None:
        """Return what is known of a kind of task; None when it is not registered."""
        ...

    def upgrade(self, envelope: Envelope) -> Envelope:
        """Return a message of the old protocol in the new one.

        Raises:
            DecodeError: Its body cannot be read.
            InvalidTaskError: It is no task message.
        """
        ...


def admit(delivery: Delivery, reception: Reception, now: float) -> Decision:
    """Decide whether a delivery is run now, later or not at all.

    A message of the old protocol is replaced in the delivery by the same one in the new protocol.

    Args:
        delivery: What was received.
        reception: What is known here.
        now: Epoch seconds.
    """
    if delivery.defect is not None:
        return Refused("defect", DeadLetter(delivery.defect, "undecodable"), DecodeError(delivery.defect))
    envelope = delivery.envelope
    try:
        if "task" not in envelope.headers:
            envelope = delivery.envelope = reception.upgrade(envelope)
        headers = unpack_headers(envelope)
    except (DecodeError, InvalidTaskError, SecurityError) as exc:
        return Refused("invalid", DeadLetter(str(exc), "undecodable"), exc)
    policy = reception.policy(headers.task)
    if policy is None:
        unknown = NotRegistered(headers.task)
        dead = DeadLetter(repr(unknown), "unregistered")
        return Refused("unregistered", dead, unknown, headers, "FAILURE")
    if len(envelope.body) > reception.max_bytes:
        error = InvalidTaskError(
            f"Its body has {len(envelope.body)} bytes; {reception.max_bytes} are allowed."
        )
        return Refused("too large", DeadLetter(str(error), "too-large"), error, headers, "FAILURE")
    if delivery.lost:
        lost = DeadLetter("Worker exited prematurely: it died while the task ran.", "lost")
        return Dead(headers, policy, lost)
    if reception.is_revoked(headers):
        return revoked(headers)
    # What is acknowledged when it begins comes again only if it never began: it has killed nobody, it has
    # waited in the hands of workers that died.
    if policy.terms.acks_late and 0 < policy.terms.max_deliveries < delivery.attempt:
        reason = f"It was delivered {delivery.attempt - 1} times and never finished."
        return Dead(headers, policy, DeadLetter(reason, "poison"))
    if headers.expires is None and headers.eta is None:
        return Admitted(headers, policy)
    return _in_time(headers, policy, now)


def expired(headers: TaskHeaders, now: float) -> Refused | None:
    """Return the refusal of a task that nobody wants any more; None for all others.

    Args:
        headers: The task's, whose times can be read.
        now: Epoch seconds.
    """
    if headers.expires is None or _moment(headers.expires) > now:
        return None
    return Refused("expired", Ack(), TaskRevokedError("expired"), headers, "REVOKED")


def revoked(headers: TaskHeaders) -> Refused:
    """Return the refusal of a task that somebody has revoked."""
    return Refused("revoked", Ack(), TaskRevokedError("revoked"), headers, "REVOKED")


def _in_time(headers: TaskHeaders, policy: Policy, now: float) -> Decision:
    try:
        too_late = expired(headers, now)
        eta = None if headers.eta is None else _moment(headers.eta)
    except ValueError as exc:
        error = InvalidTaskError(f"Its eta or expires is no time in ISO 8601: {exc}")
        return Refused("invalid", DeadLetter(str(error), "undecodable"), error, headers, "FAILURE")
    if too_late is not None:
        return too_late
    if eta is not None and eta > now:
        return Early(headers, policy, eta, eta - now > PARK_SECONDS)
    return Admitted(headers, policy)


def _moment(text: str) -> float:
    """Return epoch seconds of an ISO 8601 time; one without an offset is in UTC."""
    moment = datetime.datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return moment.timestamp()
