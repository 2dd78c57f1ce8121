"""Which of several schedulers sends: the one that leads."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
from pathlib import Path
from typing import Final

from celeriac import ids
from celeriac.clock import Clock
from celeriac.timetable import NOBODY, Lead, Timetable

__all__ = ["LOOK_SECONDS", "PATIENCE_SECONDS", "Leadership", "is_gone", "new_holder"]

logger: logging.Logger = logging.getLogger("celery.beat")

LOOK_SECONDS: Final = 1.0  # between two looks at the timetable; changes count within two
# A leader that has not renewed for so long is taken for dead: with a look it stays well below 10 s.
PATIENCE_SECONDS: Final = 6.0
_PROC: Final = Path("/proc")


class Leadership:
    """Takes the lead when nobody has it or its holder is dead, and keeps it.

    Dead is who has not renewed for `PATIENCE_SECONDS` by our own clock, whatever other clocks say; and at
    once, who was a process of this machine that is not there any more.

    Args:
        timetable: Where it is known who leads.
        clock: Its monotonic time counts.
        patience_seconds: See above.
    """

    def __init__(
        self, timetable: Timetable, clock: Clock, patience_seconds: float = PATIENCE_SECONDS
    ) -> None:
        self.holder: str = new_holder()
        self.term: int | None = None  # ours, while we lead
        self._timetable = timetable
        self._clock = clock
        self._patience_seconds = patience_seconds
        self._seen: Lead | None = None
        self._seen_at = 0.0

    def ask(self) -> bool:
        """Return whether we lead now; renews the lead, or takes it.

        Raises:
            TransportError, BackendError: The store cannot be reached, or refuses.
        """
        if self.term is not None:
            if self._take(self.term):
                return True
            logger.warning(
                "beat: This one was silent for too long: another scheduler has taken the lead, it stands by."
            )
            self.term = None
            self._seen = None
        lead = self._timetable.lead()
        if lead.holder == self.holder or self._is_free(lead):
            return self._take(lead.term)
        return False

    def resign(self) -> None:
        """Give the lead back, so that another scheduler need not wait."""
        term, self.term = self.term, None
        if term is not None:
            self._timetable.take(NOBODY, term, self._clock.time())

    def _take(self, term: int) -> bool:
        took = self._timetable.take(self.holder, term, self._clock.time())
        self.term = term + 1 if took else None
        return took

    def _is_free(self, lead: Lead) -> bool:
        now = self._clock.monotonic()
        seen = self._seen
        if seen is None or (seen.holder, seen.term) != (lead.holder, lead.term):
            if lead.holder and (seen is None or seen.holder != lead.holder) and not is_gone(lead.holder):
                logger.info("beat: %s leads; this scheduler stands by.", shown(lead.holder))
            self._seen, self._seen_at = lead, now
        return (
            lead.holder == NOBODY
            or now - self._seen_at >= self._patience_seconds
            or is_gone(lead.holder)
        )  # fmt: skip


def new_holder() -> str:
    """Return a name for a scheduler of this process: ``pid@host boot-namespace-start-random``."""
    return f"{os.getpid()}@{ids.hostname()} {_place()}-{_start_of(os.getpid())}-{secrets.token_hex(4)}"


def shown(holder: str) -> str:
    """Return a holder's name for people."""
    return holder.partition(" ")[0]


def is_gone(holder: str) -> bool:
    """Return whether a holder was a process of this machine, where process ids mean the same, and is dead."""
    who, _, rest = holder.partition(" ")
    pid = who.partition("@")[0]
    parts = rest.split("-")
    if len(parts) != 4 or not pid.isdecimal() or "-".join(parts[:2]) != _place() or not parts[2]:
        return False
    return _start_of(int(pid)) != parts[2]


def _place() -> str:
    """Return where process ids mean what they mean here: this boot, this namespace; empty when unknown."""
    with contextlib.suppress(OSError):
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip().replace("-", "")
        namespace = (_PROC / "self/ns/pid").readlink().name.strip("pid:[]")
        return f"{boot}-{namespace}"
    return "-"


def _start_of(pid: int) -> str:
    """Return when a process was started, as the kernel counts; empty when there is none."""
    with contextlib.suppress(OSError, IndexError):
        # Behind the name, which may hold blanks and parentheses: state is the first, the start the 20th.
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] in {"Z", "X"} else fields[19]
    return ""
