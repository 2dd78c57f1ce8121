"""The composer: from a call, and all that is said about it, to a message."""

from __future__ import annotations

import datetime
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from celeriac import context, ids
from celeriac.bursts import Turn
from celeriac.errors import ConfigError, NoMoment
from celeriac.limits import check_time_limits
from celeriac.locks import Lock
from celeriac.message import Outgoing, Props
from celeriac.options import check_spelling
from celeriac.ports import Producer
from celeriac.rounds import FAIR_KEY_HEADER
from celeriac.routing import Route, Router
from celeriac.settings.settings import Settings
from celeriac.wire.task import Body, TaskMessage, compose, compose_v1, seal

logger: logging.Logger = logging.getLogger(__name__)

# Options that say something about sending, not about the message; the rest become message properties.
_CONSUMED = (
    "add_to_parent",
    "confirm_timeout",
    "declare",
    "delivery_mode",
    "exchange",
    "exchange_type",
    "immediate",
    "mandatory",
    "queue",
    "router",
    "routing_key",
    "utc",
)

# Options that go into the message as they are -> its fields.
_FIELDS = {
    **{
        name: name
        for name in ("argsrepr", "chain", "chord", "group_index", "headers", "kwargsrepr", "origin")
    },
    **{name: name for name in ("parent_id", "priority", "reply_to", "retries", "root_id", "shadow")},
    **{name: name for name in ("replaced_task_nesting", "stamped_headers")},
    "group_id": "group",
}
_UTC = datetime.UTC
_NO_TIME = (AttributeError, OverflowError, TypeError, ValueError)  # what Python says of what is no time


class Terms(msgspec.Struct, kw_only=True, frozen=True):
    """How a message is sent."""

    compression: str | None
    budget_seconds: float
    policy: Mapping[str, Any] | None  # None: publishing is tried once
    producer: Producer | None = None  # the app's when None
    not_before: float | None = None  # epoch seconds


class Plan(msgspec.Struct, kw_only=True):
    """What the settings say about sending, read once per change of the settings."""

    generation: int
    router: Router
    protocol: int
    serializer: str
    terms: Terms
    inherit_priority: bool
    tells_sent: bool  # an event for each call


class Prepared(msgspec.Struct, kw_only=True):
    """A message that is ready, with what is announced once the broker has it."""

    outgoing: Outgoing
    name: str
    body: Any
    terms: Terms
    held: Lock | Turn | None = None  # of a unique or debounced task
    spent_seconds: float = 0.0  # of the publish budget, to get that


