"""Both distributions, built and installed as a user would, in an environment of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUNDLES = (
    "arangodb auth azureblockblob brotli cassandra consul cosmosdbsql couchbase couchdb django dynamodb "
    "elasticsearch eventlet gcpubsub gcs gevent librabbitmq memcache mongodb msgpack pydantic pymemcache "
    "pyro pytest redis s3 slmq solar sqlalchemy sqs tblib yaml zookeeper zstd"
)

pytestmark = [pytest.mark.timeout(300), pytest.mark.together("installation")]  # one environment for all


def run(*command: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command without the paths of this test run and return what it printed."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "CELERY"))
    }
    environment["PIP_NO_COMPILE"] = "1"  # in the environments that pip builds in, too: half of its time
    return subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


def pip(*arguments: str | Path) -> str:
    """Run pip and return what it printed; without a package index the test is skipped, but never in CI."""
    done = run(sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments)
    offline = "No matching distribution" in done.stderr or "Could not fetch" in done.stderr
    if done.returncode and offline and "CELERIAC_REQUIRE_SERVERS" not in os.environ:
        pytest.skip("the package index cannot be reached")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def binaries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the ``bin`` of an environment that both wheels are installed in."""
    place = tmp_path_factory.mktemp("installed")
    wheels = place / "wheels"
    pip("wheel", "--quiet", "--no-deps", "--wheel-dir", wheels, ROOT, ROOT / "dropin")
    venv.create(place / "venv")
    pip("--python", place / "venv", "install", "--quiet", *sorted(wheels.glob("*.whl")))
    return place / "venv" / "bin"


def test_requirements_of_celery_are_satisfied(binaries: Path) -> None:
    for requirement in ("celery>=5", "celery==5.7.0", "celery<6,>=5.3"):
        told = pip("--python", binaries / "python", "install", "--no-index", "--dry-run", requirement)

        assert f"Requirement already satisfied: {requirement} in" in told
    assert "No broken requirements" in pip("--python", binaries / "python", "check")


def test_every_bundle_name_of_celery_is_an_extra(binaries: Path) -> None:
    code = "import importlib.metadata as m; print(*sorted(m.metadata('celery').get_all('Provides-Extra')))"

    extras = run(binaries / "python", "-c", code).stdout

    assert extras.split() == BUNDLES.split()


def test_programs_import_celery_and_get_celeriac(binaries: Path, tmp_path: Path) -> None:
    code = (
        "import celery, celeriac, importlib.metadata as m\n"
        "from celery import Celery, shared_task, group, chain, chord, current_app, signature\n"
        "from celery.exceptions import SoftTimeLimitExceeded\n"
        "import billiard.exceptions, kombu.exceptions, vine\n"
        "assert issubclass(SoftTimeLimitExceeded, billiard.exceptions.SoftTimeLimitExceeded)\n"
        "assert Celery is celeriac.Celeriac\n"
        "app = Celery('x', broker='memory://')\n"
        "print(m.version('celery'), celery.__version__, current_app.main)\n"
    )

    done = run(binaries / "python", "-c", code, cwd=tmp_path)

    assert (done.stdout, done.stderr) == ("5.7.0+celeriac.1 5.7.0 x\n", "")


def test_the_commands_say_their_version(binaries: Path, tmp_path: Path) -> None:
    for command in ([binaries / "celery"], [binaries / "python", "-m", "celery"]):
        done = run(*command, "--version", cwd=tmp_path)

        assert (done.stdout, done.stderr, done.returncode) == ("5.7.0 (celeriac)\n", "", 0)


def test_the_command_takes_celeryconfig_of_the_working_folder(binaries: Path, tmp_path: Path) -> None:
    (tmp_path / "celeryconfig.py").write_text("task_default_queue = 'from-the-file'\n")

    done = run(binaries / "celery", "report", cwd=tmp_path)

    assert "task_default_queue: 'from-the-file'" in done.stdout
    assert done.returncode == 0
