"""Queues, exchanges and bindings in the embedded broker's file.

Every function runs in the caller's transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any

import msgspec

from celeriac.queues import Queue
from celeriac.transports import sqlite_rounds as rounds
from celeriac.transports.exchanges import Bound, bindings_of, route
from celeriac.transports.terms import unroutable

Arguments = Mapping[str, Any]  # Any: the broker's own arguments

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(dict[str, Any]).decode
_NONE: Arguments = {}


def declare(connection: sqlite3.Connection, queue: Queue, *, final: bool) -> None:
    """Make a queue and its bindings, unless they are there.

    Args:
        connection: In a transaction.
        queue: What to make.
        final: Whether these arguments replace others: a worker knows its queues, a sender may know only
            the name.
    """
    arguments = _encode(queue.arguments) if queue.arguments else None
    connection.execute(
        "INSERT INTO queues (name, arguments, auto_delete) VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE "
        "SET arguments = excluded.arguments, auto_delete = excluded.auto_delete WHERE ?",
        (queue.name, arguments, queue.auto_delete, final),
    )
    for kind, bound in bindings_of(queue):
        connection.execute(
            "INSERT INTO exchanges (name, kind) VALUES (?, ?) ON CONFLICT (name) DO UPDATE "
            "SET kind = excluded.kind WHERE kind <> excluded.kind",
            (bound.exchange, kind),
        )
        connection.execute(
            "INSERT OR IGNORE INTO bindings (exchange, queue, routing_key, arguments) VALUES (?, ?, ?, ?)",
            (bound.exchange, bound.queue, bound.routing_key, _encode(bound.arguments)),
        )


def arguments_of(connection: sqlite3.Connection, name: str) -> Arguments | None:
    """Return the arguments of a queue; None when there is no such queue."""
    row = connection.execute("SELECT arguments FROM queues WHERE name = ?", (name,)).fetchone()
    if row is None:
        return None
    return _NONE if row[0] is None else _decode(row[0])


def targets(
    connection: sqlite3.Connection, exchange: str, routing_key: str, headers: Mapping[str, Any]
) -> list[str]:
    """Return the queues that a message goes to.

    Raises:
        TransportError: It would go nowhere.
    """
    if not exchange:
        return [routing_key]
    row = connection.execute("SELECT kind FROM exchanges WHERE name = ?", (exchange,)).fetchone()
    if row is None:
        raise unroutable(exchange, routing_key, known=False)
    bound = [
        Bound(exchange=exchange, queue=queue, routing_key=key, arguments=_decode(arguments))
        for queue, key, arguments in connection.execute(
            "SELECT queue, routing_key, arguments FROM bindings WHERE exchange = ?", (exchange,)
        )
    ]
    names = route(row[0], bound, routing_key, headers)
    if not names and row[0] != "fanout":
        raise unroutable(exchange, routing_key, known=True)
    return names


def consume(connection: sqlite3.Connection, queue: str, owner: int) -> None:
    """Note that a consumer reads a queue."""
    connection.execute("INSERT OR IGNORE INTO consumed (queue, owner) VALUES (?, ?)", (queue, owner))


def unconsume(connection: sqlite3.Connection, owner: int, queue: str | None = None) -> None:
    """Note that a consumer reads a queue no more, or none; an auto-delete queue goes with its last one."""
    where, values = ("owner = ?", (owner,)) if queue is None else ("owner = ? AND queue = ?", (owner, queue))
    names = [row[0] for row in connection.execute(f"SELECT queue FROM consumed WHERE {where}", values)]  # noqa: S608
    connection.execute(f"DELETE FROM consumed WHERE {where}", values)  # noqa: S608 - one of two texts above
    for name in names:
        unused = connection.execute(
            "SELECT 1 FROM queues WHERE name = ? AND auto_delete AND NOT EXISTS "
            "(SELECT 1 FROM consumed WHERE queue = queues.name)",
            (name,),
        ).fetchone()
        if unused:
            purge(connection, name)
            connection.execute("DELETE FROM bindings WHERE queue = ?", (name,))
            connection.execute("DELETE FROM queues WHERE name = ?", (name,))


def purge(connection: sqlite3.Connection, name: str) -> int:
    """Throw away what waits in a queue and return how many messages that were."""
    waiting = " UNION ALL ".join(
        f"SELECT id FROM {table} WHERE queue = ?"  # noqa: S608 - of these names
        for table in ("ready", "keyed", "parked")
    )
    count = connection.execute(f"DELETE FROM messages WHERE id IN ({waiting})", (name,) * 3).rowcount  # noqa: S608
    connection.execute("DELETE FROM ready WHERE queue = ?", (name,))
    connection.execute("DELETE FROM parked WHERE queue = ?", (name,))
    rounds.purge(connection, name)
    return count