class Composer:
    """Makes messages of calls.

    1. Merge what the caller, the task, the settings and the route say about a call.
    2. Compose the message, let hooks edit it, serialize it.
    3. Say on which terms it is sent.

    Args:
        app: The app.
    """

    def __init__(self, app: Any) -> None:  # Any: a Celeriac, whose client imports this
        self._app = app
        self._conf: Settings = app.conf
        self.latest_plan: Plan | None = None  # of the settings as they were at the latest call

    def compose(
        self,
        name: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: dict[str, Any],
        frame: context.Frame | None,
    ) -> tuple[Prepared, str]:
        """Return the message of a call, and its id.

        Args:
            name: The task's name.
            args: Positional arguments.
            kwargs: Keyword arguments.
            options: As for `Task.apply_async`; used up.
            frame: The run that it is called from.

        Raises:
            EncodeError: An argument has no form in the serializer.
            UsageError: The arguments do not have what the task is limited by.
            ConfigError: The task has ``fair_by``, and the broker cannot do that.
        """
        plan = self.plan()
        pop = options.pop
        task_id = pop("task_id", None) or self._app.new_id()
        if frame is not None:
            _inherit(options, frame.request, plan.inherit_priority)
        task_type = pop("task_type", None)
        keyed = self._app.key_paths.get(name)
        if keyed is not None:
            if FAIR_KEY_HEADER in keyed and not self._app.transport.caps.rounds:
                raise _unfair(name, self._app.transport.address)
            keys = {header: path.key(args, kwargs) for header, path in keyed.items()}
            options["headers"] = {**(options.get("headers") or {}), **keys}
        route = plan.router.route(pop("route_name", None) or name, args, kwargs, options, task_type)
        for key, value in route.options.items():
            options.setdefault(key, value)
        ignore_result = pop("ignore_result", False)
        serializer = pop("serializer", None) or plan.serializer
        message = TaskMessage(
            task=name,
            id=task_id,
            args=args,
            kwargs=kwargs,
            root_id=task_id,
            origin=ids.origin(),
            ignore_result=ignore_result,
            reply_to=None if ignore_result else self._app.reply_address(),
            delivery_mode=route.delivery_mode,
            sent_at=int(time.time()),
        )
        own_policy = options.get("retry_policy")
        terms = plan.terms
        if options:
            terms = self._refine(message, options, terms)
        hooks = self._app.hooks
        before = hooks.before_task_publish
        if message.chain and (before.receivers or hooks.after_task_publish.receivers):
            message.chain = [*message.chain]  # they may look at it, and the first ones change it
        headers, body, props = compose(message) if plan.protocol == 2 else compose_v1(message)
        if before.receivers:
            props = _announce(before, name, headers, body, props, route, own_policy)
        envelope = seal(headers, body, props, self._app.codecs, serializer, terms.compression)
        outgoing = Outgoing(
            envelope=envelope,
            exchange=route.exchange,
            routing_key=route.routing_key,
            queue=route.queue,
            not_before=terms.not_before,
        )
        return Prepared(outgoing=outgoing, name=name, body=body, terms=terms), task_id

    def _refine(self, message: TaskMessage, options: dict[str, Any], terms: Terms) -> Terms:
        """Write the options of a call into its message, and return the terms that they make.

        Args:
            message: Changed in place.
            options: Used up.
            terms: Those of the settings.
        """
        pop = options.pop
        for option in [*options]:
            field = _FIELDS.get(option)
            if field is not None and (value := pop(option)) is not None:
                setattr(message, field, value)
        if not options:
            return terms
        terms = self._terms(options, terms)
        countdown, moment = pop("countdown", None), pop("eta", None)
        if countdown or moment:  # a countdown of 0 is none, as in Celery
            message.eta, not_before = self._moment(countdown, moment)
            terms = msgspec.structs.replace(terms, not_before=not_before)
        limit, broker_limit = pop("expires", None), pop("expiration", None)
        if limit is not None or broker_limit is not None:
            message.expires, message.expiration = self._expiry(limit, broker_limit)
        hard, soft = pop("time_limit", None), pop("soft_time_limit", None)
        if hard is not None and soft is not None:
            check_time_limits(soft, hard)
        message.timelimit = (hard, soft)
        stamped = message.stamped_headers
        if stamped:
            message.stamps = {stamp: pop(stamp, None) for stamp in stamped}
        if (link := pop("link", None)) is not None:
            message.callbacks = _signatures(link)
        if (link := pop("link_error", None)) is not None:
            message.errbacks = _signatures(link)
        for consumed in _CONSUMED:
            pop(consumed, None)
        if options:
            check_spelling(options, message.task, strict=self._app.conf.strict)
            message.properties = options
        return terms

    def _terms(self, options: dict[str, Any], usual: Terms) -> Terms:
        pop = options.pop
        retry, policy = pop("retry", None), pop("retry_policy", None)
        budget, producer = pop("timeout", None), self._given_producer(options)
        return Terms(
            compression=pop("compression", None) or usual.compression,
            budget_seconds=usual.budget_seconds if budget is None else min(budget, usual.budget_seconds),
            policy=usual.policy if retry is None and policy is None else self._policy(retry, policy),
            producer=producer,
        )

    def plan(self) -> Plan:
        """Return what the settings say now."""
        conf = self._conf
        plan = self.latest_plan
        if plan is None or plan.generation != conf.generation:
            conf.finalize()
            plan = self.latest_plan = Plan(
                generation=conf.generation,
                router=self._app.router,
                protocol=conf.task_protocol,
                serializer=conf.task_serializer,
                terms=Terms(
                    compression=conf.task_compression,
                    budget_seconds=conf.publish_timeout_seconds,
                    policy=conf.task_publish_retry_policy if conf.task_publish_retry else None,
                ),
                inherit_priority=bool(conf.task_inherit_parent_priority),
                tells_sent=bool(conf.task_send_sent_event),
            )
        return plan

    def _policy(self, retry: bool | None, policy: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        if retry is False:
            return None
        return {**self._conf.task_publish_retry_policy, **(policy or {})}

    def _given_producer(self, options: dict[str, Any]) -> Producer | None:
        """Return what the call says to send with: a producer of ours, or an object of kombu's."""
        producer = options.pop("producer", None) or options.pop("publisher", None)
        connection = options.pop("connection", None)
        if producer is None and connection is None:
            return None
        made: Producer = (
            producer if hasattr(producer, "asend") else self._app.amqp.sender(producer, connection)
        )
        return made

    def times(self, countdown: float | None, eta: Any, expires: Any) -> tuple[str | None, str | None]:
        """Return the headers ``eta`` and ``expires`` of a call with these options."""
        return (
            self._moment(countdown, eta)[0] if countdown or eta else None,
            None if expires is None else self._expiry(expires, None)[0],
        )

    def _moment(self, countdown: float | None, eta: Any) -> tuple[str, float]:
        """Return the ``eta`` header and the same moment in epoch seconds."""
        try:
            if countdown:
                eta = self._app.now() + datetime.timedelta(seconds=countdown)
            return _read(eta)
        except _NO_TIME as exc:
            option, value = ("countdown", countdown) if countdown else ("eta", eta)
            raise _no_moment(option, value, exc) from exc

    def _expiry(self, expires: Any, expiration: Any) -> tuple[str | None, str | None]:
        """Return the ``expires`` header and the broker's own limit, in milliseconds as text."""
        if expires is None:
            return None, None if expiration is None else str(int(float(expiration) * 1000))
        try:
            if isinstance(expires, (int, float)):
                seconds: float = expires
                text = (self._app.now() + datetime.timedelta(seconds=expires)).isoformat()
            else:
                text, moment = _read(expires)
                seconds = moment - time.time()
        except _NO_TIME as exc:
            raise _no_moment("expires", expires, exc) from exc
        if expiration is not None:
            seconds = float(expiration)
        if seconds < 0:
            logger.warning("The task has expired before it is sent (%.3f s ago).", -seconds)
        return text, str(max(0, int(seconds * 1000)))


def _read(value: Any) -> tuple[str, float]:
    """Return a moment as text, and in epoch seconds."""
    text = value if isinstance(value, str) else value.isoformat()
    moment = datetime.datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=_UTC)  # what every worker takes a naive time for
    return text, moment.timestamp()


