"""Packages that others wrote for Celery, installed once beside the project and without Celery."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from processes import ROOT, user_environment
from servers import required

# By folder. With what they need besides Celery, as pip must not bring that.
PACKAGES = {
    "packages": (
        "django-celery-beat==2.9.0",
        "django-celery-results==2.6.0",
        "celery-redbeat==2.4.2",
        "django-timezone-field",
        "python-crontab",
        "cron-descriptor",
        "tenacity",
        "python-dateutil",
        "six",
    ),
    "batches": ("celery-batches==0.11",),
}


def folder_of(name: str) -> Path:
    """Return the folder that has some of them; installing takes some seconds, and is done once."""
    requirements = PACKAGES[name]
    cache = Path(os.environ.get("CELERIAC_VENVS") or ROOT / ".venvs")
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / f"{name}-{sys.version_info.major}.{sys.version_info.minor}"
    done = folder / ".installed"
    with (cache / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists() or done.read_text() != "\n".join(requirements):
            command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--upgrade"]
            quiet = ["--disable-pip-version-check", "--root-user-action=ignore", "--no-compile"]
            made = subprocess.run(
                [*command, *quiet, "--target", str(folder), *requirements],
                capture_output=True,
                text=True,
                check=False,
            )
            if made.returncode:
                reason = f"packages for Celery cannot be installed: {made.stderr}"
                if required():
                    pytest.fail(reason, pytrace=False)
                pytest.skip(reason)
            done.write_text("\n".join(requirements))
    return folder


def environment(project: Path, *, packages: str = "packages", **settings: str) -> dict[str, str]:
    """Return the environment of a program that has some of these packages, and the modules of a folder."""
    found = user_environment(project, **settings)
    return {
        **found,
        "PYTHONPATH": os.pathsep.join([str(project), found["PYTHONPATH"], str(folder_of(packages))]),
    }
