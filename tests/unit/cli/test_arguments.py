"""Global options stand before or behind the command; names and files are filled in."""

from __future__ import annotations

import socket

import pytest

from celeriac.cli.main import hoist
from celeriac.cli.worker import file_name, node_name


@pytest.mark.parametrize(
    ("given", "moved"),
    [
        ("worker -A proj -l info", "-A proj worker -l info"),
        ("-A proj worker -l info", "-A proj worker -l info"),
        ("worker --app=proj -c 5", "--app=proj worker -c 5"),
        ("worker -Aproj", "-Aproj worker"),
        ("worker -b redis:// -q", "-b redis:// -q worker"),
        ("worker -- -A proj", "worker -- -A proj"),
        ("worker -A", "-A worker"),
    ],
)
def test_global_options_move_in_front_of_the_command(given: str, moved: str) -> None:
    assert hoist(given.split()) == moved.split()


def test_a_node_is_named_after_the_host_unless_told_otherwise() -> None:
    host = socket.gethostname()

    assert node_name(None) == f"celery@{host}"
    assert node_name("w1@%h") == f"w1@{host}"
    assert node_name("w1@%n") == f"w1@{host.partition('.')[0]}"
    assert node_name("foo") == "celery@foo"
    assert node_name("a%%b@x") == "a%b@x"


def test_log_files_carry_the_node_s_name() -> None:
    assert file_name("/var/log/%n%I.log", "w1@h1.example.org") == "/var/log/w1.log"
    assert file_name("%p-%h-%d-%i", "w1@h1.example.org") == "w1@h1.example.org-h1.example.org-example.org-0"
    assert file_name(None, "w1@h1") is None
