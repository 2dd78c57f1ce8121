"""Strikes at tasks and at the slots that they run in, as those of `strikes` are at everything around them."""

from __future__ import annotations

import contextlib
import signal
import time

import psutil

from faults.field import SLOTS, Field
from faults.ledger import keys

REVOKED = 20  # calls, one by one
COUNTDOWN_SECONDS = 2.0
MOST_SLOTS = 4
RESIZED = 12  # times


def deaf_tasks(field: Field) -> None:
    """Have a task sleep far beyond its hard limit, deaf to all signals, twice; others run meanwhile."""
    for _ in range(2):
        deaf = field.send("deaf", soft_time_limit=0.5, time_limit=1.0)
        field.wait_for("start", deaf)
        field.wait_for("end", field.send("quick"))
        field.wait_until_told(deaf)
    _fill(field, SLOTS)


def block_beyond_limit(field: Field) -> None:
    """Have a task block the loop of its process beyond its hard limit, twice."""
    for _ in range(2):
        field.wait_until_told(field.send("block", task=_on_the_loop(field), time_limit=1.0))
    _fill(field, SLOTS)


def block_loop(field: Field) -> None:
    """Have a task block the loop of its process for two leases."""
    field.wait_for("end", field.send("block", task=_on_the_loop(field)))


def revoke_at_any_time(field: Field) -> None:
    """Revoke tasks before, when and after they begin, once and twice; and while no worker is there."""
    for _ in range(REVOKED):
        how = field.dice.choice(("doomed", "spared"))
        waits = field.dice.random() < 0.2
        ids = field.send(how, countdown=COUNTDOWN_SECONDS if waits else None)
        if not waits and (moment := field.dice.choice((None, "start", "end"))) is not None:
            field.wait_for(moment, ids)
        for _ in range(field.dice.randint(1, 2)):
            field.app.control.revoke(ids, terminate=how == "doomed")
        field.look_at_results()
    parked = field.send("doomed", 3, countdown=COUNTDOWN_SECONDS)
    old = field.nodes[-1]
    old.signal(signal.SIGTERM)
    assert old.program.finish() == 0
    queued = field.send("doomed", 3)
    field.app.control.revoke([*parked, *queued])
    field.start_worker()
    field.wait_until_told([*parked, *queued])
    begun = keys(field.entries(), "start").intersection(queued)
    assert not begun, f"begun although it had been revoked: {begun}"


def resize(field: Field) -> None:
    """Have the pool grow and shrink at random; in the end it has as many slots as in the beginning."""
    _resize(field, deadly=False)


def resize_amid_deaths(field: Field) -> None:
    """Have the pool grow and shrink at random, and kill -9 children meanwhile."""
    _resize(field, deadly=True)


def kill_while_scaling(field: Field) -> None:
    """Kill -9 children while the pool grows and shrinks with its load; in the end it has to be large."""
    for _ in range(3):
        field.send("nap", 20)
        for _ in range(3):
            time.sleep(field.dice.uniform(0.05, 0.3))
            _kill_a_child(field)
    _fill(field, MOST_SLOTS)


def _resize(field: Field, *, deadly: bool) -> None:
    control, here = field.app.control, [field.nodes[0].name]
    size = SLOTS
    for turn in range(RESIZED + 1):
        wanted = field.dice.randint(1, MOST_SLOTS) if turn < RESIZED else SLOTS
        if wanted > size:
            control.pool_grow(wanted - size, destination=here)
        elif wanted < size:
            control.pool_shrink(size - wanted, destination=here)
        size = wanted
        if deadly:
            _kill_a_child(field)
        time.sleep(field.dice.uniform(0, 0.2))

    def has_settled() -> bool | None:
        pool = field.pool_of(field.nodes[0])
        children = pool.get("processes") if field.pool == "prefork" else None
        return (pool.get("max-concurrency") == SLOTS and len(children or range(SLOTS)) == SLOTS) or None

    field.until(has_settled, "the pool to have its size")
    _fill(field, SLOTS)


def _fill(field: Field, slots: int) -> None:
    """Have tasks wait in so many slots at once: none was lost."""
    field.wait_for("start", field.send("hold", slots))


def _kill_a_child(field: Field) -> None:
    """Kill -9 a child of the pool, if there is any at the moment."""
    node, *others = field.nodes[0].family()
    with contextlib.suppress(psutil.NoSuchProcess):
        children = [each for each in others if each.ppid() != node.pid]  # not the forker
        if children:
            field.dice.choice(children).kill()


def _on_the_loop(field: Field) -> str:
    """Return the task that runs on the thread that a host's tasks share."""
    return "faults.await" if field.pool == "asyncio" else "faults.work"
