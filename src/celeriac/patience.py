"""Calls to the result store that cannot be left out: made until the store answers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from celeriac.backoff import intervals
from celeriac.errors import BackendUnreachable

logger: logging.Logger = logging.getLogger(__name__)

T = TypeVar("T")

_START_SECONDS, _STEP_SECONDS, _MOST_SECONDS = 0.2, 0.4, 3.0


def insist(doing: str, call: Callable[[], T]) -> T:
    """Return what a call returns, made again and again as long as the result store cannot be reached.

    A part of a chord that is given up is a chord that never ends, and its node could not store the result
    that the task has anyway: it takes no more messages until the store is back.

    Args:
        doing: What is being done and for whom, for the log.
        call: May be made any number of times.

    Raises:
        BackendError: The store answers, and refuses.
    """
    for pause in intervals(_START_SECONDS, _STEP_SECONDS, _MOST_SECONDS):
        try:
            return call()
        except BackendUnreachable as exc:
            logger.error("%s: %s Trying again in %.1f s.", doing, exc, pause)
            time.sleep(pause)
    raise AssertionError("the intervals never end")
