"""Task messages: protocols 2 and 1 of Celery, to envelopes and back.

A sender goes `compose` → (hooks that may edit the parts) → `seal`. A node reads headers with
`unpack_headers` and leaves the body alone; the child that runs the task opens it with `unpack_call`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from celeriac.codecs.compress import compress, decompress
from celeriac.codecs.registry import JSON, Codecs
from celeriac.errors import ConfigError, DecodeError, InvalidTaskError
from celeriac.message import Call, Envelope, Props, TaskHeaders
from celeriac.saferepr import saferepr
from celeriac.steps import Steps
from celeriac.wire import splice

Signatures = Sequence[Mapping[str, Any]]  # Any: signatures are open dicts
BodyV2 = tuple[Sequence[Any], Mapping[str, Any], dict[str, Any]]  # args, kwargs, embed
BodyV1 = dict[str, Any]
Body = BodyV2 | BodyV1

RESENT_HEADER: Final = "celeriac_resent"  # on a message that may be there already: its sender was in doubt
LIMIT_KEY_HEADER: Final = "celeriac_limit_key"  # what a limit counts the call by
BURST_HEADER: Final = "celeriac_burst"  # the turn of a debounced call, see `celeriac.bursts`
LOCK_HEADER: Final = "celeriac_lock"  # the lock that a unique call holds, see `celeriac.locks`
_NOTHING_FOLLOWS: Final = (  # at the end of a body of ours, and of Celery's
    b'"errbacks":null,"chain":null,"chord":null}]',
    b'"errbacks": null, "chain": null, "chord": null}]',
)
_NO_LIMITS: Final = (None, None)
_SHOWN_ONLY: Final = ("argsrepr", "kwargsrepr", "origin", "shadow")
_V1_HEADERS: Final = ("group_index", "root_id", "parent_id", "shadow", "origin", "ignore_result")


class TaskMessage(msgspec.Struct, kw_only=True):
    """Everything that a task message says, in Python's terms; times are ISO 8601 text already."""

    task: str
    id: str
    args: Sequence[Any] = ()  # Any: the user's values
    kwargs: Mapping[str, Any] = {}
    eta: str | None = None
    expires: str | None = None
    retries: int = 0
    timelimit: tuple[float | None, float | None] = _NO_LIMITS  # hard, soft (seconds)
    group: str | None = None
    group_index: int | None = None
    root_id: str | None = None  # the message's own id when None
    parent_id: str | None = None
    shadow: str | None = None
    argsrepr: str | None = None  # made from ``args`` when None
    kwargsrepr: str | None = None
    origin: str | None = None
    ignore_result: bool | None = None  # None leaves it to the worker's task
    replaced_task_nesting: int = 0
    stamped_headers: list[str] | None = None
    stamps: dict[str, Any] | None = None
    callbacks: Signatures | None = None
    errbacks: Signatures | None = None
    chain: Signatures | None = None  # reversed: the next step is the last element
    chord: Mapping[str, Any] | None = None
    headers: Mapping[str, Any] | None = None  # the user's own; they win over the ones above
    reply_to: str | None = None
    priority: int | None = None
    delivery_mode: int = 2
    expiration: str | None = None  # milliseconds as text
    properties: dict[str, Any] | None = None  # the user's own message properties
    sent_at: int | None = None  # epoch seconds


