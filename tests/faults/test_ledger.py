"""The ledger keeps what many processes write, also when they are killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from faults.ledger import Ledger, Reader, keys, read

WRITER = """
import os, sys
from pathlib import Path
from faults.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]))
for number in range(50):
    ledger.write("start", f"{sys.argv[2]}-{number}", attempt=2, redelivered=True)
os.kill(os.getpid(), 9)
"""


def test_lines_of_killed_processes_are_whole_and_all_there(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), name], env=env) for name in ("a", "b", "c")
    ]
    for writer in writers:
        writer.wait()

    entries = read(path)

    assert keys(entries, "start") == {f"{name}-{number}" for name in "abc" for number in range(50)}
    assert {entry.pid for entry in entries} == {writer.pid for writer in writers}
    assert all(entry.attempt == 2 and entry.redelivered for entry in entries)


def test_a_reader_is_given_each_line_once(tmp_path: Path) -> None:
    reader = Reader(tmp_path / "ledger")
    assert reader.news() == []
    ledger = Ledger(tmp_path / "ledger")

    ledger.write("intent", "a")
    first = reader.news()
    ledger.write("refused", "a", state="BrokerUnreachable")
    second = reader.news()
    ledger.close()

    assert [entry.what for entry in first] == ["intent"]
    assert [(entry.what, entry.state) for entry in second] == [("refused", "BrokerUnreachable")]
    assert reader.news() == []
