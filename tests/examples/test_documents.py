"""The guides in ``docs/`` say nothing that does not work: each is followed from beginning to end.

A block that begins with a file's name in a comment is that file; the files are there before the commands.
The lines of an ``sh`` block are run in order. A comment behind one says what to expect: "in a terminal of
its own" keeps running to the end of the guide, "prints …" has to be seen, at once or when looked at again.
Blocks below ``<!-- not run by the tests: … -->`` are left out.
"""

from __future__ import annotations

import configparser
import re
import shlex
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mission import Shell
from processes import BIN, PATIENCE_SECONDS, ROOT, Program
from servers import RedisServer

GUIDES = ("start", "workflows", "migrate-from-celery", "operate", "periodic")
LEFT_OUT = re.compile(r"<!-- not run by the tests: .*?-->\n```.*?```", re.DOTALL)
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
FILE_NAME = re.compile(r"[#;] ([\w.]+)\n")
IN_THE_BACKGROUND = "in a terminal of its own"
LOCAL_REDIS = "redis://localhost:6379/0"


def blocks(guide: str) -> Iterator[tuple[str, str]]:
    """Yield the language and the text of every block that can be run."""
    text = LEFT_OUT.sub("", (ROOT / "docs" / f"{guide}.md").read_text())
    return ((found[1], found[2]) for found in BLOCK.finditer(text))


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A shell in an empty folder."""
    folder = tmp_path / "folder"
    folder.mkdir()
    shell = Shell(folder, tmp_path, {})
    yield shell
    shell.close()


def write_files(guide: str, shell: Shell, redis_url: str) -> None:
    """Write the files that a guide shows."""
    for _, text in blocks(guide):
        named = FILE_NAME.match(text)
        if named:
            (shell.folder / named[1]).write_text(text.replace(LOCAL_REDIS, redis_url))


def run_until_it_prints(shell: Shell, command: list[str], expected: str) -> None:
    """Run a command, and again while what it shall print is still on its way."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    code, said = shell.attempt(*command)
    while code or expected not in said:
        assert time.monotonic() < deadline, (
            f"{shlex.join(command)} printed {said!r}, not {expected!r} ({code})"
        )
        code, said = shell.attempt(*command)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("guide", GUIDES)
def test_a_guide_can_be_followed(guide: str, shell: Shell, redis_server: RedisServer) -> None:
    write_files(guide, shell, redis_server.fresh_url())
    running: list[Program] = []

    for line in (line for kind, text in blocks(guide) if kind == "sh" for line in text.splitlines()):
        command = shlex.split(line, comments=True)
        comment = line.partition("  # ")[2].strip()
        if comment == IN_THE_BACKGROUND:
            running.append(shell.start(*command))
        elif comment.startswith("prints "):
            run_until_it_prints(shell, command, comment.removeprefix("prints "))
        else:
            shell.run(*command)

    assert [program.stop() for program in running] == [0] * len(running)


def test_the_service_of_the_guide_starts_and_stops_a_worker(shell: Shell, redis_server: RedisServer) -> None:
    write_files("operate", shell, redis_server.fresh_url())
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]  # as systemd: capitals count
    unit.read(shell.folder / "worker.service")
    service = unit["Service"]
    name, _, value = service["Environment"].partition("=")
    shell.environment[name] = value
    executable, *arguments = service["ExecStart"].replace("%%", "%").split()

    worker = shell.start(str(BIN / Path(executable).name), *arguments)
    worker.wait_for(r"main@\S+ ready\.")

    assert service["KillSignal"] == "SIGTERM"
    assert worker.stop() == 0
