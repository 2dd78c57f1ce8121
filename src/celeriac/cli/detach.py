"""Going on in the background, without a terminal."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from typing import Final

import click

_WORDS: Final = ("-D", "--detach")
_VARIABLES: Final = ("CELERY_WORKER_DETACH", "CELERY_BEAT_DETACH", "CELERY_EVENTS_DETACH")


def detach(program: Sequence[str], executable: str | None) -> int:
    """Begin the same command line anew in a session of its own, and return that process's id.

    Args:
        program: The command line of this process, with the interpreter.
        executable: The interpreter to use instead.

    Raises:
        click.UsageError: What asks for it cannot be found in the command line.
        click.ClickException: The interpreter cannot be run, by this user.
    """
    interpreter, *arguments = program
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    kept = [word for word in arguments[:cut] if word not in _WORDS] + arguments[cut:]
    environ = {name: value for name, value in os.environ.items() if name not in _VARIABLES}
    if len(kept) == len(arguments) and len(environ) == len(os.environ):
        raise click.UsageError("Write --detach, or -D on its own, so that it can be left out.")
    try:
        process = subprocess.Popen(  # noqa: S603 - our own command line
            [executable or interpreter, *kept],
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as exc:
        raise click.ClickException(f"{executable or interpreter} cannot be run: {exc.strerror}.") from exc
    pid = process.pid
    process.returncode = 0  # it outlives us, and nobody here waits for it
    return pid
