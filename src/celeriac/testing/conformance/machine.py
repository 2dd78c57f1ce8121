"""Random sequences of calls against a model of the queue (needs hypothesis).

Several consumers come, receive, settle, stall, lose their connection, die and leave in any order; whatever
happens, each message has to be where the model says, and is found there, once, in the end.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from celeriac.errors import TransportError
from celeriac.message import Ack, DeadLetter, Delivery, Outgoing, Park, Reject, Requeue, Start, Verdict
from celeriac.ports import Caps, Consumer, ConsumeSpec, Producer, Transport
from celeriac.queues import Queue
from celeriac.rounds import FAIR_KEY_HEADER
from celeriac.testing.conformance.fixtures import DEADLINE_SECONDS, TransportFixtures
from celeriac.testing.conformance.messages import new_queue, texts, to_queue
from celeriac.testing.conformance.queue_model import PARKED_SECONDS, Copy, QueueModel

T = TypeVar("T")

MOST_CONSUMERS = 3
MOMENT_SECONDS = 0.005  # how long a consumer is asked for what need not be there
OWED_SECONDS = 10.0  # how long it may take to get what is there
OWED_AGAIN_SECONDS = 0.3  # the same once it has failed, while hypothesis looks for a shorter example
TRIES = 5  # of a call, when connections are being cut
_PICK = st.integers(0, 5)
_KEY = st.sampled_from(["", "", "a", "b"])

_WAYS: dict[str, Callable[[float], Verdict]] = {  # by name, made from the moment now
    "ack": lambda now: Ack(),
    "start": lambda now: Start(),
    "reject": lambda now: Reject(),
    "requeue": lambda now: Requeue(),
    "willing": lambda now: Requeue(willing=True),
    "untouched": lambda now: Requeue(untouched=True),
    "park": lambda now: Park(until=now + PARKED_SECONDS),
    "bury": lambda now: DeadLetter(reason="machine"),
}
_WAYS_DRAWN = st.lists(st.tuples(_PICK, st.sampled_from(list(_WAYS))), max_size=4)
_AFTER_START = ("ack", "requeue", "bury")
_WHEN_LOST = ("ack", "bury")


class MachineTests(TransportFixtures):
    """Runs the machine; override the hooks where the defaults are slow or do not do what they say."""

    examples: ClassVar[int] = 25  # sequences, when hypothesis' own `max_examples` is 100
    steps: ClassVar[int] = 40  # calls of a sequence
    lease_seconds: ClassVar[float] = 1.0
    sends_later: ClassVar[bool] = True  # `pass_time` reaches messages that were sent for later, too
    owed_seconds = OWED_SECONDS
    keeps_order: ClassVar[bool] = True  # whoever receives gets exactly the head of each queue's line

    def now(self) -> float:
        """Return the epoch seconds of the clock that says which messages are due."""
        return time.time()

    def pass_time(self, transport: Transport, seconds: float) -> None:
        """Let leases grow older; by default by waiting."""
        time.sleep(seconds)

    async def kill(self, consumer: Consumer) -> None:
        """Have a consumer vanish as if its process was killed; by default it is never spoken to again."""

    async def cut(self, consumer: Consumer) -> bool:
        """Break its connection under it; False where there is none."""
        return False

    @pytest.fixture
    def quick_options(self, transport: Transport) -> settings:
        """Return how long to go on: with a profile of hypothesis that tries more, more of everything."""
        more = settings.default.max_examples / 100 if settings.default is not None else 1
        return settings(
            max_examples=max(1, round(self.examples * more)),
            stateful_step_count=self.steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        )

    def test_whatever_happens_each_message_is_where_it_should_be(
        self, transport: Transport, quick_options: settings
    ) -> None:
        run_state_machine_as_test(
            lambda: QueueMachine(self, transport),  # type: ignore[arg-type]  # any factory will do
            settings=quick_options,
        )


class _Node:
    """A consumer and what the machine knows of it."""

    def __init__(self, name: str, consumer: Consumer, prefetch: int) -> None:
        self.name = name
        self.consumer = consumer
        self.prefetch = prefetch
        self.deliveries: dict[str, Delivery] = {}  # by text, what it holds
        self.interrupted = False  # a `receive` was cancelled: it may hold what nobody has seen
        self.lapsed = False  # out of touch for longer than its lease, and not renewed since


class QueueMachine(RuleBasedStateMachine):
    """A few nodes on two queues.

    Args:
        bench: Says how the broker is made to suffer.
        transport: The broker.
    """

    def __init__(self, bench: MachineTests, transport: Transport) -> None:
        super().__init__()
        self.bench = bench
        self.transport = transport
        self.caps: Caps = transport.caps
        self.model: QueueModel = QueueModel(leases=self.caps.leases)
        self.nodes: list[_Node] = []
        self.stale: list[tuple[_Node, Delivery]] = []  # settled, or taken back by the broker
        self.exact: bool = self.caps.leases  # whether attempts are known to the last digit
        self.numbers: itertools.count[int] = itertools.count(1)
        self.runner: asyncio.Runner = asyncio.Runner()
        self.queues: list[Queue] = [new_queue(), new_queue()]
        self.producer: Producer = transport.producer()

    # Whether a rule may be used must not depend on what came when: hypothesis wants the same choices again.

    # --- rules ---------------------------------------------------------------------------------------

    @initialize(prefetch=st.sampled_from([0, 1, 3]))
    def first_node(self, prefetch: int) -> None:
        self.join(prefetch)

    @precondition(lambda self: len(self.nodes) < MOST_CONSUMERS)
    @rule(prefetch=st.sampled_from([0, 1, 3]))
    def join(self, prefetch: int) -> None:
        """A node begins to consume."""
        name = f"node-{next(self.numbers)}@{uuid.uuid4().hex[:6]}"
        spec = ConsumeSpec(
            queues=tuple(self.queues),
            node=name,
            prefetch=prefetch,
            lease_seconds=self.bench.lease_seconds,
        )
        self.nodes.append(_Node(name, self.run(self.transport.consumer(spec)), prefetch))
        self.model.held[name] = []

    @rule(
        queue=st.integers(0, 1),
        messages=st.lists(st.tuples(st.sampled_from([0, 3, 9]), _KEY), min_size=1, max_size=4),
        later=st.booleans(),
    )
    def publish(self, queue: int, messages: list[tuple[int, str]], later: bool) -> None:
        """A client sends; sometimes for later or with a key, where the broker can do that."""
        delay = PARKED_SECONDS if later and self.caps.native_delay and self.bench.sends_later else 0.0
        due = self.bench.now() + delay if delay else None
        batch: list[Outgoing] = []
        for priority, drawn in messages:
            text = f"message {next(self.numbers)}"
            target, key = self.queues[queue], drawn if self.caps.rounds else ""
            batch.append(to_queue(target, text, priority=priority, not_before=due))
            if key:
                batch[-1].envelope.headers[FAIR_KEY_HEADER] = key
            self.model.publish(text, target.name, priority, delay, key)
        self.producer.send(batch, deadline=DEADLINE_SECONDS)

    @precondition(lambda self: self.nodes)
    @rule(queue=st.integers(0, 1), key=_KEY, pick=_PICK, ways=_WAYS_DRAWN)
    def work(self, queue: int, key: str, pick: int, ways: list[tuple[int, str]]) -> None:
        """What is usual: something is sent, received and settled."""
        self.publish(queue, [(0, key), (0, "")], later=False)
        self.receive(pick, 5, ways)

    @precondition(lambda self: self.nodes)
    @rule(pick=_PICK, limit=st.integers(1, 5), ways=_WAYS_DRAWN)
    def receive(self, pick: int, limit: int, ways: list[tuple[int, str]]) -> None:
        """A node asks for messages, gets what it is owed and settles some of what it has by then."""
        node = self.node(pick)
        self.regain(node)
        room = self.room(node, limit)
        owed = room > 0 and self.owed(node)
        seconds = self.bench.owed_seconds if owed else MOMENT_SECONDS
        got = self.run(self.again(lambda: self.receive_within(node, limit, seconds)))
        if owed:
            self.check_some(node, got)
        to_run = [delivery for delivery in got if not delivery.lost]  # those may come on top of the limit
        assert len(to_run) <= max(0, room), f"{texts(got)} is more than {room}"
        assert len(got) <= limit
        if not got and room > 0 and self.model.ready:
            self.note_interrupted(node)  # the moment may have been too short for the answer
        self.take_in(node, got)
        self.settle_some(node, ways)

    @precondition(lambda self: self.nodes)
    @rule(pick=_PICK, ticks=st.integers(0, 6))
    def receive_and_give_up(self, pick: int, ticks: int) -> None:
        """A node asks and is cancelled at some point: nothing may be lost by that."""
        node = self.node(pick)
        self.regain(node)

        async def interrupted() -> Sequence[Delivery]:
            waiting = asyncio.ensure_future(node.consumer.receive(1))
            for _ in range(ticks):
                await asyncio.sleep(0)
            waiting.cancel()
            try:
                return await waiting
            except (asyncio.CancelledError, TransportError):
                return []

        got = self.run(interrupted())
        if not got:
            self.note_interrupted(node)
        self.take_in(node, got)

    @precondition(lambda self: self.nodes)
    @rule(pick=_PICK, ways=_WAYS_DRAWN)
    def settle(self, pick: int, ways: list[tuple[int, str]]) -> None:
        """A node settles some of what it holds, in any order."""
        self.settle_some(self.victim(pick), ways)

    def settle_some(self, node: _Node, ways: list[tuple[int, str]]) -> None:
        """Settle each message once, in a way that a node may choose for it."""
        verdicts: dict[str, tuple[Delivery, Verdict]] = {}
        for number, way in ways if node.deliveries else ():
            text = list(node.deliveries)[number % len(node.deliveries)]
            copy = self.held_copy(node, text)
            if text not in verdicts and self.allowed(copy, way):
                verdicts[text] = (node.deliveries[text], _WAYS[way](self.bench.now()))
        self.run(self.again(lambda: node.consumer.settle(list(verdicts.values()))))
        for text, (_, verdict) in verdicts.items():
            self.model.settle(node.name, self.held_copy(node, text), verdict)
            if not isinstance(verdict, Start):
                self.stale.append((node, node.deliveries.pop(text)))

    @rule(pick=_PICK, way=st.sampled_from(["ack", "start", "requeue", "bury"]))
    def settle_too_late(self, pick: int, way: str) -> None:
        """A node settles what it has settled, or has lost, before: nothing happens."""
        if not self.stale:
            return
        node, delivery = self.stale[pick % len(self.stale)]
        self.run(self.again(lambda: node.consumer.settle([(delivery, _WAYS[way](self.bench.now()))])))

    @rule(times=st.integers(1, 3))
    def time_passes(self, times: int) -> None:
        """All renew in time, perhaps for longer than a lease; the administration counts what waits."""
        for _ in range(times):
            if self.caps.leases:
                self.pass_time(0.4 * self.bench.lease_seconds)
            self.renew_all()
        if self.exact and self.bench.keeps_order:  # else nodes may have more than they know
            for queue in self.queues:
                waiting = [c for c in [*self.model.ready, *self.late()] if c.queue == queue.name]
                assert self.transport.size(queue.name) == len(waiting)

    @precondition(lambda self: self.nodes)
    @rule(pick=_PICK, how=st.sampled_from(["stall", "die", "lose connection", "leave"]))
    def suffer(self, pick: int, how: str) -> None:
        """Something happens to a node, rather to one that holds something."""
        node = self.victim(pick)
        match how:
            case "stall" if self.caps.leases:
                self.stall(node)
            case "die":
                self.die(node)
            case "leave":
                self.leave(node)
            case _:
                self.lose_connection(node)

    def stall(self, node: _Node) -> None:
        """A node stops for longer than its lease, then goes on."""
        held = self.model.held[node.name]
        if len(self.nodes) == 1 and held and all(copy.started or copy.lost for copy in held):
            return  # nobody is there who could take that over and tell of it: it stays the node's
        self.outlive(node)
        node.lapsed = True
        self.forget_held(node)

    def die(self, node: _Node) -> None:
        """A node's process is killed."""
        self.nodes.remove(node)
        self.run(self.bench.kill(node.consumer))
        if self.caps.leases:
            self.outlive(node)
        else:
            self.model.end(node.name, died=True)
        self.drop_stale(node)

    def lose_connection(self, node: _Node) -> None:
        """A node's connection breaks; with a lease it holds what it held."""
        if not self.run(self.bench.cut(node.consumer)):
            return
        if not self.caps.leases:
            self.model.end(node.name, died=True)
            node.deliveries.clear()
            self.drop_stale(node)
        self.renew(node)

    def leave(self, node: _Node) -> None:
        """A node ends in good order."""
        self.nodes.remove(node)
        self.run(node.consumer.close())
        self.model.end(node.name, died=False)
        self.drop_stale(node)
        self.renew_all()

    def teardown(self) -> None:
        """Find everything where it has to be, unless something was wrong before."""
        try:
            if sys.exc_info()[0] is None:
                self.find_all()
        finally:
            for node in self.nodes:
                self.run(node.consumer.close())
            self.producer.close()
            self.runner.close()

    def find_all(self) -> None:
        """Close all nodes; whatever is not gone comes to one that is new, and then there is nothing."""
        while self.nodes:
            self.leave(self.nodes[0])
        if self.model.parked:
            self.pass_time(PARKED_SECONDS + 1)
        self.join(0)
        [node] = self.nodes
        while self.model.ready:
            got = self.run(self.receive_within(node, 100, self.bench.owed_seconds))
            self.check_some(node, got)
            self.take_in(node, got)
            self.run(node.consumer.settle([(delivery, Ack()) for delivery in got]))
        more = self.run(self.receive_within(node, 100, MOMENT_SECONDS))
        assert not more, f"came again: {texts(more)}"
        for queue in self.queues:
            kept = self.transport.graveyard().find(queue.name)
            dead = [copy.text for copy in self.model.dead if copy.queue == queue.name]
            assert sorted(letter.envelope.body.decode() for letter in kept) == sorted(dead)

    # --- inside --------------------------------------------------------------------------------------

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        """Run a call of a consumer's; the loop stands still in between."""
        return self.runner.run(call)

    def pass_time(self, seconds: float) -> None:
        """Let time pass for the broker and for the model."""
        self.bench.pass_time(self.transport, seconds)
        self.model.pass_time(seconds)

    async def again(self, call: Callable[[], Awaitable[T]]) -> T:
        """Call as a node does: once more when the connection was lost."""
        for _ in range(TRIES - 1):
            try:
                return await call()
            except TransportError as exc:
                if not exc.retryable:
                    raise
        return await call()

    async def receive_within(self, node: _Node, limit: int, seconds: float) -> Sequence[Delivery]:
        """Return what comes in time."""
        try:
            async with asyncio.timeout(seconds):
                return await node.consumer.receive(limit)
        except TimeoutError:
            return []

    def node(self, pick: int) -> _Node:
        """Return one of the nodes."""
        return self.nodes[pick % len(self.nodes)]

    def victim(self, pick: int) -> _Node:
        """Return one of the nodes, of those that hold something if any does."""
        busy = [node for node in self.nodes if node.deliveries] or self.nodes
        return busy[pick % len(busy)]

    def held_copy(self, node: _Node, text: str) -> Copy:
        """Return what the model knows of a message in a node's hands."""
        [copy] = [copy for copy in self.model.held[node.name] if copy.text == text]
        return copy

    def room(self, node: _Node, limit: int) -> int:
        """Return how many messages a node may get."""
        if not node.prefetch:
            return limit
        return min(limit, node.prefetch - len(self.model.held[node.name]))

    def owed(self, node: _Node) -> bool:
        """Return whether a node that asks has to get something."""
        elsewhere = [other for other in self.nodes if other is not node]
        if not self.caps.leases and elsewhere:
            return False  # they may have been sent it ahead
        if not self.bench.keeps_order and any(copy.lost for copy in self.model.ready):
            return False  # one of them has taken that over
        return len(self.model.ready) > sum(other.interrupted for other in elsewhere)

    def allowed(self, copy: Copy, way: str) -> bool:
        """Return whether a node would say so of it."""
        if copy.lost:
            return way in _WHEN_LOST
        if copy.started:
            return way in _AFTER_START
        return way != "park" or self.caps.native_delay

    def late(self) -> list[Copy]:
        """Return what is parked."""
        return [copy for _, copy in self.model.parked]

    def take_in(self, node: _Node, got: Sequence[Delivery]) -> None:
        """Hold what was received against the model."""
        self.check_order(got)
        for delivery in self.in_turn(got):
            text = delivery.envelope.body.decode()
            found = [c for c in self.model.ready if c.text == text and c.queue == delivery.queue]
            assert found, f"{text} was received and is not ready: {self.whereabouts(text)}"
            copy = found[0]
            self.model.hand_out(node.name, copy)
            seen = (delivery.lost, delivery.redelivered, delivery.attempt)
            if self.exact and not copy.lost:
                assert seen == (copy.lost, copy.redelivered, copy.handed), text
            else:
                assert delivery.redelivered or not copy.redelivered, text
                assert delivery.lost == copy.lost, text
                copy.redelivered, copy.handed = delivery.redelivered, delivery.attempt
            node.deliveries[text] = delivery
        node.interrupted = node.interrupted and not got

    def note_interrupted(self, node: _Node) -> None:
        """Note that a node may hold what nobody has seen, which goes back as if it had been tried."""
        node.interrupted = True
        self.exact = False
        self.model.doubt()

    def regain(self, node: _Node) -> None:
        """Renew before anything begins, as a node that was out of touch does, and keep what is its own.

        What the broker had sent it before may come first.
        """
        if not node.lapsed:
            return
        early = self.run(self.again(lambda: self.receive_within(node, 1, MOMENT_SECONDS)))
        self.renew(node)
        self.take_in(node, [delivery for delivery in early if node.consumer.holds(delivery)])

    def renew(self, node: _Node) -> None:
        """Have a node renew."""
        self.run(self.again(node.consumer.renew))
        node.lapsed = False

    def in_turn(self, got: Sequence[Delivery]) -> Sequence[Delivery]:
        """Return what was received in the order in which it was served, see `check_order`."""
        if len(got) < 2 or not any(copy.round is not None for copy in self.model.ready):
            return got
        high = self.caps.high_priority_first
        line = [copy.text for queue in self.queues for copy in self.model.in_line(queue.name, high)]
        place = {text: number for number, text in enumerate(line)}
        return sorted(got, key=lambda delivery: place.get(delivery.envelope.body.decode(), 0))

    def check_some(self, node: _Node, got: Sequence[Delivery]) -> None:
        """See that something was received."""
        if not got:
            self.bench.owed_seconds = OWED_AGAIN_SECONDS
        assert got, f"{node.name} gets nothing of {self.model.ready}"

    def check_order(self, got: Sequence[Delivery]) -> None:
        """See that what was received was the head of its queue's line."""
        if not self.bench.keeps_order or any(node.interrupted for node in self.nodes):
            return
        for queue in self.queues:
            if self.model.doubtful(queue.name):
                continue
            taken = texts([delivery for delivery in got if delivery.queue == queue.name])
            line = self.model.in_line(queue.name, self.caps.high_priority_first)
            head = line[: len(taken)]
            if any(copy.round is not None for copy in head):
                # Those with a key and those without may come one group behind the other.
                taken, head = sorted(taken), sorted(head, key=lambda copy: copy.text)
            assert taken == [copy.text for copy in head]

    def whereabouts(self, text: str) -> str:
        """Return where the model has a message."""
        for node, held in self.model.held.items():
            if any(copy.text == text for copy in held):
                return f"{node} holds it"
        if any(copy.text == text for copy in self.late()):
            return "it waits for its time"
        return "it is a dead letter" if any(c.text == text for c in self.model.dead) else "it is gone"

    def renew_all(self) -> None:
        """Have every node renew."""
        for node in self.nodes:
            self.renew(node)

    def outlive(self, node: _Node) -> None:
        """Let a lease end while all others are renewed, and have somebody take over."""
        others = [other for other in self.nodes if other is not node]
        for _ in range(3):
            self.pass_time(0.5 * self.bench.lease_seconds)
            for other in others:
                self.renew(other)
        if not others:
            self.transport.reap()
        self.model.end(node.name, died=True)
        node.interrupted = False

    def forget_held(self, node: _Node) -> None:
        """Keep what was taken back from a node to see what it still does with it."""
        self.stale.extend((node, delivery) for delivery in node.deliveries.values())
        node.deliveries.clear()

    def drop_stale(self, node: _Node) -> None:
        """Forget what a node could still do."""
        self.stale = [(who, delivery) for who, delivery in self.stale if who is not node]
