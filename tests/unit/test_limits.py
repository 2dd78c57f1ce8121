"""Limits inside threads strike in the user's code, and leave nothing behind in the interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from celeriac.errors import SoftTimeLimitExceeded
from celeriac.pools.limits import ThreadLimit

PROFILED = """
import sys
from celeriac.pools.limits import ThreadLimit

limit = ThreadLimit()
for _ in range(3):
    with limit:
        pass
calls = []
sys.setprofile(lambda frame, event, argument: calls.append(event))
(lambda: None)()
sys.setprofile(None)
print(calls.count("call"))
"""


def test_a_limit_that_did_not_strike_leaves_no_exception_flag_up() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    done = subprocess.run(
        [sys.executable, "-c", PROFILED], env=environment, stdout=subprocess.PIPE, timeout=20, check=True
    )

    assert done.stdout.split() == [b"1"]


def test_a_strike_arrives_inside_the_block() -> None:
    limit = ThreadLimit()
    limit.seconds = 60
    inside = threading.Event()

    def strike() -> None:
        inside.wait()
        limit.strike(SoftTimeLimitExceeded)

    def struck() -> None:
        with limit:
            inside.set()
            while True:
                pass

    # Begun outside: a thread that is struck while it starts another one may raise what that leaves behind.
    striker = threading.Thread(target=strike)
    striker.start()
    with pytest.raises(SoftTimeLimitExceeded):
        struck()
    striker.join()


def test_a_strike_after_the_block_does_nothing() -> None:
    limit = ThreadLimit()
    limit.seconds = 0.0

    with limit:
        pass
    limit.strike(SoftTimeLimitExceeded)
    limit.expire()

    assert sum(range(1000)) == 499_500
