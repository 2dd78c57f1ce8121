"""Programs that change schedules and are killed: what was said to be changed is, and once.

``python -m faults.edits`` (`make edit-chaos`) kills 300 on each broker; `test_edits` kills ten on RabbitMQ.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple

from celeriac.errors import TransportError
from celeriac.timetable import Changes
from celeriac.transports import connect
from faults.beats import broker_of
from servers import Server

EDITORS: Final = 4
_SHARED: Final = "plan/all"
_LONGEST_SECONDS: Final = 0.15  # of an editor's life, from its first edit on
_PAUSE_SECONDS: Final = 0.002


class Outcome(NamedTuple):
    """What became of the edits."""

    kills: int
    confirmed: int  # edits of which an editor was told that they were made
    lost: int  # of these
    strange: int  # made, though nobody who was told of it, or died meanwhile, can have made them
    went_back: int  # how often who leads saw a line as it had been before
    unseen: int  # lines that who leads does not know as they are

    @property
    def is_right(self) -> bool:
        """Whether all is as promised."""
        return not (self.lost or self.strange or self.went_back or self.unseen)


class Editors:
    """Programs that count lines up, as fast as they can.

    Args:
        url: The broker's.
        owner: Of the timetable.
        folder: Where they note what they were told.
    """

    def __init__(self, url: str, owner: str, folder: Path) -> None:
        self._url = url
        self._owner = owner
        self._folder = folder
        self._running: dict[str, int] = {}

    def start(self, name: str) -> None:
        """Start one, and wait until it has edited."""
        journal = self._folder / name
        before = journal.stat().st_size if journal.exists() else 0
        pid = os.fork()
        if pid == 0:
            try:
                _count_up(self._url, self._owner, name, journal)
            finally:
                os._exit(1)
        self._running[name] = pid
        while not journal.exists() or journal.stat().st_size == before:
            assert os.waitpid(pid, os.WNOHANG) == (0, 0), "an editor has ended by itself"
            time.sleep(_PAUSE_SECONDS)

    def kill(self, name: str) -> None:
        """Kill one."""
        pid = self._running.pop(name)
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status), "an editor has ended by itself"

    def confirmed(self) -> Counter[str]:
        """Return how often it was said that a line was changed."""
        return Counter(word for one in self._folder.iterdir() for word in one.read_text().split())


def _count_up(url: str, owner: str, name: str, journal: Path) -> None:
    with journal.open("ab", buffering=0) as told, closing(connect(url, {})) as transport:
        timetable = transport.timetable(owner)
        while True:
            for key in (_SHARED, f"plan/{name}"):
                line = timetable.changes(0).lines.get(key)
                value, revision = (b"0", 0) if line is None else (line.value or b"0", line.revision)
                if timetable.edit(key, b"%d" % (int(value) + 1), revision):
                    told.write(key.encode() + b"\n")


def play(url: str, folder: Path, kills: int, chance: random.Random) -> Outcome:
    """Kill editors so often, while a scheduler leads that is followed by another now and then.

    Args:
        url: The broker's.
        folder: An empty one.
        kills: How often.
        chance: Says whom, and when.
    """
    owner = f"shop {uuid.uuid4().hex}"
    editors = Editors(url, owner, folder)
    killed: Counter[str] = Counter()
    seen: dict[str, int] = {}
    revision = went_back = 0

    def take_in(changes: Changes) -> None:
        nonlocal revision, went_back
        revision = changes.revision
        for key, line in changes.lines.items():
            went_back += int(line.value or b"0") < seen.get(key, 0)
            seen[key] = int(line.value or b"0")

    names = [f"e{number}" for number in range(EDITORS)]
    with closing(connect(url, {})) as transport, closing(transport.timetable(owner)) as timetable:
        for name in names:
            editors.start(name)
        for number in range(kills):
            if number % 10 == 0:  # another one leads
                timetable.close()
                while not timetable.take("leader", timetable.lead().term, 1.0):
                    time.sleep(_PAUSE_SECONDS)
                take_in(timetable.changes(0))
            until = time.monotonic() + chance.random() * _LONGEST_SECONDS
            while time.monotonic() < until:
                take_in(timetable.changes(revision))
                time.sleep(_PAUSE_SECONDS)
            name = chance.choice(names)
            editors.kill(name)
            killed.update((_SHARED, f"plan/{name}"))
            editors.start(name)
        for name in names:
            editors.kill(name)
            killed.update((_SHARED, f"plan/{name}"))
        take_in(timetable.changes(revision))
        with closing(transport.timetable(owner)) as other:
            made = {key: int(line.value or b"0") for key, line in other.changes(0).lines.items()}
        take_in(timetable.changes(revision))
    told = editors.confirmed()
    return Outcome(
        kills=killed[_SHARED],
        confirmed=told.total(),
        lost=sum(max(told[key] - made.get(key, 0), 0) for key in told),
        strange=sum(max(made[key] - told[key] - killed[key], 0) for key in made),
        went_back=went_back,
        unseen=sum(seen.get(key) != value for key, value in made.items()),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Kill programs that change schedules on each broker and say what became of the changes."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--brokers", default="redis,sqlite,rabbitmq", help="of redis, sqlite, rabbitmq")
    options = parser.parse_args(argv)
    seed = random.randrange(10**6) if options.seed is None else options.seed
    right = True
    try:
        for name in options.brokers.split(","):
            with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as told:
                began = time.monotonic()
                outcome = play(broker_of(name, folder), Path(told), options.kills, random.Random(seed))
                right = right and outcome.is_right
                print(f"{name}: {time.monotonic() - began:.0f} s, seed {seed}: {outcome}", flush=True)
    except TransportError as exc:
        print(f"nothing was shown: {exc}", file=sys.stderr)
        return 1
    finally:
        Server.stop_all()
    return 0 if right else 1


if __name__ == "__main__":
    os.environ.setdefault("CELERIAC_REQUIRE_SERVERS", "1")
    sys.exit(main())
