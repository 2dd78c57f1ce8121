"""The client: from a call to a message at the broker, in one round trip."""

from __future__ import annotations

import datetime
import importlib
import itertools
import logging
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Any

import msgspec

from celeriac import context, ids, states
from celeriac.backoff import publish_intervals
from celeriac.bursts import Turn
from celeriac.errors import BrokerUnreachable, ConfigError, PartlySent, PublishTimeout, TransportError
from celeriac.forklock import ForkLock
from celeriac.guard import Guard
from celeriac.locks import Lock
from celeriac.message import Outgoing, Props
from celeriac.options import check_spelling
from celeriac.ports import Producer
from celeriac.rounds import FAIR_KEY_HEADER
from celeriac.routing import Route, Router
from celeriac.settings.settings import Settings
from celeriac.wire.task import RESENT_HEADER, Body, TaskMessage, compose, compose_v1, seal

logger: logging.Logger = logging.getLogger(__name__)

# A batch from a long generator goes out in pieces, or it would fill the memory.
FLUSH_AT = 500  # messages
FLUSH_AT_BYTES = 4 << 20

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


class TaskCall(msgspec.Struct, kw_only=True):
    """A call to send: what `Client.send_many` takes."""

    name: str
    args: Sequence[Any] = ()  # Any: the user's values
    kwargs: Mapping[str, Any] = {}
    options: dict[str, Any] = {}  # Any: options of `Task.apply_async`


class _Terms(msgspec.Struct, kw_only=True, frozen=True):
    """How a message is sent."""

    compression: str | None
    budget_seconds: float
    policy: Mapping[str, Any] | None  # None: publishing is tried once
    producer: Producer | None = None  # the app's when None
    not_before: float | None = None  # epoch seconds


class _Plan(msgspec.Struct, kw_only=True):
    """What the settings say about sending, read once per change of the settings."""

    generation: int
    router: Router
    protocol: int
    serializer: str
    terms: _Terms
    inherit_priority: bool
    tells_sent: bool  # an event for each call


class Prepared(msgspec.Struct, kw_only=True):
    """A message that is ready, with what is announced once the broker has it."""

    outgoing: Outgoing
    name: str
    body: Any
    terms: _Terms
    held: Lock | Turn | None = None  # of a unique or debounced task


class _Batch:
    """Messages that wait to be sent together."""

    def __init__(self, client: Client, *, flushes: bool) -> None:
        self.client = client
        self.flushes = flushes  # whether it may be sent in pieces while it grows
        self.messages: list[Prepared] = []
        self.bytes = 0  # of the messages' bodies
        self.sent = 0  # messages that the broker has taken already

    def add(self, message: Prepared) -> None:
        self.messages.append(message)
        self.bytes += len(message.outgoing.envelope.body)
        if self.flushes and (len(self.messages) >= FLUSH_AT or self.bytes >= FLUSH_AT_BYTES):
            self.client._flush(self)


_batch: ContextVar[_Batch | None] = ContextVar("celeriac_batch", default=None)


