"""What travels, as plain slotted data without behaviour.

A task is a *message* on the wire (`Envelope`), a *delivery* once a worker has leased it, a *job* when it is
assigned to a child, and an *outcome* when it is done. The records between the node and its children
(`Job`, `Report`) are msgpack on a socket, so every field of theirs has to be plain data.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from celeriac.queues import Exchange, Queue
from celeriac.steps import Remainder


class Props(msgspec.Struct, kw_only=True):
    """AMQP message properties; the other transports carry the same ones."""

    correlation_id: str | None = None
    reply_to: str | None = None
    delivery_mode: int = 2  # 1 transient, 2 persistent
    priority: int = 0
    expiration: str | None = None  # milliseconds as text
    message_id: str | None = None
    timestamp: int | None = None  # epoch seconds: when it was sent; Celery's messages do not say
    delivery_tag: str | None = None  # Redis only: unique per message, made by the publisher
    extra: dict[str, Any] = {}  # Any: properties that users add; kept as they are


class Envelope(msgspec.Struct, kw_only=True):
    """One message as it is on the wire, its body still bytes.

    The parent process never decodes ``body``: a bad or hostile body can only hurt a child.
    """

    headers: dict[str, Any]  # Any: header values are whatever the peer sent
    body: bytes  # serialized, compressed when the header says so, never base64
    content_type: str | None = "application/json"
    content_encoding: str | None = "utf-8"
    properties: Props


class TaskHeaders(msgspec.Struct, kw_only=True):
    """The headers of a task message that a node acts on (protocol 2; protocol 1 is converted to it)."""

    task: str
    id: str
    eta: str | None = None  # ISO 8601
    expires: str | None = None  # ISO 8601
    retries: int | None = 0
    timelimit: tuple[float | None, float | None] | None = None  # hard first, then soft (seconds)
    group: str | None = None
    group_index: int | None = None
    root_id: str | None = None
    parent_id: str | None = None
    shadow: str | None = None
    argsrepr: str | None = None
    kwargsrepr: str | None = None
    origin: str | None = None
    ignore_result: bool | None = None
    replaced_task_nesting: int | None = 0
    stamped_headers: list[str] | None = None
    stamps: dict[str, Any] | None = None  # Any: a stamp is a scalar or a list
    compression: str | None = None
    limit_key: str | None = msgspec.field(default=None, name="celeriac_limit_key")  # see `celeriac.keypath`
    lock: str | None = msgspec.field(default=None, name="celeriac_lock")  # see `celeriac.locks`
    burst: str | None = msgspec.field(default=None, name="celeriac_burst")  # see `celeriac.bursts`


class Call(msgspec.Struct, kw_only=True):
    """The decoded body of a task message: what to call it with, and what follows."""

    args: list[Any] | tuple[Any, ...]  # Any: the user's values
    kwargs: dict[str, Any]  # Any: the user's values
    callbacks: list[dict[str, Any]] | None = None  # signatures, as dicts
    errbacks: list[dict[str, Any]] | None = None
    chain: list[dict[str, Any]] | None = None  # reversed: the next step is the last element
    chord: dict[str, Any] | None = None
    remainder: Remainder | None = None  # instead of a long ``chain``


class Once(msgspec.Struct, frozen=True):
    """What a message is one of, and where it stands there: a broker that counts takes each number once.

    It takes only those that are greater than the last one, so it has to keep one number for each row.
    """

    row: str
    number: float


class Outgoing(msgspec.Struct, kw_only=True):
    """An envelope with its address, ready for a producer."""

    envelope: Envelope
    exchange: str = ""  # "" sends to the queue named by the routing key
    routing_key: str
    queue: Queue | None = None  # declared (once per producer) before the first publish, when given
    not_before: float | None = None  # epoch seconds; transports with native delay park it until then
    once: Once | None = None  # with ``caps.once`` the broker drops what it has been sent before


class Broadcast(msgspec.Struct, kw_only=True):
    """A message for all who listen at the moment, as control and events are: nobody leases or settles it."""

    envelope: Envelope
    exchange: Exchange  # made when it is not there; its type says who gets the message
    routing_key: str = ""
    defect: str | None = None  # why one could not be read; `envelope.body` then holds its raw bytes


class Delivery(msgspec.Struct, kw_only=True):
    """A message that this node has leased and has to settle."""

    envelope: Envelope
    queue: str
    exchange: str = ""
    routing_key: str = ""
    redelivered: bool = False
    attempt: int = 1  # how many times it was handed to a worker, this time included (1 when unknown)
    token: Any = None  # Any: the transport's business; nobody else reads it
    defect: str | None = None  # why the message could not be read; `envelope.body` then holds its raw bytes
    uncounted: bool = False  # the broker knows only that it was delivered before, not how often
    lost: bool = False  # another node died after `Start`: tell its loss and settle it, but never run it again


# --- verdicts: what becomes of a delivery -----------------------------------------------------------


class Ack(msgspec.Struct, frozen=True, tag=True):
    """It is done: forget the message."""


class Start(msgspec.Struct, frozen=True, tag=True):
    """It has begun and must never be run again (early acknowledgement); `Ack` follows when it is done.

    A transport with leases keeps the message so that its loss can be told: when this node dies, another one
    receives it with `Delivery.lost` set. Others acknowledge here.
    """


class Reject(msgspec.Struct, frozen=True, tag=True):
    """Refuse it: dropped, or to the broker's dead-letter exchange where one is configured."""


