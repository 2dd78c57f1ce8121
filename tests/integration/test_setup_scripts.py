"""What a newcomer is told when the machine lacks something and the scripts may not install it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from processes import ROOT


@pytest.fixture
def bare_machine(tmp_path: Path) -> Path:
    """A PATH with apt-get but no servers, for a user who may not become root."""
    for tool in ("sh", "dirname", "printf", "ls", "touch"):
        found = shutil.which(tool)
        if found is not None:
            (tmp_path / tool).symlink_to(found)
    (tmp_path / "id").write_text("#!/bin/sh\necho 1000\n")
    (tmp_path / "apt-get").write_text("#!/bin/sh\necho must not run >&2; exit 9\n")
    for tool in ("id", "apt-get"):
        (tmp_path / tool).chmod(0o755)
    return tmp_path


def test_missing_servers_are_told_with_the_command_that_installs_them(bare_machine: Path) -> None:
    said = subprocess.run(
        ["sh", str(ROOT / "scripts" / "servers.sh")],
        env={"PATH": str(bare_machine)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert said.returncode == 1
    assert "sudo apt-get update && sudo apt-get install -y redis-server" in said.stderr
    assert "must not run" not in said.stderr


def test_a_machine_without_apt_is_told_the_names_of_the_packages(bare_machine: Path) -> None:
    (bare_machine / "apt-get").unlink()

    said = subprocess.run(
        ["sh", str(ROOT / "scripts" / "servers.sh")],
        env={"PATH": str(bare_machine)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert said.returncode == 1
    assert "has no apt-get: please install what Debian calls: redis-server" in said.stderr