def compose(m: TaskMessage) -> tuple[dict[str, Any], BodyV2, Props]:
    """Return headers, body and properties of a protocol 2 message, each free to be edited before `seal`."""
    args, kwargs, argsrepr, kwargsrepr = m.args, m.kwargs, m.argsrepr, m.kwargsrepr
    headers: dict[str, Any] = {
        "lang": "py",
        "task": m.task,
        "id": m.id,
        "shadow": m.shadow,
        "eta": m.eta,
        "expires": m.expires,
        "group": m.group,
        "group_index": m.group_index,
        "retries": m.retries,
        "timelimit": [*m.timelimit],
        "root_id": m.root_id or m.id,
        "parent_id": m.parent_id,
        "argsrepr": saferepr(args) if argsrepr is None else argsrepr,
        "kwargsrepr": ("{}" if not kwargs else saferepr(kwargs)) if kwargsrepr is None else kwargsrepr,
        "origin": m.origin,
        "ignore_result": m.ignore_result,
        "replaced_task_nesting": m.replaced_task_nesting,
        "stamped_headers": m.stamped_headers,
        "stamps": m.stamps or {},
    }
    if m.headers:
        headers.update(m.headers)
    embed = {"callbacks": m.callbacks, "errbacks": m.errbacks, "chain": m.chain, "chord": m.chord}
    return headers, (args, kwargs, embed), _props(m)


def compose_v1(m: TaskMessage) -> tuple[dict[str, Any], BodyV1, Props]:
    """Return the same for protocol 1, which has no headers and fewer fields.

    A chain becomes nested callbacks, as protocol 1 has it. Root, parent, origin, stamps and the shadow name
    cannot be said and are left out.
    """
    callbacks = list(m.callbacks or ())
    if m.chain:
        callbacks.append(_nested(m.chain))
    body: BodyV1 = {
        "task": m.task,
        "id": m.id,
        "args": m.args,
        "kwargs": m.kwargs,
        "group": m.group,
        "group_index": m.group_index,
        "retries": m.retries,
        "eta": m.eta,
        "expires": m.expires,
        "utc": True,
        "callbacks": callbacks or None,
        "errbacks": m.errbacks,
        "timelimit": [*m.timelimit],
        "taskset": m.group,
        "chord": m.chord,
    }
    return dict(m.headers or {}), body, _props(m)


def _props(m: TaskMessage) -> Props:
    return Props(
        correlation_id=m.id,
        reply_to=m.reply_to or "",  # peers want text; "" means that nobody waits at a queue
        delivery_mode=m.delivery_mode,
        priority=m.priority or 0,
        expiration=m.expiration,
        timestamp=m.sent_at,
        extra=m.properties or {},
    )


def _nested(chain: Signatures) -> Mapping[str, Any]:
    """Return the next step of a reversed chain, each step linked to the one after it."""
    following: Mapping[str, Any] | None = None
    for step in chain:  # the last step comes first
        if following is not None:
            options = dict(step.get("options") or {})
            options["link"] = [*(options.get("link") or ()), following]
            step = {**step, "options": options}
        following = step
    assert following is not None, "an empty chain is no chain"
    return following


def seal(
    headers: dict[str, Any],
    body: Body,
    props: Props,
    codecs: Codecs,
    serializer: str = "json",
    compression: str | None = None,
) -> Envelope:
    """Return the envelope: the body serialized and compressed, the headers naming the compression.

    Raises:
        EncodeError: An argument has no form in the serializer.
        ConfigError: The compression is unknown or its package is missing.
    """
    if type(body) is tuple and type(body[2].get("chain")) is Steps:  # `isinstance` of an ABC is a call
        content_type, content_encoding, data = splice.write(*body, codecs, serializer)
    else:
        content_type, content_encoding, data = codecs.encode(body, serializer)
    if compression is not None:
        data, headers["compression"] = compress(compression, data)
    return Envelope(
        headers=headers,
        body=data,
        content_type=content_type,
        content_encoding=content_encoding,
        properties=props,
    )


def is_alone(envelope: Envelope) -> bool:
    """Return whether nothing follows from the end of a task, as far as its body tells without being decoded.

    Args:
        envelope: Its message; only a JSON body of the usual form can be seen to have nothing.
    """
    return envelope.body.endswith(_NOTHING_FOLLOWS)


def is_v2(envelope: Envelope) -> bool:
    """Return whether the message is protocol 2 (or the hybrid), which is what a ``task`` header means."""
    return "task" in envelope.headers


