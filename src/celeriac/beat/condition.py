"""How a scheduler is, for those who ask over HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

from celeriac.beat.pulse import Pulse
from celeriac.node.health.exposition import Family, Sample, single
from celeriac.remote.plan import Run
from celeriac.version import VERSION

__all__ = ["BeatCondition", "families"]

_MOST_ENTRIES: Final = 1000  # a name becomes a label, and there shall not be too many


class BeatCondition:
    """A `celeriac.node.health.server.Condition`; may be asked from another thread than that which ticks.

    Args:
        scheduler: A Scheduler, or one of another package.
        pulse: Its pulse.
    """

    def __init__(self, scheduler: Any, pulse: Pulse) -> None:  # Any: see above
        self._scheduler = scheduler
        self._pulse = pulse

    @property
    def dead(self) -> str | None:
        """Why it had better be started again."""
        return self._pulse.dead

    @property
    def unready(self) -> str | None:
        """Why it neither sends nor stands by."""
        return self._pulse.trouble

    async def figures(self) -> list[Family]:
        """Return everything that is told of a scheduler."""
        kind = type(self._scheduler)
        labels = {"version": VERSION, "scheduler": f"{kind.__module__}.{kind.__qualname__}"}
        told = [
            Family("celeriac_beat_info", "gauge", "The scheduler.", [Sample(1, labels)]),
            single(
                "celeriac_beat_uptime_seconds",
                "gauge",
                "Time since the start.",
                time.monotonic() - self._pulse.born,
            ),
            single(
                "celeriac_beat_ready", "gauge", "1 when it sends or stands by.", int(self.unready is None)
            ),
        ]
        # Those of other packages keep what they know to themselves.
        known: Callable[[], Mapping[str, Run] | None] | None = getattr(self._scheduler, "runs", None)
        return told if known is None else [*told, *families(known(), time.time())]

    async def close(self) -> None:
        """Do nothing: nothing is under way."""


def families(runs: Mapping[str, Run] | None, now: float) -> list[Family]:
    """Return what is told of entries.

    Args:
        runs: By name; None: another scheduler leads, and tells.
        now: Epoch seconds.
    """
    leads = single("celeriac_beat_leads", "gauge", "1 when it is the one that sends.", int(runs is not None))
    if runs is None:
        return [leads]
    overdue = {name: _overdue_seconds(run, now) for name, run in runs.items()}
    told = [runs[name] for name in sorted(runs)[:_MOST_ENTRIES]]

    def each(
        name: str, kind: Literal["counter", "gauge"], help: str, of: Callable[[Run], float | None]
    ) -> Family:
        found = [(run.name, of(run)) for run in told]
        return Family(
            f"celeriac_beat_entry_{name}",
            kind,
            help,
            [Sample(value, {"entry": entry}) for entry, value in found if value is not None],
        )

    return [
        leads,
        single("celeriac_beat_entries", "gauge", "Entries of the schedule.", len(runs)),
        single(
            "celeriac_beat_lag_seconds",
            "gauge",
            "How long the entry has been due that has been so for the longest time; of all entries.",
            max(overdue.values(), default=0.0),
        ),
        each("lag_seconds", "gauge", "How long it has been due.", lambda run: overdue[run.name]),
        each("last_run_timestamp_seconds", "gauge", "When it was sent last.", lambda run: run.at),
        each("next_run_timestamp_seconds", "gauge", "When it is due next.", lambda run: run.next),
        each(
            "runs_total", "counter", "How often it was sent, by whichever scheduler.", lambda run: run.times
        ),
        each(
            "passed_over_total",
            "counter",
            "How often runs were missed and left out.",
            lambda run: run.passed_over,
        ),
    ]


def _overdue_seconds(run: Run, now: float) -> float:
    return 0.0 if run.next is None else max(now - run.next, 0.0)
