"""A worker that cannot get at its broker says why, and what to do."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from processes import user_environment
from servers.ports import LOOPBACK

TIMEOUT = 60.0
PROGRAM = """
import os
from celeriac import Celeriac

app = Celeriac("prog", broker=os.environ.get("BROKER"), broker_connection_retry_on_startup=False)

@app.task(name="add")
def add(x, y):
    return x + y
"""


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    (folder / "prog.py").write_text(PROGRAM)
    return subprocess.run(
        [sys.executable, "-m", "celeriac", "-A", "prog", *arguments],
        cwd=folder,
        env=user_environment(folder, **environment),
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
    )


@pytest.fixture
def web_server() -> Iterator[int]:
    """The port of a program that answers everybody as a web server does, and hangs up."""
    server = socket.create_server((LOOPBACK, 0))

    def answer() -> None:
        while True:
            try:
                peer, _ = server.accept()
            except OSError:
                return
            with peer:
                peer.recv(100)
                peer.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    yield server.getsockname()[1]
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join(TIMEOUT)


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_it_says_that_another_program_has_the_brokers_port(
    scheme: str, web_server: int, tmp_path: Path
) -> None:
    broker = f"{scheme}://me:sekrit@{LOOPBACK}:{web_server}/0"

    done = run(tmp_path, "worker", "-c", "1", BROKER=broker)

    told = done.stdout + done.stderr
    assert done.returncode == 1
    assert f"Cannot connect to {scheme}://me:**@{LOOPBACK}:{web_server}/0" in told
    assert "what answers there does not speak" in told
    assert "Shutting down" in told
    assert "sekrit" not in told
    assert "Traceback" not in told


@pytest.mark.parametrize("command", [("worker", "-c", "1"), ("call", "add", "--args", "[1, 2]")])
def test_it_says_that_its_folder_of_state_cannot_be_made(command: tuple[str, ...], tmp_path: Path) -> None:
    # Given a file where the folder should be: also root cannot write there
    (tmp_path / "taken").touch()

    done = run(tmp_path, *command, XDG_STATE_HOME=str(tmp_path / "taken"))

    told = done.stdout + done.stderr
    assert done.returncode == 1
    assert f"The folder {tmp_path}/taken/celeriac cannot be made: Not a directory. Let this user" in told
    assert "Traceback" not in told
