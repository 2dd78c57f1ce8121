"""The fault table: what is broken, where, and what has to hold. Data; `play` runs a case of it.

The numbers are those of the catalogue that the project was planned with. Without a word to the contrary a
promise is the strict one: every confirmed call runs once, ends once, and its client is told.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Literal

from faults import slots, strikes
from faults.brokers import KINDS, SERVERS, Kind
from faults.checker import Promise
from faults.field import Field

Ack = Literal["early", "late"]
Pool = Literal["prefork", "threads", "solo", "asyncio", "gevent", "eventlet"]
ALL_POOLS: tuple[Pool, ...] = ("prefork", "threads", "solo")

ONCE = Promise()
AGAIN = Promise(repeats=True)
TOLD = Promise(dies="told")
REVOKED = Promise(dies="told", grace_seconds=1.0)
SPARED = Promise(dies="told", grace_seconds=1.0, changes=True)
# What was running on a machine that died is told; what had begun some milliseconds before may run again.
NODE_LOST = Promise(repeats=True, dies="told")
NODE_LOST_ON_RABBITMQ = Promise(repeats=True, dies="silently")


@dataclass(frozen=True, slots=True)
class Row:
    """A fault.

    Attributes:
        number: Of the catalogue, with a letter where it has several rows.
        title: What is broken, when.
        strike: Breaks it, and mends it.
        early: What holds for tasks that are acknowledged when they begin, Celery's default.
        late: What holds for ``acks_late`` with ``reject_on_worker_lost``.
        on_rabbitmq: What holds there for the former, if it is something else.
        kinds: The brokers.
        pools: The pools.
        nodes: How many workers there are; only the first one is hit.
        held: Whether a task is running on the first one while the fault strikes.
        load: What is sent before the fault, besides the stream of short tasks: what to do, and how often.
        poison: Calls that never end: they have to be told, and kept as dead letters.
        apart: What holds for calls that the strike sends, by what they do, where it is something else.
        settings: Of the program.
        environment: Of the workers.
        options: Of the workers' command line.
        false_clock: The first worker lives by a wall clock that can be set.
        results_elsewhere: Results are in a Redis of their own.
        resumes: Whether it is measured how soon a new task has run after the fault.
        quick: Whether `make test` has the time for a case of it; `make faults` always has.
    """

    number: str
    title: str
    strike: Callable[[Field], None]
    early: Promise = ONCE
    late: Promise = ONCE
    on_rabbitmq: Promise | None = None
    kinds: tuple[Kind, ...] = KINDS
    pools: tuple[Pool, ...] = ALL_POOLS
    nodes: int = 1
    held: bool = True
    load: tuple[tuple[str, int], ...] = ()
    poison: tuple[str, ...] = ()
    apart: Mapping[str, Promise] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    false_clock: bool = False
    results_elsewhere: bool = False
    resumes: bool = False
    quick: bool = True

    def promise(self, kind: Kind, ack: Ack) -> Promise:
        """Return what holds on a broker."""
        if ack == "late":
            return self.late
        if self.on_rabbitmq is not None and kind in ("rabbitmq", "quorum"):
            return self.on_rabbitmq
        return self.early


@dataclass(frozen=True, slots=True)
class Case:
    """A row at one place."""

    row: Row
    kind: Kind
    pool: Pool
    ack: Ack
    seed: int = 0

    def __str__(self) -> str:
        """Name it, as one asks for it."""
        name = f"{self.row.number}-{self.row.strike.__name__}-{self.kind}-{self.pool}-{self.ack}"
        return f"{name}-{self.seed}" if self.seed else name


PREFORK: tuple[Pool, ...] = ("prefork",)
HOSTED: tuple[Pool, ...] = ("asyncio", "gevent", "eventlet")
NETWORK: Mapping[str, Any] = {"kinds": SERVERS, "resumes": True}
TAKEN_OVER: Mapping[str, Any] = {"late": AGAIN, "early": NODE_LOST, "nodes": 2}
# RabbitMQ does not answer acknowledgements: those that a black hole swallows are missed by nobody.
CUT_OFF: Mapping[str, Any] = {
    "late": AGAIN,
    "early": TOLD,
    "on_rabbitmq": NODE_LOST,
    "nodes": 2,
    "kinds": SERVERS,
}

ROWS: tuple[Row, ...] = (
    Row("F1", "the child that runs a task is killed", strikes.kill_child, TOLD, AGAIN, pools=PREFORK),
    Row(
        "F1b",
        "children are killed at random",
        strikes.kill_children,
        TOLD,
        AGAIN,
        pools=PREFORK,
        settings={"task_max_deliveries": 0},  # the held one is no poison, though it may be killed each time
    ),
    Row(
        "F1c",
        "the process that forks children is killed",
        strikes.kill_forker,
        on_rabbitmq=NODE_LOST_ON_RABBITMQ,
        pools=PREFORK,
        **TAKEN_OVER,
    ),
    Row(
        "F2",
        "a worker's main process is killed",
        strikes.kill_node,
        on_rabbitmq=NODE_LOST_ON_RABBITMQ,
        **TAKEN_OVER,
    ),
    Row(
        "F3",
        "a machine is lost",
        strikes.kill_machine,
        on_rabbitmq=NODE_LOST_ON_RABBITMQ,
        **TAKEN_OVER,
    ),
    Row(
        "F4",
        "a worker's main process stands still for two leases",
        strikes.freeze_node,
        pools=PREFORK,
        **TAKEN_OVER,
    ),
    Row("F4b", "a machine stands still for two leases", strikes.freeze_machine, **TAKEN_OVER),
    Row("F5", "clients are killed while they send", strikes.kill_clients, held=False),
    Row(
        "F6",
        "clients are killed as soon as their calls are confirmed",
        strikes.kill_clients_that_were_told,
        held=False,
    ),
    Row("F8", "the broker is restarted", strikes.restart_broker, **NETWORK),
    Row("F9", "the broker is killed", strikes.kill_broker, **NETWORK),
    Row("F9b", "Redis forgets its scripts", strikes.forget_scripts, kinds=("redis",)),
    Row("F11", "the worker's connections are reset", strikes.cut, **NETWORK),
    Row("F11b", "they are reset 20 times during one task", strikes.cut_often, **NETWORK),
    Row("F11c", "the broker refuses connections for a second", strikes.refuse, **NETWORK),
    Row(
        "F12",
        "a black hole between worker and broker, for two leases",
        strikes.black_hole,
        **CUT_OFF,
    ),
    Row("F12b", "a black hole for a second", strikes.short_black_hole, **NETWORK),
    Row("F12c", "the broker stands still for two leases", strikes.freeze_broker, **NETWORK),
    Row("F12d", "a firewall forgets the worker's connections", strikes.forget_connections, **CUT_OFF),
    Row("F13", "the worker hears nothing for two leases", strikes.deaf, **CUT_OFF),
    # What was told of before; of what had begun some milliseconds earlier F13c tells.
    Row("F13b", "the worker is not heard for two leases", strikes.mute, **CUT_OFF),
    Row(
        "F13c",
        "the worker is cut off, or not heard, just when tasks begin and end",
        strikes.cut_off_amid_tasks,
        **{**CUT_OFF, "early": NODE_LOST},
    ),
    Row("F14", "everything arrives half a second late", strikes.slow_line, kinds=SERVERS, nodes=2),
    Row("F15", "packets of one to seven bytes", strikes.slices, kinds=SERVERS),
    Row(
        "F15b",
        "a reset before, in the middle of and after each step of the protocol",
        strikes.break_at_steps,
        **NETWORK,
    ),
    Row(
        "F16",
        "the broker's name is unknown, then has another address",
        strikes.move_broker,
        environment={"FAULTS_HOSTS": "1"},
        **NETWORK,
    ),
    Row(
        "F18",
        "a machine's clock is set an hour forward, then half a day back",
        strikes.set_clock,
        pools=("prefork", "threads"),
        nodes=2,
        false_clock=True,
    ),
    Row(
        "F23", "four workers and five clients use one file", strikes.kill_clients, nodes=4, kinds=("sqlite",)
    ),
    Row(
        "F24",
        "tasks that kill their process each time",
        strikes.nothing,
        pools=PREFORK,
        poison=("kill", "abort", "exit", "segfault"),
        held=False,
    ),
    Row(
        "F25",
        "messages that nobody can read or run, between others",
        strikes.send_rubbish,
        held=False,
    ),
    Row(
        "F26",
        "tasks that run out of memory",
        strikes.nothing,
        pools=PREFORK,
        poison=("oom",),
        held=False,
    ),
    Row(
        "F27",
        "tasks that leak memory and descriptors, children that are replaced",
        strikes.nothing,
        pools=PREFORK,
        load=(("leak", 30),),
        options=("--max-tasks-per-child", "3", "--max-memory-per-child", "60000"),
        held=False,
    ),
    Row(
        "F28",
        "tasks that sleep in C, deaf to all signals, beyond their hard limit",
        slots.deaf_tasks,
        pools=("prefork", "threads", "asyncio"),  # the one slot of solo has to wait for them
        apart={"deaf": TOLD},
        held=False,
        quick=False,
    ),
    Row(
        "F28b",
        "tasks that block the loop they share with others, beyond their hard limit",
        slots.block_beyond_limit,
        TOLD,
        AGAIN,
        pools=HOSTED,
        apart={"block": TOLD},
        held=False,
        quick=False,
    ),
    Row(
        "F29",
        "a task blocks the loop that it shares with others, for two leases",
        slots.block_loop,
        pools=HOSTED,
        nodes=2,
        quick=False,
    ),
    Row(
        "F30",
        "the broker has a message and its confirm is lost",
        strikes.lose_confirms,
        kinds=SERVERS,
    ),
    Row(
        "F32",
        "a backlog of a thousand calls",
        strikes.nothing,
        load=(("quick", 1000),),
    ),
    Row(
        "F33",
        "300 calls that come due together, while the worker is replaced",
        strikes.many_at_once,
        held=False,
    ),
    Row(
        "F35",
        "the result store is away, then hangs",
        strikes.kill_results,
        results_elsewhere=True,
    ),
    Row(
        "F37",
        "the broker takes no more connections",
        strikes.no_room_for_connections,
        kinds=("redis",),
        resumes=True,
    ),
    Row("F39", "the broker ends all connections, ten times", strikes.end_connections, **NETWORK),
    Row(
        "F42",
        "deployments that kill the old worker",
        strikes.deploy,
        NODE_LOST,
        AGAIN,
        NODE_LOST_ON_RABBITMQ,
        settings={"task_max_deliveries": 0},
    ),
    Row("F42b", "deployments with patience", strikes.stop_and_replace),
    Row(
        "F43",
        "tasks are revoked before, when and after they begin, twice, and while no worker is there",
        slots.revoke_at_any_time,
        pools=(*ALL_POOLS, *HOSTED),
        apart={"doomed": REVOKED, "spared": SPARED},
        held=False,
    ),
    Row(
        "F44",
        "children are killed and replaced while the pool grows and shrinks",
        slots.resize_amid_deaths,
        TOLD,
        AGAIN,
        pools=PREFORK,
        options=("--max-tasks-per-child", "3"),
        settings={"task_max_deliveries": 0},  # one may be killed each time
        held=False,
        quick=False,
    ),
    Row(
        "F44b",
        "children are killed and replaced while the pool follows its load",
        slots.kill_while_scaling,
        TOLD,
        AGAIN,
        pools=PREFORK,
        options=("--max-tasks-per-child", "3", "--autoscale", f"{slots.MOST_SLOTS},1"),
        settings={"task_max_deliveries": 0},  # one may be killed each time
        held=False,
        quick=False,
    ),
    Row(
        "F44c",
        "the pool grows and shrinks all the time",
        slots.resize,
        pools=("prefork", "threads", *HOSTED),
        held=False,
        quick=False,
    ),
    Row(
        "F46",
        "threads and connections of the program before the fork",
        strikes.nothing,
        pools=PREFORK,
        environment={"FAULTS_THREADS": "1"},
    ),
)


def sample(
    every: Iterable[Case], count: int, seed: int, weights: Mapping[Kind, float] | None = None
) -> list[Case]:
    """Return so many cases, chosen by chance, from all rows alike.

    Args:
        every: To choose from.
        count: How many; fewer when there are not so many.
        seed: For chance.
        weights: How much likelier some brokers are than 1.
    """
    dice = random.Random(seed)
    rows: defaultdict[str, list[tuple[float, Case]]] = defaultdict(list)
    for case in every:
        weight = (weights or {}).get(case.kind, 1.0)
        rows[case.row.number].append((dice.random() ** (1 / weight), case))
    turns = [
        (turn, number, case)
        for number, cases_ in rows.items()
        for turn, (_, case) in enumerate(sorted(cases_, key=lambda one: -one[0]))
    ]
    return [case for _, _, case in sorted(turns, key=lambda one: one[0])[:count]]


def cases(seeds: int = 1) -> list[Case]:
    """Return every case of the table, so many times."""
    acks: tuple[Ack, Ack] = ("early", "late")
    return [
        Case(row, kind, pool, ack, seed)
        for seed in range(seeds)
        for row in ROWS
        for kind, pool, ack in product(row.kinds, row.pools, acks)
    ]
