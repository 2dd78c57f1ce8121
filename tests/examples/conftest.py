"""The fixtures of the mission's programs."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from internet import Internet
from mission import OpenShell, Shell, SmtpSink
from processes import ROOT


@pytest.fixture
def open_shell(tmp_path: Path) -> Iterator[OpenShell]:
    """A function that opens a shell in a copy of ``examples/<name>``; keywords are environment variables."""
    with ExitStack() as shells:

        def open_one(name: str, **settings: str) -> Shell:
            folder = tmp_path / Path(name).name
            if not folder.exists():
                shutil.copytree(ROOT / "examples" / name, folder)
            home = tmp_path / "home"
            home.mkdir(exist_ok=True)
            shell = Shell(folder, home, settings)
            shells.callback(shell.close)
            return shell

        yield open_one


@pytest.fixture
def internet(tmp_path: Path) -> Iterator[Internet]:
    """The five sites of the document: together 3.0 s, the slowest 1.2 s."""
    delays = {"google.com": 0.3, "amazon.in": 0.4, "facebook.com": 0.5, "twitter.com": 0.6, "alexa.com": 1.2}
    with Internet(delays, tmp_path) as internet:
        thread = threading.Thread(target=internet.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield internet
        internet.shutdown()
        thread.join()


@pytest.fixture
def mail() -> Iterator[SmtpSink]:
    """A local SMTP server that keeps what it gets."""
    with SmtpSink() as sink:
        thread = threading.Thread(target=sink.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield sink
        sink.shutdown()
        thread.join()