class Client:
    """Sends calls to the broker.

    1. Merge what the caller, the task, the settings and the route say about a call.
    2. Compose the message, let hooks edit it, serialize it.
    3. Hand it to the producer, within the publish budget; try again as the retry policy says.
    4. Return the result to come.

    Safe for threads, and usable after a fork.

    Args:
        app: The app.
    """

    def __init__(self, app: Any) -> None:  # Any: a Celeriac, whose module imports this one
        self._app = app
        self._conf: Settings = app.conf
        self._plan: _Plan | None = None
        self._producer: Producer | None = None
        self._guard = Guard(app)
        self._making = ForkLock()  # of the producer

    # --- sending --------------------------------------------------------------------------------------

    def send(
        self,
        name: str,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: dict[str, Any] | None = None,
    ) -> Any:  # Any: AsyncResult, or what `result_cls` makes
        """Send one call and return its result to come.

        Inside a `batch` it is kept, and sent with the others when the batch ends. A call of a unique task is
        not sent while another one like it is under way: then the result is that of the other. One of a
        debounced task has the id of those that it follows.

        Args:
            name: The task's name.
            args: Positional arguments.
            kwargs: Keyword arguments.
            options: As for `Task.apply_async`; this dict is used up.

        Raises:
            BrokerUnreachable: Nobody answers at the broker's address, or it refuses us.
            PublishTimeout: The broker did not confirm within the publish budget.
            EncodeError: An argument has no form in the serializer.
            UsageError: The arguments do not have what limits or uniqueness of the task are told apart by.
        """
        options = {} if options is None else options
        frame = context.current()
        if frame is not None:
            frame = context.worker_frame()
        make = options.pop("result_cls", None) or self._app.AsyncResult
        to_parent = options.pop("add_to_parent", True)
        held, first, rule = None, None, self._app.uniques.get(name)
        if rule is not None:
            held, first = self._guard.enter(rule, args or (), kwargs or {}, options, inside=frame is not None)
        if first is not None:
            result = make(first)
            result.ignored = bool(options.get("ignore_result"))
        else:
            try:
                sent, task_id = self._compose(name, args or (), kwargs or {}, options, frame)
            except BaseException:
                self._guard.leave([held] if held is not None else ())
                raise
            sent.held = held
            waiting = _batch.get()
            if waiting is not None and waiting.client is self:
                waiting.add(sent)
            else:
                self.publish([sent])
            result = make(task_id)
            result.ignored = bool(sent.outgoing.envelope.headers.get("ignore_result"))
            result.sent_state = states.QUEUED if sent.terms.not_before is None else states.SCHEDULED
        if frame is not None and to_parent:
            frame.task.add_trail(result)
        return result

    def send_many(self, calls: Iterable[TaskCall]) -> list[Any]:
        """Send calls, hundreds in one round trip, and return their results to come.

        Raises:
            PartlySent: The broker failed after it had taken a part of them.
            TransportError: It failed before.
        """
        return self.send_all(
            self.send(call.name, call.args, call.kwargs, dict(call.options)) for call in calls
        )

    def send_all(self, sending: Iterable[Any]) -> list[Any]:
        """Run a generator that sends as it goes, in batches of bounded size.

        Args:
            sending: Yields a result to come for each call that it sends.

        Returns:
            What it has yielded.

        Raises:
            PartlySent: The broker failed after it had taken a part of them.
        """
        outer = _batch.get()
        if outer is not None and outer.client is self:
            return list(sending)
        results: list[Any] = []
        running = iter(sending)
        while True:
            try:
                with self.batch():
                    piece = list(itertools.islice(running, FLUSH_AT))
            except TransportError as exc:
                if not results:
                    raise
                raise _partly(len(results), exc, results) from exc
            except Exception as exc:
                if results:
                    exc.add_note(f"The first {len(results):,} calls had been sent by then.")
                raise
            results += piece
            if len(piece) < FLUSH_AT:
                return results

    async def asend(
        self,
        name: str,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: dict[str, Any] | None = None,
    ) -> Any:  # Any: as send
        """Do what `send` does without blocking the event loop."""
        async with self.abatch():
            if name in self._app.uniques:  # to ask for its lock blocks
                to_thread = importlib.import_module("asyncio").to_thread
                return await to_thread(self.send, name, args, kwargs, options)
            return self.send(name, args, kwargs, options)

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Send in one round trip what is sent inside this block, when it ends; nothing when it raises.

        More than some hundred messages go out in pieces, the first ones while the block goes on.

        Raises:
            PartlySent: The broker failed after it had taken such pieces.
        """
        outer = _batch.get()
        if outer is not None and outer.client is self:
            yield
            return
        mine = _Batch(self, flushes=True)
        token = _batch.set(mine)
        try:
            yield
        except BaseException:
            self._guard.leave(_held_by(mine.messages))
            raise
        finally:
            _batch.reset(token)
        self._flush(mine)

    @contextmanager
    def held(self) -> Iterator[list[Prepared]]:
        """Keep what is sent inside this block in the list that it gives, for `publish` at its time.

        The results to come are there at once, and what is wrong with a call is raised at once.
        """
        mine = _Batch(self, flushes=False)
        token = _batch.set(mine)
        try:
            yield mine.messages
        finally:
            _batch.reset(token)

    @asynccontextmanager
    async def abatch(self) -> AsyncIterator[None]:
        """Do what `batch` does without blocking the event loop."""
        outer = _batch.get()
        if outer is not None and outer.client is self:
            yield
            return
        if self._producer is None or self._plan is None:
            await importlib.import_module("asyncio").to_thread(self._get_ready)
        mine = _Batch(self, flushes=False)
        token = _batch.set(mine)
        try:
            yield
        except BaseException:
            await self._aleave(mine.messages)
            raise
        finally:
            _batch.reset(token)
        if mine.messages:
            await self._apublish(mine.messages)

    def _get_ready(self) -> None:
        """Load what the first call from an event loop needs: settings, drivers, the queue of answers."""
        importlib.import_module("celeriac.net.lane")
        importlib.import_module("celeriac.awaiting")
        if not self._conf.task_always_eager:
            self._current_plan()
            self._own_producer()
            self._app.reply_address()

    # --- composing ------------------------------------------------------------------------------------

    def _compose(
        self,
        name: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: dict[str, Any],
        frame: context.Frame | None,
    ) -> tuple[Prepared, str]:
        plan = self._current_plan()
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

    def _refine(self, message: TaskMessage, options: dict[str, Any], terms: _Terms) -> _Terms:
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
        message.timelimit = (pop("time_limit", None), pop("soft_time_limit", None))
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

    def _terms(self, options: dict[str, Any], usual: _Terms) -> _Terms:
        pop = options.pop
        retry, policy = pop("retry", None), pop("retry_policy", None)
        budget, producer = pop("timeout", None), self._given_producer(options)
        return _Terms(
            compression=pop("compression", None) or usual.compression,
            budget_seconds=usual.budget_seconds if budget is None else min(budget, usual.budget_seconds),
            policy=usual.policy if retry is None and policy is None else self._policy(retry, policy),
            producer=producer,
        )

    def _current_plan(self) -> _Plan:
        conf = self._conf
        plan = self._plan
        if plan is None or plan.generation != conf.generation:
            conf.finalize()
            plan = self._plan = _Plan(
                generation=conf.generation,
                router=self._app.router,
                protocol=conf.task_protocol,
                serializer=conf.task_serializer,
                terms=_Terms(
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
        if countdown:
            eta = self._app.now() + datetime.timedelta(seconds=countdown)
        text = eta if isinstance(eta, str) else eta.isoformat()
        moment = datetime.datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=_UTC)  # what every worker takes a naive time for
        return text, moment.timestamp()

    def _expiry(self, expires: Any, expiration: Any) -> tuple[str | None, str | None]:
        """Return the ``expires`` header and the broker's own limit, in milliseconds as text."""
        if expires is None:
            return None, None if expiration is None else str(int(float(expiration) * 1000))
        if isinstance(expires, (int, float)):
            seconds: float = expires
            text = (self._app.now() + datetime.timedelta(seconds=expires)).isoformat()
        else:
            text = expires if isinstance(expires, str) else expires.isoformat()
            moment = datetime.datetime.fromisoformat(text)
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=_UTC)
            seconds = moment.timestamp() - time.time()
        if expiration is not None:
            seconds = float(expiration)
        if seconds < 0:
            logger.warning("The task has expired before it is sent (%.3f s ago).", -seconds)
        return text, str(max(0, int(seconds * 1000)))

    # --- publishing -----------------------------------------------------------------------------------

    def _flush(self, batch: _Batch) -> None:
        messages, batch.messages, batch.bytes = batch.messages, [], 0
        if not messages:
            return
        try:
            self.publish(messages)
        except TransportError as exc:
            if not batch.sent:
                raise
            raise _partly(batch.sent, exc) from exc
        batch.sent += len(messages)

    def publish(self, messages: Sequence[Prepared], *, announce: bool = True) -> None:
        """Send what was `held`, at least one message, within the publish budget; raises as `send` does."""
        producer, batch, terms = self._addressed(messages)
        remaining = terms.budget_seconds
        end = time.monotonic() + remaining
        pauses: Iterator[float] | None = None
        while True:
            try:
                producer.send(batch, deadline=remaining)
                break
            except TransportError as exc:
                pauses = pauses or _pauses(terms.policy)
                pause = _pause_before(pauses, exc, end)
                if pause is None:
                    self._guard.leave(_held_by(messages))
                    raise
                _note_doubt(batch, exc)
            except BaseException:
                self._guard.leave(_held_by(messages))
                raise
            time.sleep(pause)
            remaining = end - time.monotonic()
        if not announce:
            return
        if self._app.hooks.after_task_publish.receivers or self._app.hooks.task_sent.receivers:
            self._announce_sent(messages)
        if self._plan is not None and self._plan.tells_sent:
            importlib.import_module("celeriac.events.sent").tell_sent(self._app, batch)

    def forward(self, batch: Sequence[Outgoing]) -> None:
        """Send messages that another process has made, as `publish` does; nobody is told of them."""
        terms = self._current_plan().terms
        made = [Prepared(outgoing=outgoing, name="", body=None, terms=terms) for outgoing in batch]
        self.publish(made, announce=False)

    async def _apublish(self, messages: Sequence[Prepared]) -> None:
        producer, batch, terms = self._addressed(messages)
        remaining = terms.budget_seconds
        end = time.monotonic() + remaining
        pauses: Iterator[float] | None = None
        while True:
            try:
                await producer.asend(batch, deadline=remaining)
                break
            except TransportError as exc:
                pauses = pauses or _pauses(terms.policy)
                pause = _pause_before(pauses, exc, end)
                if pause is None:
                    await self._aleave(messages)
                    raise
                _note_doubt(batch, exc)
            except BaseException:
                await self._aleave(messages)
                raise
            await importlib.import_module("celeriac.awaiting").pause(pause)
            remaining = end - time.monotonic()
        if self._app.hooks.after_task_publish.receivers or self._app.hooks.task_sent.receivers:
            self._announce_sent(messages)
        if self._plan is not None and self._plan.tells_sent:
            tell = importlib.import_module("celeriac.events.sent").tell_sent
            await importlib.import_module("asyncio").to_thread(tell, self._app, batch)

    async def _aleave(self, messages: Sequence[Prepared]) -> None:
        held = _held_by(messages)
        if held:
            await importlib.import_module("asyncio").to_thread(self._guard.leave, held)

    def _addressed(self, messages: Sequence[Prepared]) -> tuple[Producer, list[Outgoing], _Terms]:
        terms = messages[0].terms
        producer = terms.producer or self._producer or self._own_producer()
        return producer, [message.outgoing for message in messages], terms

    def _own_producer(self) -> Producer:
        with self._making:
            if self._producer is None:
                self._producer = self._app.transport.producer()
            return self._producer

    def _announce_sent(self, messages: Sequence[Prepared]) -> None:
        hooks = self._app.hooks
        after, old = hooks.after_task_publish, hooks.task_sent
        for sent in messages:
            outgoing, headers = sent.outgoing, sent.outgoing.envelope.headers
            after.send(
                sent.name,
                body=sent.body,
                headers=headers,
                exchange=outgoing.exchange,
                routing_key=outgoing.routing_key,
            )
            if old.receivers:
                old.send(
                    sent.name,
                    task_id=headers.get("id"),
                    task=sent.name,
                    args=sent.body[0] if isinstance(sent.body, tuple) else sent.body["args"],
                    kwargs=sent.body[1] if isinstance(sent.body, tuple) else sent.body["kwargs"],
                    eta=headers.get("eta"),
                    taskset=headers.get("group"),
                )

    def close(self) -> None:
        """Close the connections of this process. Sending afterwards opens new ones."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.close()
        self._guard.close()


def _held_by(messages: Sequence[Prepared]) -> list[Lock | Turn]:
    return [message.held for message in messages if message.held is not None]


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


def _partly(sent: int, failure: TransportError, results: Sequence[Any] = ()) -> PartlySent:
    return PartlySent(
        f"Only the first {sent:,} were sent, then: {failure} Sending all again would run those twice: send "
        "the rest, when the broker is back.",
        sent=sent,
        results=results,
    )


def _pauses(policy: Mapping[str, Any] | None) -> Iterator[float]:
    return iter(()) if policy is None else publish_intervals(policy)


def _pause_before(pauses: Iterator[float], failure: TransportError, end: float) -> float | None:
    """Return how long to wait before trying again, or None when the failure is final."""
    if not failure.retryable or isinstance(failure, PublishTimeout):
        return None
    pause = next(pauses, None)
    return None if pause is None or time.monotonic() + pause >= end else pause


def _note_doubt(batch: Sequence[Outgoing], failure: TransportError) -> None:
    """Say on messages that are sent again that they may be there already, when that may be so."""
    if not isinstance(failure, BrokerUnreachable):  # then nothing was sent
        for outgoing in batch:
            outgoing.envelope.headers[RESENT_HEADER] = True


def _signatures(links: Any) -> list[Any]:
    if isinstance(links, list):
        return links
    return list(links) if isinstance(links, tuple) else [links]
