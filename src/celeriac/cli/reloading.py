"""``celery worker --reload``: for development, a worker that begins anew when its code has changed.

A small process that loads nothing of the app runs the same command line again, as a process of its own, and
watches the files that this worker has loaded.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, Final

import click

from celeriac.cli.context import CLIContext

WORD: Final = "--reload"
_NOTE: Final = "CELERIAC_RELOAD_NOTE"  # in the worker's environment: where to write down what it has loaded
_LIFE: Final = "CELERIAC_RELOAD_LIFE"  # there, too: what can be read from when the one that watches has ended
_TOLD: Final = "told"
_ELSEWHERE: Final = ("-h", "--help", "-D", "--detach")
_LOOK_MILLISECONDS: Final = 200  # how often the worker itself is looked at
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP)


def is_asked(arguments: Sequence[str]) -> bool:
    """Return whether a worker's arguments ask for one that watches it, and we are not that worker."""
    given = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return WORD in given and _NOTE not in os.environ and not any(word in given for word in _ELSEWHERE)


def tell_loaded() -> None:
    """Write down which files this process has loaded, for the one that watches them, if there is one."""
    note = os.environ.get(_NOTE, _TOLD)
    if note == _TOLD:
        return
    os.environ[_NOTE] = _TOLD  # those that run this command line again do not tell
    Path(f"{note}.new").write_text(json.dumps(loaded_files()))
    Path(f"{note}.new").rename(note)


def end_with_watcher() -> None:
    """End in good order as soon as the process that watches this one has ended, however it did."""
    life, _, whose = os.environ.get(_LIFE, "").partition(":")
    if not life or whose not in ("", str(os.getpid())):
        return  # those that run this command line again have not got the descriptor
    os.environ[_LIFE] = f"{life}:{os.getpid()}"  # after HUP it is this process still

    def wait() -> None:
        with suppress(OSError):
            os.read(int(life), 1)  # nobody writes: it returns when the other end is gone
            os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="celeriac-watched", daemon=True).start()


def loaded_files() -> list[str]:
    """Return the Python files of the loaded modules, without Python's own and installed ones."""
    installed = [path + os.sep for path in set(sysconfig.get_paths().values()) if path.endswith("-packages")]
    installed += [sysconfig.get_path("stdlib") + os.sep]
    found = {str(getattr(module, "__file__", None)) for module in [*sys.modules.values()]}
    return sorted(
        os.path.abspath(file) for file in found if file.endswith(".py") and not file.startswith((*installed,))
    )