class Requeue(msgspec.Struct, frozen=True, tag=True):
    """Put it back so that any worker may take it at once; it counts as redelivered unless ``untouched``."""

    untouched: bool = False  # it was never started here: hand it back as if it had not been taken
    willing: bool = False  # the task asks for it: its next delivery counts as the second, however often
    noted: bool = False  # with ``untouched``: write down how often it was delivered, where the broker forgets


class Park(msgspec.Struct, frozen=True, tag=True):
    """Put it away until a moment; only for transports with ``caps.native_delay``."""

    until: float  # epoch seconds


# Why a message is given up.
LetterKind = Literal[
    "poison",  # it was delivered as often as is allowed and killed its worker each time
    "undecodable",  # it, or its body, cannot be read
    "unregistered",  # no worker that got it knows the task
    "too-large",
    "lost",  # it had begun and may not begin again, and its process or its whole node died
    "exhausted",  # its last retry failed, and its task wants to be kept then
    "unstored",  # it ran, and the result store refuses its result, or was away for too long
    "other",
]


class DeadLetter(msgspec.Struct, frozen=True, tag=True):
    """Keep it where a person can find, read and requeue it."""

    reason: str  # for people
    kind: LetterKind = "other"


Verdict = Ack | Start | Reject | Requeue | Park | DeadLetter


# --- results ------------------------------------------------------------------------------------------


class Outcome(msgspec.Struct, kw_only=True):
    """What is known of a task: what a backend keeps and what a client reads back.

    ``result`` is the return value, the exception (states FAILURE, RETRY, REVOKED) or a custom state's meta.
    """

    id: str
    state: str
    result: Any = None  # Any: the user's value
    traceback: str | None = None
    children: list[Any] | None = None  # Any: result tuples (nested lists)
    date_done: str | None = None  # ISO 8601 with offset; None while not ready
    group_id: str | None = None
    parent_id: str | None = None
    extended: dict[str, Any] | None = None  # Any: name, args, kwargs, worker, retries, queue and stamps


class Record(msgspec.Struct, kw_only=True, array_like=True):
    """An outcome in the form that a backend writes: `ResultBackend.encode` made it where the task ran."""

    id: str
    state: str
    payload: bytes
    reply_to: str | None = None  # rpc only: the queue of the client who waits
    correlation_id: str | None = None  # rpc only


class Part(msgspec.Struct, kw_only=True, array_like=True):
    """A success as a part of a chord, as `CountsParts.encode_part` made it where the task ran."""

    chord_id: str
    task_id: str
    index: int | None  # its place in the header
    payload: bytes


# --- between the node and its children ----------------------------------------------------------------

OutcomeKind = Literal["success", "failure", "retry", "ignore", "reject", "requeue", "revoked", "invalid"]


class Job(msgspec.Struct, kw_only=True, array_like=True):
    """A delivery assigned to a pool: everything a child needs to run it."""

    number: int  # the node's own, unique while the node lives
    id: str
    task: str
    headers: dict[str, Any]  # Any: as on the wire
    body: bytes
    content_type: str | None
    content_encoding: str | None
    delivery_info: dict[str, Any]  # exchange, routing_key, priority, redelivered
    reply_to: str | None = None
    correlation_id: str | None = None
    properties: dict[str, Any] = {}  # Any: the rest of the message's properties
    hostname: str = ""  # node name
    attempt: int = 1
    soft_limit_seconds: float | None = None
    hard_limit_seconds: float | None = None
    short: bool = False  # jobs of its kind take a few milliseconds: several may wait at one slot
    tells: bool = False  # the report shall say in text what it returns or raises, for events
    more: bool = False  # the next job for the same slot is on its way: report both together
    lost: Lost | None = (
        None  # an earlier child died of it: record that failure and its consequences, do not run
    )
    function: bytes | None = None  # instead of a message: what others' code in the node wants to be called


class Started(msgspec.Struct, kw_only=True, array_like=True, tag="started"):
    """The child has begun a job."""

    number: int
    pid: int
    at: float  # epoch seconds


class Finished(msgspec.Struct, kw_only=True, array_like=True, tag="finished"):
    """The child is done with a job."""

    number: int
    kind: OutcomeKind
    record: Record | None  # what to store; None when nothing is stored
    runtime: float = 0.0  # seconds
    pid: int = 0
    started_at: float = 0.0  # epoch seconds
    result_repr: str | None = None  # for events; only when they are on
    exception_repr: str | None = None  # with `invalid` always: what is wrong with the message
    traceback: str | None = None
    exhausted: bool = False  # it failed, has no retry left, and its task wants to be kept then
    part: Part | None = None  # to be counted once the record is stored
    value: bytes | None = None  # what a function has returned, pickled


class Lost(msgspec.Struct, kw_only=True, array_like=True, tag="lost"):
    """The child died with this job in hand (``started``) or unread (``not started``)."""

    number: int
    started: bool
    reason: str  # `Worker exited prematurely: signal 9 (SIGKILL) Job: 3.`
    limit_seconds: float | None = None  # set when the hard time limit killed it
    stopped: bool = False  # the worker itself was told not to wait for it
    pid: int = 0
    # Nobody died: the node does not want to run it, or has ended it because somebody asked for that.
    refused: Literal["expired", "invalid", "revoked", "terminated"] | None = None
    joins: bool = False  # nobody died: it has ended and completed a chord, whose body is to be sent


Report = Started | Finished | Lost
