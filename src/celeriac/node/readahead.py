"""Rule: how many deliveries a node holds, so that its slots are busy and nothing waits long for one."""

from __future__ import annotations

from celeriac.node.policy import SHORT_SECONDS

AHEAD_SECONDS = 0.1  # of work at most that waits for a slot, where nobody has asked for more
_FEW_PER_SLOT = 4  # what a slot needs so that it is not idle for a round trip to the broker
_MOST_PER_SLOT = 200  # short tasks fetched ahead
_WEIGHT = 0.2  # of the latest batch
_FAIR_WEIGHT = (
    0.5  # what is fetched too soon goes back, and few at a time are slow: rather believe what is said
)


def per_slot(mean_seconds: float | None, *, fair: bool) -> int:
    """Return how many deliveries to hold for each slot, the one that it runs included.

    Args:
        mean_seconds: How long what has run lately took; None when nothing has.
        fair: Whether what is held has to begin soon; otherwise tasks that are not short add nothing to what
            was asked for.
    """
    if mean_seconds is None:
        return 1
    mean = max(mean_seconds, 1e-9)
    few = min(AHEAD_SECONDS / mean, _FEW_PER_SLOT) if fair else 1
    many = min(SHORT_SECONDS / mean, _MOST_PER_SLOT)
    # In steps of two: a transport may have to tell the broker of every change.
    return 1 << int(max(few, many, 1)).bit_length() - 1


class ReadAhead:
    """How many deliveries a node holds now.

    Args:
        base: Deliveries to hold when nothing is known or tasks take long; 0 = no limit.
        fair: Whether nobody has asked to hold so many: then it is one for each slot that there may be, and
            more of what begins soon.
    """

    def __init__(self, base: int, *, fair: bool) -> None:
        self.base: int = base
        self._fair = fair
        self._weight = _FAIR_WEIGHT if fair else _WEIGHT
        self._mean_seconds: float | None = None  # of what has run lately, whatever it was

    def note(self, runs: int, seconds: float) -> None:
        """Take into account how long a batch of runs took.

        Args:
            runs: How many.
            seconds: All of them together.
        """
        latest, mean = seconds / runs, self._mean_seconds
        # Upwards at once: what was fetched for tasks of microseconds must not pile up behind long ones.
        self._mean_seconds = (
            latest if mean is None or latest > mean else mean + self._weight * (latest - mean)
        )

    def rebase(self, base: int) -> None:
        """Hold so many from now on when nothing is known or tasks take long; 0 = no limit."""
        self.base = base

    def deliveries(self, slots: int) -> int:
        """Return how many deliveries may be outstanding now; 0 = no limit.

        Args:
            slots: How many the pool has.
        """
        # One message per slot is asked for to have priorities kept: what is fetched cannot be overtaken.
        if self.base == 0 or (self.base <= slots and not self._fair):
            return self.base
        return max(self.base, slots * per_slot(self._mean_seconds, fair=self._fair))

    def is_much(self, slots: int) -> bool:
        """Return whether so many are held that fetching each one by itself would be the dearer part."""
        usual = max(self.base, slots * _FEW_PER_SLOT) if self._fair else self.base
        return self.deliveries(slots) > usual
