"""Finds messages in the embedded broker's file, without leasing them."""

from __future__ import annotations

import sqlite3

from celeriac import ages, states
from celeriac.message import Delivery
from celeriac.transports.blob import unpack_or_defect
from celeriac.transports.sqlite_leases import REDELIVERED


def whereabouts(connection: sqlite3.Connection, task_id: str) -> str | None:
    """Return in which state the message of a task is; None when there is none.

    Messages have no index by task: a lookup may cost what thousands of sends would.
    """
    if not task_id:
        return None
    rows = connection.execute(
        "SELECT id, blob FROM messages WHERE instr(blob, ?) ORDER BY id DESC", (task_id.encode(),)
    )
    for number, blob in rows:
        envelope, _ = unpack_or_defect(blob)  # the id may stand for a parent's or be an argument
        if envelope.headers.get("id") == task_id:
            return _place(connection, number)
    return None


def oldest(connection: sqlite3.Connection, queue: str, now: float) -> float | None:
    """Return since when (epoch seconds) the message waits that has waited longest of the ready ones."""
    rows = connection.execute(
        "SELECT m.blob FROM messages m JOIN (SELECT id FROM ready WHERE queue = :queue "
        "UNION ALL SELECT id FROM keyed WHERE queue = :queue ORDER BY id LIMIT :most) USING (id) "
        "ORDER BY m.id",
        {"queue": queue, "most": ages.MOST_LOOKED_AT},
    )
    return ages.oldest(((unpack_or_defect(blob)[0], None) for (blob,) in rows), now)


def parked(connection: sqlite3.Connection, queue: str, limit: int) -> list[tuple[Delivery, float]]:
    """Return what waits in a queue for its time, with that in epoch seconds; the first ones first."""
    rows = connection.execute(
        "SELECT p.due, p.handed, p.flags, m.exchange, coalesce(m.routing_key, p.queue), m.blob "
        "FROM parked p JOIN messages m ON m.id = p.id WHERE p.queue = ? ORDER BY p.due, p.id LIMIT ?",
        (queue, limit),
    )
    found = []
    for due, handed, flags, exchange, key, blob in rows:
        envelope, defect = unpack_or_defect(blob)
        delivery = Delivery(
            envelope=envelope,
            queue=queue,
            exchange=exchange or "",
            routing_key=key,
            redelivered=bool(flags & REDELIVERED),
            attempt=handed,
            defect=defect,
        )
        found.append((delivery, due))
    return found


def _place(connection: sqlite3.Connection, number: int) -> str | None:
    lease = connection.execute("SELECT started FROM leases WHERE id = ?", (number,)).fetchone()
    if lease is not None:
        return states.STARTED if lease[0] else states.RECEIVED
    for table, state in (
        ("ready", states.QUEUED),
        ("keyed", states.QUEUED),
        ("parked", states.SCHEDULED),
        ("dead", states.REJECTED),
    ):
        query = f"SELECT 1 FROM {table} WHERE id = ?"  # noqa: S608 - of the names above
        if connection.execute(query, (number,)).fetchone():
            return state
    return None
