"""Fixtures of the tests that run a worker in a process of its own."""

from __future__ import annotations

import importlib.util
import json
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from celeriac.app import Celeriac
from processes import Program, user_environment
from worker_program import PROJECT, RUN, Start


def urls(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """Return the URLs of a broker of some kind and of a result store."""
    file = f"sqlite:///{tmp_path}/q.db"
    match kind:
        case "memory":
            url = f"memory://{uuid.uuid4().hex}"
            return url, url
        case "redis":
            url = request.getfixturevalue("redis_url")
            return url, url
        case "amqp":
            return request.getfixturevalue("rabbitmq_url"), file
        case _:
            return file, file


@pytest.fixture
def servers(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """Return the URLs of broker and result store; SQLite unless a test asks for others."""
    return urls(getattr(request, "param", "sqlite"), request, tmp_path)


@pytest.fixture(params=["memory", "sqlite", "redis", "amqp"])
def everywhere(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Celeriac]:
    """An app without tasks, with each broker in turn."""
    broker, backend = urls(request.param, request, tmp_path)
    app = Celeriac("proj", broker=broker, backend=backend, set_as_current=False)
    yield app
    app.close()


@pytest.fixture(params=["sqlite", "redis", "amqp"])
def across_processes(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Celeriac]:
    """The same, without the broker that lives in one process."""
    broker, backend = urls(request.param, request, tmp_path)
    app = Celeriac("proj", broker=broker, backend=backend, set_as_current=False)
    yield app
    app.close()


@pytest.fixture
def home(tmp_path: Path, servers: tuple[str, str]) -> Path:
    broker, backend = servers
    (tmp_path / "proj.py").write_text(PROJECT.replace("BROKER", broker).replace("BACKEND", backend))
    (tmp_path / "run_worker.py").write_text(RUN)
    return tmp_path


@pytest.fixture
def proj(home: Path) -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("proj", home / "proj.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    module.app.close()


@pytest.fixture
def start(home: Path) -> Iterator[Start]:
    programs: list[Program] = []

    def start_worker(
        pool: str = "prefork", concurrency: int = 1, soft: float = 0, **settings: Any
    ) -> Program:
        command = [sys.executable, "run_worker.py", pool, str(concurrency), str(soft)]
        # In capitals: a variable of the environment.
        environment = {name: settings.pop(name) for name in list(settings) if name.isupper()}
        environment["SETTINGS"] = json.dumps(settings)
        program = Program(command, cwd=home, env=user_environment(home, **environment))
        programs.append(program)
        program.wait_for(r"w1@here ready\.")
        return program

    yield start_worker
    for program in programs:
        program.end()
