"""The permits of an embedded broker: a small table in its file."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

from celeriac.clock import Clock
from celeriac.errors import TransportError
from celeriac.permits import PERMIT_SECONDS, Claim
from celeriac.transports.sqlite_file import Handle

# place: in line, NULL for who holds a permit; until: seconds on the monotonic clock of the boot.
# Not in the file's schema: only a program that limits something needs it.
_TABLE = """
CREATE TABLE IF NOT EXISTS permits (limited TEXT, holder TEXT, place INTEGER, until REAL NOT NULL,
    PRIMARY KEY (limited, holder)) WITHOUT ROWID
"""


class SqlitePermits:
    """Permits for the nodes of one machine, `celeriac.permits.Permits`.

    Args:
        handle: On the file; ours alone.
        busy_seconds: How long to wait for the file's lock.
        clock: Its monotonic time says when permits end.
    """

    def __init__(self, handle: Handle, busy_seconds: float, clock: Clock) -> None:
        self._handle = handle
        self._busy_seconds = busy_seconds
        self._clock = clock

    def exchange(self, back: Sequence[Claim], wanted: Sequence[Claim]) -> list[bool]:
        """See `celeriac.permits.Permits`."""

        def work(connection: sqlite3.Connection) -> list[bool]:
            self._clear(connection, wanted)
            connection.executemany(
                "DELETE FROM permits WHERE limited = ? AND holder = ?",
                [(claim.limited, claim.holder) for claim in back],
            )
            now = self._clock.monotonic()
            return [_ask(connection, claim, now) for claim in wanted]

        return self._write(work)

    def renew(self, claims: Sequence[Claim]) -> list[bool]:
        """See `celeriac.permits.Permits`."""

        def work(connection: sqlite3.Connection) -> list[bool]:
            self._clear(connection, claims)
            until = self._clock.monotonic() + PERMIT_SECONDS
            renew = "UPDATE permits SET until = ? WHERE limited = ? AND holder = ? AND place IS NULL"
            return [
                connection.execute(renew, (until, claim.limited, claim.holder)).rowcount == 1
                for claim in claims
            ]

        return self._write(work)

    def close(self) -> None:
        """Close the file."""
        self._handle.close()

    def _write(self, work: Callable[[sqlite3.Connection], list[bool]]) -> list[bool]:
        try:
            return self._handle.write(work, self._busy_seconds)
        except TimeoutError as exc:
            raise TransportError(f"The permits of limited tasks are out of reach: {exc}") from exc

    def _clear(self, connection: sqlite3.Connection, claims: Sequence[Claim]) -> None:
        """Remove what has ended, and what another boot of the machine has left: its clock began at 0, too."""
        connection.execute(_TABLE)
        now = self._clock.monotonic()
        connection.execute("DELETE FROM permits WHERE until <= ?", (now,))
        connection.executemany(
            "DELETE FROM permits WHERE limited = ? AND until > ?",
            {(claim.limited, now + max(claim.keeps_seconds, PERMIT_SECONDS)) for claim in claims},
        )


def _ask(connection: sqlite3.Connection, claim: Claim, now: float) -> bool:
    """Return whether a permit is held after asking for it."""
    values = {
        "limited": claim.limited,
        "holder": claim.holder,
        "maximum": claim.limit,
        "until": now + PERMIT_SECONDS,
        "kept_until": now + claim.keeps_seconds,  # by those who do not renew it
        "renews": not claim.keeps_seconds,
    }
    connection.execute(
        "INSERT INTO permits (limited, holder, place, until) "
        "SELECT :limited, :holder, coalesce(max(place), 0) + 1, :until FROM permits "
        "WHERE limited = :limited ON CONFLICT (limited, holder) DO UPDATE SET until = excluded.until "
        "WHERE :renews OR place IS NOT NULL",
        values,
    )
    # Those without a place hold one; of what is left the first in line get theirs.
    found = connection.execute(
        "UPDATE permits SET until = iif(:renews OR place IS NULL, until, :kept_until), place = NULL "
        "WHERE limited = :limited AND holder = :holder AND "
        "(place IS NULL OR (SELECT count(*) FROM permits AS other WHERE other.limited = :limited AND "
        "(other.place IS NULL OR other.place < permits.place)) < :maximum)",
        values,
    )
    return found.rowcount == 1
