"""Real Celery, in an environment of its own that is made once and then reused."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from fleet import Side, Site
from servers import required

REQUIREMENTS = (
    "celery[redis,msgpack,yaml,auth,zstd,brotli]==5.6.3",
    "kombu==5.6.2",  # the newest would come otherwise, which celery 5.6.3 was not released with
    "redis==6.4.0",
    "sqlalchemy>=2",
)
# Of each release that is tried: the first is what most tests ask, the others only the fastest ones.
RELEASES = {
    "5.6.3": REQUIREMENTS,
    "5.7.0": ("celery[redis,msgpack,yaml,auth,zstd,brotli]==5.7.0", "kombu==5.7.0", *REQUIREMENTS[2:]),
}
ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent


def _make(folder: Path, requirements: Sequence[str]) -> None:
    """Make an environment without a pip of its own, compiling nothing in advance: in half the time."""
    make = [sys.executable, "-m", "venv", "--clear", "--without-pip", str(folder)]
    pip = [sys.executable, "-m", "pip", "--python", str(folder), "install", "--no-compile"]
    for command in (make, [*pip, "-q", "--disable-pip-version-check", *requirements]):
        subprocess.run(command, check=True, capture_output=True, text=True)


def environment(name: str, requirements: Sequence[str]) -> Path:
    """Return the interpreter of an environment that is made once, and then reused by all runs.

    It is kept in the folder that CELERIAC_VENVS names, or in ``.venvs``; making it takes half a minute.

    Args:
        name: Of its folder.
        requirements: What pip installs there.
    """
    cache = Path(os.environ.get("CELERIAC_VENVS") or ROOT / ".venvs")
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / name
    done = folder / ".installed"
    with (cache / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists() or done.read_text() != "\n".join(requirements):
            try:
                _make(folder, requirements)
            except subprocess.CalledProcessError as exc:
                reason = f"the environment {name} cannot be made: {exc.stderr}"
                if required():
                    pytest.fail(reason, pytrace=False)
                pytest.skip(reason)
            done.write_text("\n".join(requirements))
    return folder / "bin" / "python"


@pytest.fixture(scope="session")
def celery_python() -> Path:
    """The interpreter of an environment with real Celery 5.6.3 and without us."""
    return environment("celery-5.6.3", REQUIREMENTS)


@pytest.fixture(params=RELEASES)
def each_celery_python(request: pytest.FixtureRequest) -> Path:
    """The interpreters of environments with real Celery, one after the other, for tests that are fast."""
    release: str = request.param
    return environment(f"celery-{release}", RELEASES[release])


# Flower, and all that it and we need but Celery: that is what is tried.
FLOWER_BESIDE_US = (
    *(
        "flower==2.2.0",
        "tornado",
        "prometheus_client",
        "humanize",
        "kombu==5.7.0",
        "billiard",
        "vine",
        "amqp",
    ),
    *(
        "redis",
        "packaging",
        "pytz",
        "tzdata",
        "click",
        "msgspec",
        "hiredis",
        "rich",
        "markdown-it-py",
        "mdurl",
        "pygments",
    ),
)


@pytest.fixture(scope="session")
def flower_python() -> Callable[[Side], Path]:
    """Return a function that returns the interpreter of an environment with Flower.

    One is with real Celery; in the other nothing is installed in Celery's place, so that ours is found there.
    """

    def python(side: Side) -> Path:
        if side == "real":
            return environment("flower-and-celery", (*REQUIREMENTS, "flower==2.2.0"))
        return environment("flower-alone", ("--no-deps", *FLOWER_BESIDE_US))

    return python


def _ask(python: Path, questions: tuple[Any, ...], **environment: str) -> list[Any]:
    run = subprocess.run(
        [python, "-W", "ignore", str(HERE / "peer.py")],
        input=json.dumps(questions),
        capture_output=True,
        text=True,
        cwd=HERE,
        env={"PATH": os.environ["PATH"], **environment},
        check=False,
    )
    assert run.returncode == 0, run.stderr
    answers: list[Any] = json.loads(run.stdout.splitlines()[-1])
    return answers


@pytest.fixture
def real(celery_python: Path) -> Callable[..., list[Any]]:
    """Ask real Celery: ``real(("operation", {arguments}), …)`` returns one answer per question."""
    return lambda *questions: _ask(celery_python, questions)


@pytest.fixture
def real_on_redis(celery_python: Path, redis_url: str) -> Callable[..., list[Any]]:
    """Ask real Celery whose broker is the test's Redis database."""
    return lambda *questions: _ask(celery_python, questions, PEER_REDIS_URL=redis_url)


# --- the program, on both sides ---------------------------------------------------------------------------

MakeSite = Callable[[str], Site]


@pytest.fixture
def make_site(
    request: pytest.FixtureRequest, celery_python: Path, tmp_path_factory: pytest.TempPathFactory
) -> MakeSite:
    """Return a function that makes an empty site with a broker."""

    def make(broker: str) -> Site:
        folder = tmp_path_factory.mktemp(broker)
        if broker == "redis":
            url = request.getfixturevalue("redis_url")
            return Site(celery_python, folder, url, url)
        url = request.getfixturevalue("rabbitmq_url")
        if broker == "rpc":
            return Site(celery_python, folder, url, "rpc://")
        results = request.getfixturevalue("redis_url")
        return Site(celery_python, folder, url, results, PROGRAM_RESULT_SERIALIZER="pickle")

    return make


@pytest.fixture(scope="module")
def sites() -> Iterator[dict[tuple[str, ...], Site]]:
    """Keep the sites of a module, with the workers that run there, until its last test."""
    made: dict[tuple[str, ...], Site] = {}
    yield made
    for site in made.values():
        site.close()