def unpack_headers(envelope: Envelope) -> TaskHeaders:
    """Return the typed headers of a protocol 2 message; only ``task`` and ``id`` have to be there.

    Raises:
        InvalidTaskError: A header is missing or of the wrong type; names it.
    """
    headers = envelope.headers
    try:
        found = msgspec.convert(headers, TaskHeaders)
    except msgspec.ValidationError:
        pass
    else:
        if not (found.id.isascii() and found.task.isascii()):
            _require_text(found)
        return found
    # Headers that are only ever shown must not cost anybody a task.
    shown = {key: str(headers[key]) for key in _SHOWN_ONLY if headers.get(key) is not None}
    try:
        found = msgspec.convert({**headers, **shown}, TaskHeaders)
    except msgspec.ValidationError as exc:
        raise InvalidTaskError(f"Task message {headers.get('id')!r} has invalid headers: {exc}") from exc
    _require_text(found)
    return found


def _require_text(headers: TaskHeaders) -> None:
    """Refuse ids and names that no store and no socket has a form for: JSON can spell lone surrogates."""
    try:
        f"{headers.id}{headers.task}".encode()
    except UnicodeEncodeError as exc:
        raise InvalidTaskError(f"Task message {headers.id!r} has no text as its id or task: {exc}") from exc


def upgrade(
    envelope: Envelope, codecs: Codecs, accept: frozenset[str] | None, *, max_bytes: int = 1 << 30
) -> Envelope:
    """Return a protocol 1 message as protocol 2; any message with a ``task`` header as it is.

    This is the one case where a node decodes a body: protocol 1 keeps the task's name there. Hybrids
    (protocol 2 headers over a protocol 1 body) need no upgrade, `unpack_call` reads them.

    Raises:
        DecodeError: The body cannot be decoded, or its content type is refused.
        InvalidTaskError: It is no task message.
    """
    if "task" in envelope.headers:
        return envelope
    data = _unpacked(envelope.body, envelope.headers.get("compression"), max_bytes)
    body = codecs.decode(data, envelope.content_type, envelope.content_encoding, accept)
    if not isinstance(body, dict) or "task" not in body:
        raise InvalidTaskError("Unknown message: neither a `task` header nor a body with a `task` key")
    if not body.get("id"):
        raise InvalidTaskError(f"Protocol 1 message for {body['task']!r} has no id")
    call = _call_from_dict(body)
    headers: dict[str, Any] = {
        **envelope.headers,
        **{key: body[key] for key in _V1_HEADERS if key in body},
        "lang": "py",
        "task": body["task"],
        "id": body["id"],
        "eta": _aware(body.get("eta"), body),
        "expires": _aware(body.get("expires"), body),
        "group": body.get("taskset") or body.get("group"),
        "retries": body.get("retries") or 0,
        "timelimit": body.get("timelimit") or [None, None],
        "argsrepr": saferepr(call.args),
        "kwargsrepr": saferepr(call.kwargs),
    }
    headers.pop("compression", None)
    try:
        # What was in the body has to travel as headers now: a lone surrogate has no place in any of them.
        msgspec.msgpack.encode(headers)
    except (TypeError, ValueError, OverflowError, RecursionError) as exc:
        raise InvalidTaskError(f"Protocol 1 message for {body['task']!r} has invalid fields: {exc}") from exc
    embed = {"callbacks": call.callbacks, "errbacks": call.errbacks, "chain": None, "chord": call.chord}
    serializer = codecs.name_of(envelope.content_type or "") or "json"
    return seal(headers, (call.args, call.kwargs, embed), envelope.properties, codecs, serializer)


def _aware(moment: Any, body: dict[str, Any]) -> Any:
    """Return a naive time with this machine's offset when the sender said that it is not UTC."""
    if isinstance(moment, str) and not body.get("utc", True):
        try:
            parsed = datetime.fromisoformat(moment)
        except ValueError:
            return moment  # refused with the other headers, by name
        return parsed.astimezone().isoformat() if parsed.tzinfo is None else moment
    return moment


