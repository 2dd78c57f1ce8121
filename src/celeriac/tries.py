"""How often a result store that is out of reach is asked again, where the settings say so, and how soon."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from celeriac.backoff import exponential


class Tries(msgspec.Struct, frozen=True, kw_only=True):
    """What ``result_backend_always_retry`` and its companions say.

    Attributes:
        first_ms: Most milliseconds before the first further try, twice; each one after that may wait twice as
            long as the one before, and any time up to that is as likely as another.
        most_ms: Most milliseconds before any.
        most: Further tries, maybe infinite.
    """

    first_ms: int = 10
    most_ms: int = 10_000
    most: float = math.inf

    def pauses(self) -> Iterator[float]:
        """Yield the seconds before each further try."""
        for number in itertools.count(1):
            if number > self.most:
                return
            yield exponential(number, factor=self.first_ms, maximum=self.most_ms) / 1000


def tries_from(settings: Mapping[str, Any]) -> Tries | None:  # Any: values of settings
    """Return what settings, or `BackendSpec.options`, say; None when nothing is tried again.

    Args:
        settings: By new name; what is left out has its default.
    """
    if not settings.get("result_backend_always_retry"):
        return None
    given = {
        "first_ms": settings.get("result_backend_base_sleep_between_retries_ms"),
        "most_ms": settings.get("result_backend_max_sleep_between_retries_ms"),
        "most": settings.get("result_backend_max_retries"),
    }
    return Tries(**{name: value for name, value in given.items() if value is not None})