def _no_moment(option: str, value: Any, exc: Exception) -> NoMoment:
    kinds = {
        "countdown": "a number of seconds",
        "eta": "a datetime, or text such as 2030-01-01T12:00:00+00:00",
    }
    wanted = kinds.get(option) or f"{kinds['countdown']}, {kinds['eta']}"
    return NoMoment(f"The call was not sent: {option}={value!r} says no time ({exc}); it is {wanted}.")


def _inherit(options: dict[str, Any], request: context.Context, inherit_priority: bool) -> None:
    """Take from the task that is running here what the call does not say itself."""
    if options.get("root_id") is None:
        options["root_id"] = request.root_id or request.id
    if options.get("parent_id") is None:
        options["parent_id"] = request.id
    if inherit_priority and options.get("priority") is None:
        options["priority"] = (request.delivery_info or {}).get("priority")


def _announce(
    before: Any,
    name: str,
    headers: dict[str, Any],
    body: Body,
    props: Props,
    route: Route,
    policy: Mapping[str, Any] | None,
) -> Props:
    """Let the receivers of before_task_publish edit the message; return its properties as they left them."""
    known = {field: getattr(props, field) for field in Props.__struct_fields__ if field != "extra"}
    properties = {**known, **props.extra}
    before.send(
        name,
        body=body,
        exchange=route.exchange,
        routing_key=route.routing_key,
        headers=headers,
        properties=properties,
        declare=[route.queue] if route.queue is not None else [],
        retry_policy=policy,
    )
    extra = {key: value for key, value in properties.items() if key not in known}
    return Props(**{key: properties.get(key, known[key]) for key in known}, extra=extra)


def _unfair(task: str, broker: str) -> ConfigError:
    return ConfigError(
        f"The call of task {task} was not sent: it has fair_by=, and the broker {broker} keeps one line for "
        "all. Use a Redis or SQLite broker; or remove fair_by and give tenants queues of their own "
        "(task_routes), or a concurrency_limit with per=."
    )


def _signatures(links: Any) -> list[Any]:
    if isinstance(links, list):
        return links
    return list(links) if isinstance(links, tuple) else [links]
