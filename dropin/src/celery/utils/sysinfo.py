"""What this machine has."""

from __future__ import annotations

import os
from functools import cached_property
from math import ceil

__all__ = ("df", "load_average")


def load_average() -> tuple[float, ...]:
    """Return the load of the last 1, 5 and 15 minutes, rounded up to hundredths."""
    return tuple(ceil(load * 100) / 100 for load in os.getloadavg())


class df:  # noqa: N801 - Celery's name
    """Space on the file system of a path.

    Args:
        path: The path.
    """

    def __init__(self, path: str | bytes | os.PathLike[str]) -> None:
        self.path = path

    @property
    def total_blocks(self) -> float:
        """KiB in all."""
        return self.stat.f_blocks * self.stat.f_frsize / 1024

    @property
    def available(self) -> float:
        """KiB that are free for everybody."""
        return self.stat.f_bavail * self.stat.f_frsize / 1024

    @property
    def capacity(self) -> int:
        """Percent in use."""
        used = self.stat.f_blocks - self.stat.f_bfree
        return ceil(used * 100 / (used + self.stat.f_bavail)) if used else 0

    @cached_property
    def stat(self) -> os.statvfs_result:
        """What the system says."""
        return os.statvfs(os.path.abspath(self.path))
