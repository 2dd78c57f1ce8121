"""The client: from a call to a message at the broker, in one round trip."""

from __future__ import annotations

import importlib
import itertools
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Any

import msgspec

from celeriac import context, states
from celeriac.backoff import publish_intervals
from celeriac.bursts import Turn
from celeriac.composer import Composer, Prepared, Terms
from celeriac.errors import BrokerUnreachable, PartlySent, PublishTimeout, TransportError
from celeriac.forklock import ForkLock
from celeriac.guard import Guard
from celeriac.locks import Lock
from celeriac.message import Outgoing
from celeriac.ports import Producer
from celeriac.settings.settings import Settings
from celeriac.wire.task import RESENT_HEADER

# A batch from a long generator goes out in pieces, or it would fill the memory.
FLUSH_AT = 500  # messages
FLUSH_AT_BYTES = 4 << 20
_SENDING_SHARE = 0.9  # of the budget of a call with a lock: the rest is for letting go of that, or keeping it


class TaskCall(msgspec.Struct, kw_only=True):
    """A call to send: what `Client.send_many` takes."""

    name: str
    args: Sequence[Any] = ()  # Any: the user's values
    kwargs: Mapping[str, Any] = {}
    options: dict[str, Any] = {}  # Any: options of `Task.apply_async`


class _Batch:
    """Messages that wait to be sent together."""

    def __init__(self, client: Client, *, flushes: bool, brief: bool = False) -> None:
        self.client = client
        self.flushes = flushes  # whether it may be sent in pieces while it grows
        self.brief = brief  # whether nothing of the user's happens before it is sent
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

    1. Keep out calls of unique tasks that are under way, and have the others composed (`composer`).
    2. Keep messages together that may go out together.
    3. Hand them to the producer, within the publish budget; try again as the retry policy says.
    4. Return the result to come.

    Safe for threads, and usable after a fork.

    Args:
        app: The app.
    """

    def __init__(self, app: Any) -> None:  # Any: a Celeriac, whose module imports this one
        self._app = app
        self._conf: Settings = app.conf
        self._composer = Composer(app)
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
        held, first, rule, began = None, None, self._app.uniques.get(name), 0.0
        if rule is not None:
            began = time.monotonic()
            held, first = self._guard.enter(rule, args or (), kwargs or {}, options, inside=frame is not None)
        if first is not None:
            result = make(first)
            result.ignored = bool(options.get("ignore_result"))
        else:
            try:
                sent, task_id = self._composer.compose(name, args or (), kwargs or {}, options, frame)
            except BaseException:
                if held is not None:
                    self._guard.leave([held], self._conf.publish_timeout_seconds)
                raise
            if held is not None:
                sent.held, sent.spent_seconds = held, time.monotonic() - began
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
        async with self.abatch(brief=True):
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
            self._guard.leave(_held_by(mine.messages), self._conf.publish_timeout_seconds)
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

    @property
    def collects(self) -> bool:
        """Whether what is sent here and now waits for others, for as long as the user likes."""
        batch = _batch.get()
        return batch is not None and batch.client is self and not batch.brief

    @asynccontextmanager
    async def abatch(self, *, brief: bool = False) -> AsyncIterator[None]:
        """Do what `batch` does without blocking the event loop.

        Args:
            brief: Nothing but sending happens inside.
        """
        outer = _batch.get()
        if outer is not None and outer.client is self:
            yield
            return
        if self._producer is None or self._composer.latest_plan is None:
            await importlib.import_module("asyncio").to_thread(self._get_ready)
        mine = _Batch(self, flushes=False, brief=brief)
        token = _batch.set(mine)
        try:
            yield
        except BaseException:
            await self._aleave(_held_by(mine.messages), self._conf.publish_timeout_seconds)
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
            self._composer.plan()
            self._own_producer()
            self._app.reply_address()

    def times(self, countdown: float | None, eta: Any, expires: Any) -> tuple[str | None, str | None]:
        """Return the headers ``eta`` and ``expires`` of a call with these options."""
        return self._composer.times(countdown, eta, expires)

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
        end = over = time.monotonic() + remaining
        held = _held_by(messages) if self._app.uniques else []
        if held:
            remaining, end, over = _shared(remaining - messages[0].spent_seconds)
        pauses: Iterator[float] | None = None
        while True:
            try:
                producer.send(batch, deadline=remaining)
                break
            except TransportError as exc:
                pauses = pauses or _pauses(terms.policy)
                pause = _pause_before(pauses, exc, end)
                if pause is None:
                    self._guard.leave(held, over - time.monotonic())
                    raise
                _note_doubt(batch, exc)
            except BaseException:
                self._guard.leave(held, over - time.monotonic())
                raise
            time.sleep(pause)
            remaining = end - time.monotonic()
        if held:
            self._guard.confirm(held, over - time.monotonic())
        if not announce:
            return
        if self._app.hooks.after_task_publish.receivers or self._app.hooks.task_sent.receivers:
            self._announce_sent(messages)
        plan = self._composer.latest_plan
        if plan is not None and plan.tells_sent:
            tell = importlib.import_module("celeriac.events.sent").tell_sent
            tell(self._app, batch, over - time.monotonic())

    def forward(self, batch: Sequence[Outgoing]) -> None:
        """Send messages that another process has made, as `publish` does; nobody is told of them."""
        terms = self._composer.plan().terms
        made = [Prepared(outgoing=outgoing, name="", body=None, terms=terms) for outgoing in batch]
        self.publish(made, announce=False)

    async def _apublish(self, messages: Sequence[Prepared]) -> None:
        producer, batch, terms = self._addressed(messages)
        remaining = terms.budget_seconds
        end = over = time.monotonic() + remaining
        held = _held_by(messages) if self._app.uniques else []
        if held:
            remaining, end, over = _shared(remaining - messages[0].spent_seconds)
        pauses: Iterator[float] | None = None
        while True:
            try:
                await producer.asend(batch, deadline=remaining)
                break
            except TransportError as exc:
                pauses = pauses or _pauses(terms.policy)
                pause = _pause_before(pauses, exc, end)
                if pause is None:
                    await self._aleave(held, over - time.monotonic())
                    raise
                _note_doubt(batch, exc)
            except BaseException:
                await self._aleave(held, over - time.monotonic())
                raise
            await importlib.import_module("celeriac.awaiting").pause(pause)
            remaining = end - time.monotonic()
        if held:
            seconds = over - time.monotonic()
            await importlib.import_module("asyncio").to_thread(self._guard.confirm, held, seconds)
        if self._app.hooks.after_task_publish.receivers or self._app.hooks.task_sent.receivers:
            self._announce_sent(messages)
        plan = self._composer.latest_plan
        if plan is not None and plan.tells_sent:
            tell = importlib.import_module("celeriac.events.sent").tell_sent
            await importlib.import_module("asyncio").to_thread(
                tell, self._app, batch, over - time.monotonic()
            )

    async def _aleave(self, held: Sequence[Lock | Turn], deadline: float) -> None:
        if held:
            await importlib.import_module("asyncio").to_thread(self._guard.leave, held, deadline)

    def _addressed(self, messages: Sequence[Prepared]) -> tuple[Producer, list[Outgoing], Terms]:
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


def _shared(budget_seconds: float) -> tuple[float, float, float]:
    """Return for how long a message with a lock may be sent, until when, and when its lock has to be settled.

    A broker that hangs has taken all of the first part when the lock is to be let go of.
    """
    now = time.monotonic()
    sending_seconds = _SENDING_SHARE * budget_seconds
    return sending_seconds, now + sending_seconds, now + budget_seconds


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
