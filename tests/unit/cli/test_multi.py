"""Several workers by one command: names, options of single nodes, and the commands that start them."""

from __future__ import annotations

import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from celeriac.cli.main import run
from celeriac.cli.nodes import expanded

HOST = socket.gethostname()
FILES = "--pidfile=/var/run/celery/{0}.pid --logfile=/var/log/celery/{0}%I.log"
Show = pytest.CaptureFixture[str]


def _lines(capsys: Show, *arguments: str) -> list[str]:
    assert run(["multi", *arguments]) == 0
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["2"], [f"celery1@{HOST}", f"celery2@{HOST}"]),
        (["foo", "bar@x", "--suffix=zz"], ["foo@zz", "bar@x"]),
        (["2", "--range-prefix=w", "--hostname=h.example"], ["w1@h.example", "w2@h.example"]),
        (["foo", "-n", "h.x"], ["foo@h.x"]),
        (["foo", "--prefix=pp"], [f"ppfoo@{HOST}"]),
        (["foo@%h"], [f"foo@{HOST}"]),
    ],
)
def test_nodes_are_named_as_celery_names_them(arguments: list[str], names: list[str], capsys: Show) -> None:
    assert _lines(capsys, "names", *arguments) == names


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (["2", "-l", "info", "-c:1", "3"], {"celery1": "-l info -c 3", "celery2": "-l info"}),
        (["3", "-c", "3", "-c:1-2", "9"], {"celery1": "-c 9", "celery2": "-c 9", "celery3": "-c 3"}),
        (["a", "b", "-c:a,b", "3", "--loglevel:a=debug"], {"a": "-c 3 --loglevel=debug", "b": "-c 3"}),
        (["foo", "--pool", "solo", "-E"], {"foo": "--pool=solo -E"}),
        (["foo", "--", "worker.x=1"], {"foo": ""}),
    ],
)
def test_options_go_to_the_nodes_that_they_are_meant_for(
    arguments: list[str], options: dict[str, str], capsys: Show
) -> None:
    tail = " -- worker.x=1" if "--" in arguments else ""

    shown = _lines(capsys, "show", "-A", "proj", *arguments)

    assert shown == [
        " ".join(
            f"{shlex.quote(sys.executable)} -m celeriac -A proj worker --detach {said} "
            f"-n {name}@{HOST} {FILES.format(name)}{tail}".split()
        )
        for name, said in options.items()
    ]


def test_files_are_named_by_their_node(capsys: Show) -> None:
    [line] = _lines(capsys, "show", "foo", "--pidfile=/p/%n.pid", "--logfile:foo=/l/%h%I.log")

    assert line.endswith(f"--pidfile=/p/foo.pid --logfile=/l/foo@{HOST}%I.log")


def test_the_program_of_the_workers_may_be_another(capsys: Show) -> None:
    options = ["--executable=/opt/py", "--cmd=-m celery worker --detach", "-A", "proj"]

    [line] = _lines(capsys, "show", "1", *options, "-c", "2")
    assert line.startswith(f"/opt/py -m celery -A proj worker --detach -c 2 -n celery1@{HOST} ")
    [line] = _lines(capsys, "get", "celery1", "2", *options[:2])
    assert line.startswith(f"/opt/py -m celery worker --detach -n celery1@{HOST} ")


def test_quiet_is_for_multi_and_not_for_its_workers(tmp_path: Path, capsys: Show) -> None:
    [line] = _lines(capsys, "show", "1", "-q", "--no-color")
    assert " -q " not in line

    assert _lines(capsys, "kill", "1", "--quiet", f"--pidfile={tmp_path}/%n.pid") == []
    assert _lines(capsys, "kill", "1", f"--pidfile={tmp_path}/%n.pid") == [f"> celery1@{HOST}: DOWN"]


def test_a_template_is_filled_in_for_each_node(capsys: Show) -> None:
    assert _lines(capsys, "expand", "%n-%i%I", "2") == ["celery1-1%I", "celery2-2%I"]
    assert expanded("%%n %d", "a@b.c", 1) == "%n b.c"


def test_nodes_that_do_not_run_are_told(tmp_path: Path, capsys: Show) -> None:
    assert _lines(capsys, "stop", "2", f"--pidfile={tmp_path}/%n.pid", "-9") == [
        f"> celery1@{HOST}: DOWN",
        f"> celery2@{HOST}: DOWN",
    ]


@pytest.mark.parametrize(
    ("words", "name", "number"),
    [
        (["stop"], "TERM", signal.SIGTERM),
        (["stop", "-INT"], "INT", signal.SIGINT),
        (["stop", "-9"], "KILL", signal.SIGKILL),
        (["kill"], "KILL", signal.SIGKILL),
    ],
)
def test_nodes_that_run_get_the_signal(
    words: list[str], name: str, number: int, tmp_path: Path, capsys: Show
) -> None:
    with subprocess.Popen(["sleep", "60"]) as node:
        (tmp_path / "celery1.pid").write_text(f"{node.pid}\n")

        shown = _lines(capsys, words[0], "1", f"--pidfile={tmp_path}/%n.pid", *words[1:])

        assert node.wait(60) == -number
    assert shown == ["> Stopping nodes...", f"\t> celery1@{HOST}: {name} -> {node.pid}"]


def test_a_misspelt_command_gets_a_hint(capsys: Show) -> None:
    assert run(["multi", "strat", "2"]) == 2

    assert "Invalid command: strat. Did you mean start?" in capsys.readouterr().err
