"""Sources: the queues that RabbitMQ sends us from, how much it may send, and what nobody has taken yet."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Final

from celeriac.ports import ConsumeSpec
from celeriac.queues import Queue
from celeriac.transports.amqp import topology
from celeriac.transports.amqp.allowance import Allowance
from celeriac.transports.amqp.connection import Cancelled, Event, Message
from celeriac.transports.amqp.custody import Call
from celeriac.transports.amqp.substitute import is_quorum

_ALONE: Final = "x-single-active-consumer"
_SILENT_LOOKS: Final = 6  # half a minute with the usual lease


class Source:
    """A queue that we consume from, and what it has sent that the node has not taken yet."""

    __slots__ = ("heard", "messages", "queue", "silent_looks", "waited_for")

    def __init__(self, queue: Queue) -> None:
        self.queue: Queue = queue
        self.messages: deque[Message] = deque()
        self.heard: bool = False  # since we looked last
        self.waited_for: bool = False  # it had messages, and room with us, and sent nothing
        self.silent_looks: int = 0  # in a row, in which it had no messages and sent none


class Sources:
    """What one node consumes from, over one connection after the other.

    1. Begins and ends at RabbitMQ what is consumed, under the same name where it goes on.
    2. Keeps what RabbitMQ pushed until the node takes it, the queues in turn.
    3. Tells RabbitMQ how much it may send, and has it pause when that is nothing.
    4. Notices which queues RabbitMQ has forgotten to send from.
    5. Ends no consumer whose beginning is not answered yet: RabbitMQ's channel would die of that, and the
       connection with it (INTERNAL_ERROR), and what was acknowledged last might come again.

    Args:
        spec: What to consume.
        call: Asks RabbitMQ several things in one write and returns its answers.
        ask: Does the same without waiting; does nothing without a connection.
    """

    def __init__(self, spec: ConsumeSpec, call: Call, ask: Callable[..., None]) -> None:
        self.queues: dict[str, Queue] = {queue.name: queue for queue in spec.queues}
        self.allowance: Allowance = Allowance(
            spec.prefetch,
            shared=not any(map(is_quorum, spec.queues)),
            alone=any((queue.arguments or {}).get(_ALONE) for queue in spec.queues),
        )
        self._let_go: dict[str, Queue] = {}
        self._call = call
        self._ask = ask
        self._numbers = itertools.count(1)
        self._changing = asyncio.Lock()  # held by who ends consumers and begins others
        self._beginning = 0  # calls that have begun consumers and wait for the answers
        self.forget()

    def forget(self) -> None:
        """Begin with a new connection: what came through the old one is RabbitMQ's again."""
        self.allowance.forget()
        self.turns: deque[Source] = deque()  # those that have messages, and whose turn it is
        self.gone: list[str] = []  # queues that somebody deleted under us
        self.queue_of: dict[str, str] = {}  # by consumer tag, ended ones included
        self._by_tag: dict[str, Source] = {}

    # --- what comes ---

    def hear(self, events: Iterable[Event], outstanding: dict[int, Message]) -> list[Event]:
        """Take in what RabbitMQ has sent.

        Args:
            events: What it has sent.
            outstanding: Gets the messages that are to be acknowledged, by their tags.

        Returns:
            What others have to mind: messages that are settled by being sent, and what is about no source.
        """
        by_tag, turns = self._by_tag, self.turns
        others: list[Event] = []
        for event in events:
            if type(event) is Message:
                source = by_tag[event.consumer]
                if source.queue.no_ack:
                    others.append(event)
                else:
                    outstanding[event.tag] = event
                source.heard = True
                if not source.messages:
                    turns.append(source)
                source.messages.append(event)
            elif type(event) is Cancelled:
                self.gone.append(by_tag.pop(event.consumer).queue.name)
            else:
                others.append(event)
        return others

    def take(self, limit: int) -> list[tuple[Message, str]]:
        """Return at most so many of the messages that nobody has taken, each with its queue."""
        taken: list[tuple[Message, str]] = []
        turns = self.turns
        while turns and len(taken) < limit:
            source = turns[0]
            taken.append((source.messages.popleft(), source.queue.name))
            if source.messages:
                turns.rotate(-1)
            else:
                turns.popleft()
        return taken

    def untaken(self) -> list[tuple[Message, str]]:
        """Return all of them, and leave them where they are."""
        return [(message, source.queue.name) for source in self.turns for message in source.messages]

    # --- what is consumed ---

    async def begin(self, queues: Sequence[Queue] | None = None) -> None:
        """Declare queues, set the limit and consume, all in one round trip.

        Args:
            queues: Which of ours; None: all.
        """
        await self._undisturbed(lambda: self._begin(queues))

    async def _undisturbed(self, change: Callable[[], Awaitable[None]]) -> None:
        """Change what is consumed when nobody else does, and to the end though the caller is cancelled."""

        async def work() -> None:
            async with self._changing:
                await change()

        await asyncio.shield(asyncio.create_task(work(), name="consumers"))

    async def _begin(self, queues: Sequence[Queue] | None = None) -> None:
        queues = [*self.queues.values()] if queues is None else queues
        methods = [method for queue in queues for method in topology.declarations(queue)]
        methods.append(self.allowance.tell(len(self.queues)))
        paused = {source.queue.name: tag for tag, source in self._by_tag.items()}
        unread = {source.queue.name: source for source in self.turns}
        for queue in queues:
            if self.allowance.paused:
                continue
            # Under its old name where it goes on: each new one would be kept until the connection ends.
            tag = paused.get(queue.name) or f"{next(self._numbers)}"
            # In one line with what came under the old name: else the two would take turns.
            self._by_tag.setdefault(tag, unread.get(queue.name) or Source(queue))
            self.queue_of[tag] = queue.name
            flags = (False, queue.no_ack, False, False)  # no_local, no_ack, exclusive, nowait
            methods.append(("basic.consume", 0, queue.name, tag, *flags, queue.consumer_arguments))
        self._beginning += 1
        try:
            await self._call(*methods)
        finally:
            self._beginning -= 1
        self.narrow()  # for what has begun meanwhile

    async def restore(self) -> None:
        """Begin again with queues that somebody has deleted under us."""
        gone, self.gone = self.gone, []
        await self._undisturbed(
            lambda: self._begin([self.queues[name] for name in gone if name in self.queues])
        )

    async def begin_anew(
        self, tags: list[str] | None = None, between: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """End consumers, and consume from their queues as new ones.

        Args:
            tags: Which; None: all.
            between: What to do when nothing is consumed.
        """
        queues = None if tags is None else self.of(tags)

        async def change() -> None:
            await self._end(tags)
            if between is not None:
                await between()
            await self._begin(queues)

        await self._undisturbed(change)

    async def end(self) -> None:
        """End all consumers; nothing comes from them when this returns."""
        await self._undisturbed(self._end)

    async def _end(self, tags: list[str] | None = None) -> None:
        tags = [*self._by_tag] if tags is None else tags
        await self._call(*(("basic.cancel", tag, False) for tag in tags))
        for tag in tags:
            self._by_tag.pop(tag, None)

    async def cancel(self, name: str) -> list[Message]:
        """End with a queue for good, and return what it has sent that nobody has taken."""
        await self._undisturbed(
            lambda: self._end([tag for tag, source in self._by_tag.items() if source.queue.name == name])
        )
        untaken: list[Message] = []
        for source in [source for source in self.turns if source.queue.name == name]:
            if source.queue.no_ack:
                continue  # they are nowhere else
            self.turns.remove(source)
            untaken += source.messages
        return untaken

    def let_go(self, name: str) -> bool:
        """Count a queue as none of ours any more; return whether it was."""
        queue = self.queues.pop(name, None)
        if queue is not None:
            self._let_go[name] = queue  # some of its messages are still here
        return queue is not None

    def find(self, name: str) -> Queue | None:
        """Return a queue of ours, or one that was."""
        return self.queues.get(name) or self._let_go.get(name)

    def of(self, tags: Iterable[str]) -> list[Queue]:
        """Return the queues of consumers."""
        return [self._by_tag[tag].queue for tag in tags]

    # --- how much may come ---

    async def mind_the_limit(self) -> None:
        """Tell RabbitMQ how much it may send; nothing cannot be told, for 0 means no limit."""
        await self._undisturbed(self._change_the_limit)

    async def _change_the_limit(self) -> None:
        allowance = self.allowance
        if allowance.is_full:
            if not allowance.paused and allowance.shared:
                self._pause()
            elif not allowance.paused:
                allowance.paused = True
                await self._end()
        elif allowance.paused or not allowance.shared:
            # RabbitMQ minds a limit that is not shared when a consumer begins, so all begin anew.
            if allowance.paused or not allowance.is_told(len(self.queues)):
                if not allowance.paused:
                    await self._end()
                allowance.paused = False
                await self._begin()
        else:
            self._tell_the_limit()

    def narrow(self) -> None:
        """Have RabbitMQ send less, if what has begun leaves room for less; not waited for."""
        allowance = self.allowance
        if allowance.paused or not allowance.shared or self._beginning:
            return
        if allowance.is_full:
            self._pause()
        elif allowance.is_off(len(self.queues)):
            self._tell_the_limit()

    def wants_more(self) -> bool:
        """Return whether RabbitMQ sends less than it may, as something has ended that had begun."""
        allowance = self.allowance
        if allowance.paused:
            return not allowance.is_full
        return allowance.shared and allowance.is_off(len(self.queues))

    def _tell_the_limit(self) -> None:
        # Not waited for: a node changes its mind some 50 times while it empties a long queue, and what it
        # does next comes behind this on the channel anyway.
        self._ask(self.allowance.tell(len(self.queues)))

    def _pause(self) -> None:
        """Have RabbitMQ send nothing. Not waited for either: what is on its way is taken as ever."""
        self.allowance.paused = True
        self._ask(*[("basic.cancel", tag, False) for tag in self._by_tag])

    # --- what does not come ---

    async def forgotten(self, outstanding: Mapping[int, Message]) -> list[str]:
        """Return the tags of consumers whose queues had messages, and room, and sent none two looks in a row.

        Args:
            outstanding: What was sent and is not settled.
        """
        if self.allowance.paused:
            return []
        silent = {tag: source for tag, source in self._by_tag.items() if not source.heard}
        for source in self._by_tag.values():
            source.silent_looks = 0 if source.heard else source.silent_looks
            source.heard = False
        with_room = {
            tag: source for tag, source in silent.items() if self._has_room(source.queue.name, outstanding)
        }
        if not with_room:
            return []
        looks = [topology.look_at_queue(source.queue.name) for source in with_room.values()]
        forgotten: list[str] = []
        for (tag, source), (_, size, _) in zip(with_room.items(), await self._call(*looks), strict=True):
            if size and source.waited_for and not source.heard and tag in self._by_tag:
                forgotten.append(tag)
            source.waited_for = bool(size)
            source.silent_looks = 0 if size or source.heard else source.silent_looks + 1
        return forgotten

    def is_long_silent(self) -> bool:
        """Return whether a quorum queue was empty and sent nothing for so long that it is to be doubted."""
        sources = self._by_tag.values()
        return any(source.silent_looks >= _SILENT_LOOKS and is_quorum(source.queue) for source in sources)

    def _has_room(self, name: str, outstanding: Mapping[int, Message]) -> bool:
        """Return whether RabbitMQ may send us one more message from a queue."""
        limit = self.allowance.limit(len(self.queues))
        held = outstanding.values()
        own = (self.allowance.shared or self.queue_of[each.consumer] == name for each in held)
        return not limit or sum(own) < limit