@click.command(
    "worker",
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def command(ctx: click.Context, arguments: tuple[str, ...]) -> None:
    """Run a worker, and begin it anew whenever a file that it has loaded has changed."""
    try:
        watchfiles: Any = importlib.import_module("watchfiles")  # Any: a module
    except ImportError as exc:
        raise click.ClickException(
            "worker --reload needs the package watchfiles: pip install 'celeriac[reload]'"
        ) from exc
    obj: CLIContext = ctx.obj
    with tempfile.TemporaryDirectory(prefix="celeriac-reload-") as folder:
        program = [sys.executable, *sys.orig_argv[1:]]
        reloader = Reloader(program, obj.started_in, Path(folder), watchfiles.watch, obj.say)
        sys.exit(reloader.run())


class Reloader:
    """Runs a worker as a process of its own, and again when its code has changed.

    1. start it, and wait until it has told what it has loaded, or has failed
    2. when a loaded file changes and can be compiled: have it end in good order (tasks that run are waited
       for, what has not begun goes back to the queue), then go on with 1; a file that cannot be compiled is
       told, and the worker goes on with what it has
    3. when it has ended by itself: wait for a change
    4. pass on what signals say, and end with it; when this process is killed, the worker ends in good order

    Args:
        program: The command line.
        folder: Where to run it.
        notes: A directory for what it tells.
        watch: ``watchfiles.watch``.
        say: Tells the person.
    """

    def __init__(
        self,
        program: Sequence[str],
        folder: str,
        notes: Path,
        watch: Callable[..., Iterator[set[tuple[Any, str]]]],
        say: Callable[[str], None],
    ) -> None:
        self._program = program
        self._folder = folder
        self._note = notes / "loaded.json"
        self._watch = watch
        self._say = say
        self._worker: subprocess.Popen[bytes] | None = None
        self._ends = threading.Event()
        self._life, self._own_life = os.pipe()  # ends with this process, by which its worker knows
        self._files: frozenset[str] = frozenset()  # what the latest worker that could be loaded has loaded

    def run(self) -> int:
        """Go on until told to end, and return the last worker's exit code."""
        before = {number: signal.signal(number, self._pass_on) for number in _SIGNALS}
        try:
            code = 0
            while not self._ends.is_set():
                code = self._run_one()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(self._own_life)
            os.close(self._life)
        return code

    def _run_one(self) -> int:
        """Run one worker to its end, and to the change that asks for the next one."""
        self._note.unlink(missing_ok=True)
        began = time.time()
        # Of a process group of its own: else a Ctrl+C would reach it twice.
        worker = self._worker = subprocess.Popen(  # noqa: S603 - our own command line
            self._program,
            cwd=self._folder,
            env={**os.environ, _NOTE: str(self._note), _LIFE: str(self._life)},
            process_group=0,
            pass_fds=[self._life],
        )
        is_loaded = self._await_loaded(worker)
        if is_loaded:
            self._files = frozenset(json.loads(self._note.read_text()))
        self._await_change(worker, began, is_loaded=is_loaded)
        if worker.poll() is None:
            worker.terminate()
        return worker.wait()

    def _await_loaded(self, worker: subprocess.Popen[bytes]) -> bool:
        """Wait until the worker has told what it has loaded; False when it has ended instead."""
        while not self._note.exists():
            if worker.poll() is not None:
                return False
            time.sleep(0.02)
        return True

    def _await_change(self, worker: subprocess.Popen[bytes], began: float, *, is_loaded: bool) -> None:
        """Return when the code has changed, or we are to end."""
        if self._ends.is_set():
            worker.wait()
            return
        folders = {os.path.dirname(file) for file in self._files if os.path.exists(os.path.dirname(file))}
        if not is_loaded:
            folders.add(self._folder)
        ended = False
        for changes in self._watch(
            *sorted(folders),
            recursive=not is_loaded,  # what could not be loaded may be anywhere
            stop_event=self._ends,
            rust_timeout=_LOOK_MILLISECONDS,
            yield_on_timeout=True,
            raise_interrupt=False,
        ):
            changed = {path for _, path in changes if path.endswith(".py")}
            if is_loaded:
                changed &= self._files
                changed |= {file for file in self._files if _changed_at(file) > began}
            if changed and self._is_sound(changed):
                return
            began = time.time() if changed else began
            if not ended and worker.poll() is not None:
                ended = True
                self._say(
                    f"The worker has ended with code {worker.returncode}; it begins again when a Python file "
                    "changes. Ctrl+C ends this."
                )
        worker.wait()

    def _is_sound(self, changed: set[str]) -> bool:
        """Return whether all of the files can be compiled, and say what becomes of it."""
        for file in sorted(changed):
            try:
                source = Path(file).read_bytes()
                compile(source, file, "exec", dont_inherit=True)
            except FileNotFoundError:
                continue  # loading will tell
            except (SyntaxError, ValueError, OSError) as exc:
                self._say(f"{file} has changed and cannot be loaded; nothing is begun anew: {exc}")
                return False
        self._say(f"{', '.join(sorted(changed))} changed: the worker ends in good order and begins anew.")
        return True

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        if number != signal.SIGHUP:
            self._ends.set()
        if self._worker is not None and self._worker.poll() is None:
            self._worker.send_signal(number)


def _changed_at(file: str) -> float:
    try:
        return os.stat(file).st_mtime
    except OSError:
        return 0.0  # it is being replaced
