"""The fixtures of the mission's programs."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from mission import OpenShell, Shell, Site, SmtpSink
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
def site() -> Iterator[Site]:
    """Five pages: together 3.0 s, the slowest 1.2 s."""
    with Site([0.3, 0.4, 0.5, 0.6, 1.2]) as site:
        thread = threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield site
        site.shutdown()
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
