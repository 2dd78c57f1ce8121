"""Whether what processes hold is flat after the first tenth of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Final

from leaks.vitals import MEASURES, Measure, Sample

TENTHS = 10
_WARMED_UP, _LAST = 1, TENTHS - 1  # which tenths are compared

# What may have been opened late without being lost: far less than one for each reconnect or thousandth call.
SLACK: Final[Mapping[Measure, Callable[[float], float]]] = {
    "memory": lambda early: 2_000_000 + early / 20,
    "descriptors": lambda _: 2,
    "threads": lambda _: 1,
    "connections": lambda _: 1,
}


@dataclass(frozen=True, slots=True)
class Growth:
    """How something that a process holds has changed.

    Attributes:
        process: Its name.
        measure: What is held.
        early: The usual value in the second tenth of the run; None = the process was not there.
        late: The usual value in the last tenth, or None.
        peak: The highest value of all.
    """

    process: str
    measure: Measure
    early: float | None
    late: float | None
    peak: int

    @property
    def is_flat(self) -> bool:
        """Whether it did not grow; of a process that came or went, nobody can say so."""
        if self.early is None or self.late is None:
            return False
        return self.late - self.early <= SLACK[self.measure](self.early)


def growths(samples: Iterable[Sample], total: int) -> list[Growth]:
    """Return how everything that was seen has changed.

    The first tenth is for caches to fill. Of the others the medians are compared: what is open for a moment
    only, as two connections are while one replaces another, moves none of them; what is lost moves all.

    Args:
        samples: Of all processes, in any order.
        total: How many calls the run was to do.
    """
    seen: dict[str, dict[int, list[Sample]]] = {}
    for sample in samples:
        tenth = min(sample.done * TENTHS // total, TENTHS - 1)
        seen.setdefault(sample.process, {}).setdefault(tenth, []).append(sample)
    return [
        Growth(
            process,
            measure,
            _usual(tenths.get(_WARMED_UP, []), measure),
            _usual(tenths.get(_LAST, []), measure),
            max(sample.held[measure] for some in tenths.values() for sample in some),
        )
        for process, tenths in seen.items()
        for measure in MEASURES
    ]


def _usual(samples: list[Sample], measure: Measure) -> float | None:
    return median(sample.held[measure] for sample in samples) if samples else None
