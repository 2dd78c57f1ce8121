"""The two sides, real Celery and Celeriac's drop-in, and some peers, each in an environment of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENTS = Path(os.environ.get("CELERIAC_VENVS", ROOT / ".venvs"))


def celery() -> Path:
    """Return the Python of an environment with the newest Celery, made on first use."""
    return _environment("celery-newest", ["celery[redis]", "hiredis", "gevent"], again=False)


def celeriac() -> Path:
    """Return the Python of an environment with this checkout and its drop-in, installed afresh."""
    wheels = ENVIRONMENTS / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    for source in (ROOT, ROOT / "dropin"):
        _run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(wheels), str(source)])
    found = [str(path) for path in sorted(wheels.glob("*.whl"))]
    return _environment("celeriac", ["redis", "hiredis", "amqp", "packaging", "gevent", *found], again=True)


def dramatiq() -> Path:
    """Return the Python of an environment with the newest dramatiq, made on first use."""
    return _environment("dramatiq-newest", ["dramatiq[redis,gevent]", "hiredis"], again=False)


def taskiq() -> Path:
    """Return the Python of an environment with the newest taskiq, made on first use."""
    return _environment("taskiq-newest", ["taskiq[orjson,uv]", "taskiq-redis", "hiredis"], again=False)


def _environment(name: str, packages: list[str], *, again: bool) -> Path:
    folder = ENVIRONMENTS / name
    python, made_of = folder / "bin" / "python", folder / "packages.txt"
    if not python.exists():
        _run([_base_python(), "-m", "venv", str(folder)])
    wanted = "\n".join(packages)
    if again or not made_of.exists() or made_of.read_text() != wanted:
        _run([str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *packages])
        wheels = [package for package in packages if package.endswith(".whl")]
        if wheels:  # the same version, built anew: pip would keep the old one
            reinstall = ["--force-reinstall", "--no-deps", *wheels]
            _run([str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *reinstall])
        made_of.write_text(wanted)
    return python


def _base_python() -> str:
    """Return Debian's own Python where there is one: an optimised build, unlike many home-made ones."""
    debian = Path("/usr/bin/python3")
    return str(debian) if debian.exists() else sys.executable


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
