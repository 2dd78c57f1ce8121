"""Processes that fork while other threads are at work in them: their children work too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from servers import RedisServer

# A thread is in the middle of something when the main thread forks; it goes on while the fork waits.
BUSY = """
import os, signal, sys, threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # threads and forks do not mix, says Python 3.12
from celeriac import Celeriac, forklock
from celeriac.backends.memory import MemoryBackend

inside, forking = threading.Event(), threading.Event()

def hold():
    if threading.current_thread() is not threading.main_thread():
        inside.set()
        forking.wait()

{program}

busy = threading.Thread(target=work, daemon=True)
busy.start()
inside.wait(20)
{fork}
child = os.fork()
if child == 0:
    signal.alarm(20)
    os._exit(check())
print("child", os.waitpid(child, 0)[1])
"""

BACKEND = """
class Slow(MemoryBackend):
    @classmethod
    def from_spec(cls, spec):
        hold()
        return cls(spec)

app = Celeriac("proj", broker="memory://forks", backend=Slow)

def work():
    app.backend

def check():
    return 0 if app.backend is not None and app.client is not None else 1
"""

FINALIZING = """
app = Celeriac("proj", broker="memory://forks")

@app.on_after_finalize.connect
def declare(sender, **kwargs):
    hold()
    sender.declare(print, name="late")

def work():
    app.finalize()

def check():
    return 0 if "late" in app.tasks else 1
"""

SETTINGS = """
class Source:
    @property
    def task_default_queue(self):
        hold()
        return "special"

app = Celeriac("proj", broker="memory://forks")
app.config_from_object(Source())

def work():
    app.conf.task_default_queue

def check():
    return 0 if app.conf.task_default_queue == "special" else 1
"""


@pytest.mark.parametrize("program", [BACKEND, FINALIZING, SETTINGS], ids=["backend", "app", "settings"])
def test_a_fork_waits_for_what_another_thread_is_making(tmp_path: Path, program: str) -> None:
    fork = "os.register_at_fork(before=forking.set)"

    assert said(BUSY.format(program=program, fork=fork), tmp_path) == "child 0\n"


def test_a_child_makes_for_itself_what_its_parent_takes_too_long_to_make(tmp_path: Path) -> None:
    fork = "forklock.PATIENCE_SECONDS = 0.05"

    assert said(BUSY.format(program=BACKEND, fork=fork), tmp_path) == "child 0\n"


STRESS = """
import os, signal, sys, threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)
from celeriac import Celeriac
from celeriac.message import Outcome

app = Celeriac("proj", broker={url!r}, backend={url!r})

@app.task(name="nothing")
def nothing(): ...

def once(name):
    result = nothing.delay()
    app.backend.store([app.backend.encode(Outcome(id=result.id, state="SUCCESS", result=name))])
    assert result.get(timeout=20) == name

def work(name):
    while not stopping:
        once(name)
        if name == 0:
            app.close()  # the next one makes client, backend and transport anew

stopping = False
threads = [threading.Thread(target=work, args=(name,)) for name in range(3)]
for thread in threads:
    thread.start()
ended = []
for number in range(25):
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        once("child")
        os._exit(0)
    ended.append(os.waitpid(child, 0)[1])
stopping = True
for thread in threads:
    thread.join()
print(set(ended))
"""


@pytest.mark.parametrize("broker", ["sqlite", "redis"])
def test_children_send_and_wait_whatever_their_parents_threads_were_at(
    request: pytest.FixtureRequest, tmp_path: Path, broker: str
) -> None:
    url = f"sqlite:///{tmp_path}/queue.db"
    if broker == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        url = server.fresh_url()

    assert said(STRESS.format(url=url), tmp_path) == "{0}\n"


def said(program: str, folder: Path) -> str:
    ended = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_a_fork_waits_for_the_connection_of_a_handle_that_nobody_has_any_more(tmp_path: Path) -> None:
    # Given a handle whose connection takes its time to close
    program = f"""
import os, threading, time
from pathlib import Path
from celeriac.transports.sqlite import SqliteTransport
from celeriac.transports.sqlite_file import Handle, Location

class Slow:
    def close(self):
        closing.set()
        time.sleep(0.3)  # as a close that waits for the disk
        closed.append(True)

closing, closed = threading.Event(), []
location = Location(Path({str(tmp_path / "q.db")!r}))
handle = Handle(location, synchronous="off", unreachable=RuntimeError, failed=RuntimeError)
handle._line.connection = Slow()
handles = [handle]
del handle
thread = threading.Thread(target=handles.clear)

# When another thread lets go of it while this one forks
thread.start()
closing.wait()
child = os.fork()
if child == 0:
    os._exit(0 if closed else 1)
thread.join()
print(os.waitpid(child, 0)[1])
"""

    # Then the child is not made before it is closed
    assert said(program, tmp_path) == "0\n"


def test_a_fork_does_not_wait_for_a_thread_that_lets_go_of_a_handle_while_it_uses_another(
    tmp_path: Path,
) -> None:
    # Given a thread that is in the file when another one begins to fork
    program = f"""
import os, signal, threading
from pathlib import Path
from celeriac.transports import sqlite_file
from celeriac.transports.sqlite_file import Handle, Location

signal.alarm(20)
location = Location(Path({str(tmp_path / "q.db")!r}))
handles = [
    Handle(location, synchronous="off", unreachable=RuntimeError, failed=RuntimeError) for _ in range(2)
]
inside = threading.Event()

def work(connection):
    inside.set()
    while sqlite_file._adding.acquire(0):
        sqlite_file._adding.release()
    # When it lets go of a handle there, as the garbage collector may do anywhere
    handles.pop()

thread = threading.Thread(target=lambda: handles[0].write(work, 10.0))
thread.start()
inside.wait()
child = os.fork()
if child == 0:
    os._exit(len(handles) - 1)
thread.join()
print(os.waitpid(child, 0)[1])
"""

    # Then both go on
    assert said(program, tmp_path) == "0\n"
