"""Waiting for results in stores that cannot call back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from celeriac.errors import TimeoutError as ResultTimeout
from celeriac.message import Outcome
from celeriac.states import READY_STATES

FIRST_PAUSE_SECONDS = 0.02
LONGEST_PAUSE_SECONDS = 0.5  # two looks a second at a store is what a patient client may cost
GROWTH = 1.5


def poll(
    ids: Sequence[str], timeout: float | None, fetch: Callable[[Sequence[str]], Mapping[str, Outcome]]
) -> Iterator[Outcome]:
    """Yield the outcome of each id once, as it becomes ready, by looking again and again.

    The pause between two looks grows from 20 ms to half a second and starts anew when something arrived.

    Args:
        ids: Whom to wait for; twice the same counts once.
        timeout: Seconds for all of them together; None waits for ever.
        fetch: Returns what is known of some ids.

    Raises:
        TimeoutError: (celeriac.errors) not all were ready in time.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    missing = list(dict.fromkeys(ids))
    pause = FIRST_PAUSE_SECONDS
    while missing:
        ready = [one for one in fetch(missing).values() if one.state in READY_STATES]
        yield from ready
        if ready:
            done = {one.id for one in ready}
            missing = [one for one in missing if one not in done]
            pause = FIRST_PAUSE_SECONDS
            if not missing:
                return
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise ResultTimeout(
                    f"The operation timed out: {len(missing)} result(s) not ready in {timeout} s."
                )
            pause = min(pause, left)
        time.sleep(pause)
        pause = min(pause * GROWTH, LONGEST_PAUSE_SECONDS)