def unpack_call(
    body: bytes,
    content_type: str | None,
    content_encoding: str | None,
    compression: str | None,
    codecs: Codecs,
    accept: frozenset[str] | None,
    max_bytes: int,
) -> Call:
    """Return what to call a task with and what follows it.

    Args:
        body: As received, compressed when ``compression`` says so.
        content_type: Of the message.
        content_encoding: Of the message.
        compression: The header of that name.
        codecs: The app's serializers.
        accept: Mime types that are welcome.
        max_bytes: The largest body that is decoded, after decompression.

    Raises:
        ContentRefused: The content type is not welcome.
        DecodeError: The bytes are not what they claim to be, or too many.
        InvalidTaskError: They decode to something else than a call.
    """
    body = _unpacked(body, compression, max_bytes)
    if len(body) >= splice.LEAST_BYTES and content_type == JSON and (accept is None or JSON in accept):
        spliced = splice.read(body, codecs)
        if spliced is not None:
            return _checked(spliced)
    value = codecs.decode(body, content_type, content_encoding, accept)
    if isinstance(value, dict) and "args" in value:
        return _call_from_dict(value)
    if not isinstance(value, (list, tuple)) or len(value) != 3:
        shape = f"{len(value)} elements" if isinstance(value, (list, tuple)) else type(value).__name__
        raise InvalidTaskError(f"Task body has to be [args, kwargs, embed], not {shape}")
    args, kwargs, embed = value
    if type(embed) is not dict:
        if embed is not None and not isinstance(embed, Mapping):
            raise InvalidTaskError(f"Third element of a task body has to be an object, not {embed!r:.80}")
        embed = embed or {}
    return _call(args, kwargs, embed)


def _unpacked(body: bytes, compression: str | None, max_bytes: int) -> bytes:
    if compression:
        try:
            body = decompress(compression, body, max_bytes=max_bytes)
        except ConfigError as exc:
            raise DecodeError(str(exc)) from exc
    elif len(body) > max_bytes:
        raise DecodeError(f"Message body has {len(body)} bytes; at most {max_bytes} are decoded")
    return body


def _call_from_dict(body: dict[str, Any]) -> Call:
    """Return the call in a protocol 1 body, where everything but the name and the id may be missing."""
    args, kwargs = body.get("args"), body.get("kwargs")
    return _call(() if args is None else args, {} if kwargs is None else kwargs, body)


def _call(args: Any, kwargs: Any, embed: Mapping[str, Any]) -> Call:
    return _checked(
        Call(
            args=args,
            kwargs=kwargs,
            callbacks=embed.get("callbacks"),
            errbacks=embed.get("errbacks"),
            chain=embed.get("chain"),
            chord=embed.get("chord"),
        )
    )


def _checked(call: Call) -> Call:
    args, kwargs = call.args, call.kwargs
    if not isinstance(args, (list, tuple)):
        raise InvalidTaskError(f"Task arguments have to be a list, not {type(args).__name__}")
    if not isinstance(kwargs, dict):
        raise InvalidTaskError(f"Task keyword arguments have to be an object, not {type(kwargs).__name__}")
    if call.callbacks or call.errbacks or call.chain or call.chord:
        _check_what_follows(call)
    return call


def _check_what_follows(call: Call) -> None:
    """Refuse a call now whose run would end in confusion, when nobody knows what has been done."""
    for name in ("callbacks", "errbacks", "chain"):
        follows = getattr(call, name)
        if follows and not (isinstance(follows, (list, tuple)) and all(map(_is_signature, follows))):
            raise InvalidTaskError(
                f"{name!r} of a task body has to be a list of signatures, not {follows!r:.80}"
            )
    if call.chord and not _is_signature(call.chord):
        raise InvalidTaskError(f"'chord' of a task body has to be a signature, not {call.chord!r:.80}")


def _is_signature(value: Any) -> bool:
    return isinstance(value, Mapping) and "task" in value
