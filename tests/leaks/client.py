"""A client that sends calls and compares their results, a hundred in flight.

Run as ``python -m leaks.client COUNT STEP`` with the program's environment. It prints ``done N`` whenever
STEP more calls have ended, and then waits for SIGUSR1: somebody looks at it meanwhile. It prints ``wrong …``
for a result that is not what it has to be, and ``refused …`` for a call that the broker did not take.
"""

from __future__ import annotations

import signal
import sys
from collections import deque
from collections.abc import Callable
from typing import Any

from celeriac.errors import CeleriacError, TransportError
from celeriac.result import AsyncResult
from leaks.program import TooDeep, again, app, fail, succeed

AT_ONCE = 100
PATIENCE_SECONDS = 120.0

# Of ten calls, one fails and one tries again; the rest say that all goes on.
KINDS: tuple[Any, ...] = (succeed, succeed, again, succeed, succeed, succeed, fail, succeed, succeed, succeed)


class Client:
    """Sends calls, and knows what they have to come to."""

    def __init__(self) -> None:
        self._flying: deque[tuple[int, AsyncResult[Any]]] = deque()

    def run(self, count: int, tell: Callable[[int], None]) -> None:
        """Send so many calls, and tell how many have ended each time that one has."""
        for number in range(count):
            self._flying.append((number, self._send(number)))
            if len(self._flying) == AT_ONCE:
                self._finish()
                tell(number + 1 - len(self._flying))
        while self._flying:
            self._finish()
            tell(count - len(self._flying))

    def _send(self, number: int) -> AsyncResult[Any]:
        while True:
            try:
                return KINDS[number % len(KINDS)].delay(number)  # type: ignore[no-any-return]  # KINDS are tasks
            except TransportError as exc:
                print(f"refused {exc}", flush=True)

    def _finish(self) -> None:
        number, result = self._flying.popleft()
        kind = KINDS[number % len(KINDS)]
        try:
            value = result.get(timeout=PATIENCE_SECONDS)
            good = kind is not fail and value == number
        except TooDeep as exc:
            value, good = exc, kind is fail
        except CeleriacError as exc:
            value, good = exc, False
        if not good:
            print(f"wrong {kind.name}({number}) came to {value!r}", flush=True)
        result.forget()


def main(count: int, step: int) -> None:
    """Run, and print how it goes."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})  # in all threads that are to come, too

    def tell(done: int) -> None:
        if done % step == 0:
            print(f"done {done}", flush=True)
            signal.sigwait({signal.SIGUSR1})

    Client().run(count, tell)
    app.close()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
