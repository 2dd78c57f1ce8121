"""Every question in `quiz` is answered alike by real Celery and by ours."""

from __future__ import annotations

import ast
import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fleet import SIDES, Side, wait_until_ready
from processes import Program, user_environment
from servers import RedisServer

HERE = Path(__file__).resolve().parent
OFFLINE = ("apps", "settings", "tasks", "sending", "eager", "errors", "results", "connections", "canvas")
ONLINE = ("worker", "workflows", "heard")
PATIENCE_SECONDS = 180

# What we answer differently, on purpose; docs/decisions/045 and 060 tell why.
DIFFERENT = {
    "canvas.stamping_visitors": "a stamp's name does not get into the list of a neighbour",
    "canvas.cured_links_right_here": "each is called exactly once",
    "canvas.a_group_of_a_group_right_here": "the value is the one that a worker gives",
    "canvas.links_of_chains_right_here": "what is linked to a chain runs once, after the last step",
    "workflows.the_order_of_groups_in_a_header": "results are in the order of the header",
    "workflows.cured_workflows": "nothing waits for ever",
    "workflows.cured_errbacks": "each is called exactly once",
    "workflows.cured_callbacks": "each is called exactly once",
    "errors.families": "one tree of errors",
    "eager.hooks_and_signals": "einfo.exception is the exception itself, and no Retry is its own argument",
    "eager.a_task_that_is_a_retry_signal_itself": "no Retry is its own argument",
    "results.an_exception_that_does_not_take_its_own_arguments": "it is caught by its class",
    "results.intervals_of_waiting": "on_interval is called at each interval, not once",
    "results.on_message_of_what_is_there": "on_message is told of the outcome whenever it came",
    "settings.what_cannot_be_a_source": "the name of a file is a mistake that is named",
    "settings.the_mapping_of_settings": "setdefault returns the value",
}
MORE = "settings.every_setting_under_both_names_with_its_default"  # ours knows those of newer versions too

Answers = dict[str, Any]

pytestmark = pytest.mark.timeout(400)  # the first test waits for real Celery to be installed


def questions(*modules: str) -> list[str]:
    """Return the names of the questions in some modules, without importing them."""
    return [
        f"{module}.{node.name}"
        for module in modules
        for node in ast.parse((HERE / "quiz" / f"{module}.py").read_text()).body
        if isinstance(node, ast.FunctionDef)
        and any(
            isinstance(decorator, ast.Name) and decorator.id == "question"
            for decorator in node.decorator_list
        )
    ]


def _python(side: Side, celery_python: Path) -> str:
    return str(celery_python) if side == "real" else sys.executable


def _environment(side: Side, folder: Path, **more: str) -> dict[str, str]:
    environment = user_environment(folder, C_FORCE_ROOT="1", **more)
    if side == "real":
        del environment["PYTHONPATH"]
    return environment


def _ask(python: str, environment: dict[str, str], *modules: str) -> Answers:
    run = subprocess.run(
        [python, "-W", "ignore", "-m", "quiz", *modules],
        cwd=HERE,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    answers: Answers = json.loads(run.stdout.splitlines()[-1])
    return answers


@pytest.fixture(scope="module")
def kept() -> dict[str, dict[Side, Answers]]:
    """The answers, once they were asked for."""
    return {}


@pytest.fixture
def offline(kept: dict[str, dict[Side, Answers]], celery_python: Path, tmp_path: Path) -> dict[Side, Answers]:
    if "offline" not in kept:
        kept["offline"] = {
            side: _ask(_python(side, celery_python), _environment(side, tmp_path), *OFFLINE) for side in SIDES
        }
    return kept["offline"]


@pytest.fixture
def online(
    kept: dict[str, dict[Side, Answers]], celery_python: Path, tmp_path: Path, redis_server: RedisServer
) -> dict[Side, Answers]:
    """The answers of a client to whom a worker of its own side is at hand."""
    if "online" not in kept:
        urls = {side: redis_server.fresh_url() for side in SIDES}

        def ask(side: Side) -> Answers:
            python = _python(side, celery_python)
            environment = _environment(side, tmp_path, QUIZ_BROKER=urls[side])
            with _worker(python, environment):
                return _ask(python, environment, *ONLINE)

        with ThreadPoolExecutor() as both:  # they mostly wait
            kept["online"] = dict(zip(SIDES, both.map(ask, SIDES), strict=True))
    return kept["online"]


@contextlib.contextmanager
def _worker(python: str, environment: dict[str, str]) -> Iterator[None]:
    command = [python, "-W", "ignore", "-m", "celery", "-A", "quiz.worker", "worker", "-l", "INFO"]
    with Program([*command, "-n", "quiz@%h", "-c", "2"], cwd=HERE, env=environment) as worker:
        wait_until_ready(worker)
        yield


def _check(name: str, answers: dict[Side, Answers]) -> None:
    real, ours = answers["real"][name], answers["ours"][name]
    if name == MORE:
        ours = {setting: ours[setting] for setting in real}
    if name in DIFFERENT:
        assert ours != real, f"{name} is answered alike by now: take it out of DIFFERENT"
    elif isinstance(ours, dict) and isinstance(real, dict):
        differing = [key for key in ours | real if ours.get(key) != real.get(key)]
        assert not differing, {key: {"ours": ours.get(key), "real": real.get(key)} for key in differing}
    else:
        assert ours == real


@pytest.mark.together("quiz without a worker")  # all questions are asked at once
@pytest.mark.parametrize("name", questions(*OFFLINE))
def test_without_a_worker_ours_answers_as_real_celery_does(name: str, offline: dict[Side, Answers]) -> None:
    _check(name, offline)


@pytest.mark.redis
@pytest.mark.together("quiz with a worker")
@pytest.mark.parametrize("name", questions(*ONLINE))
def test_with_a_worker_ours_answers_as_real_celery_does(name: str, online: dict[Side, Answers]) -> None:
    _check(name, online)
