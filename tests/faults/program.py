"""The program under test: plain Celery, run by ours and by real Celery. Its tasks write the ledger.

The environment says where: FAULTS_FOLDER, FAULTS_BROKER, FAULTS_RESULTS, and FAULTS_SETTINGS (JSON).
"""

import ctypes
import json
import os
import signal
import socket
import threading
import time
from pathlib import Path

from celery import Celery
from faults.ledger import Ledger
from faults.memory_limit import limit_this_process

FOLDER = Path(os.environ["FAULTS_FOLDER"])
GO = FOLDER / "go"  # tasks that are held go on when it is there
HOSTS = FOLDER / "hosts"  # the address of broker.test, or nothing while names cannot be resolved
LOOK_SECONDS = 0.02

ledger = Ledger(FOLDER / "ledger")

app = Celery("faults", broker=os.environ["FAULTS_BROKER"], backend=os.environ.get("FAULTS_RESULTS") or None)
app.conf.update(json.loads(os.environ.get("FAULTS_SETTINGS", "{}")))


def hold():
    """Wait until the test says go."""
    while not GO.exists():
        time.sleep(LOOK_SECONDS)


def kill(number):
    """Let a signal end this process, without a core dump on the disk."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.kill(os.getpid(), number)
    time.sleep(60)


def kill_once(task_id):
    """Kill this process in the first run."""
    try:
        (FOLDER / f"killed-{task_id}").touch(exist_ok=False)
    except FileExistsError:
        return
    kill(signal.SIGKILL)


def segfault():
    """Read where nothing is."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.string_at(0)


_leaks: list[object] = []


def leak():
    """Keep 8 MB and a descriptor for good."""
    _leaks.append((bytearray(8_000_000), os.open(os.devnull, os.O_RDONLY)))


DEAF_SECONDS = 20  # far beyond the limits of who is deaf
BLOCKED_SECONDS = 6  # two leases
DOOMED_SECONDS = 0.05


def sleep_in_c(seconds):
    """Sleep where no bytecode is run, with all signals blocked that can be."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        ctypes.CDLL(None).poll(None, 0, int(seconds * 1000))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


MEMORY_BYTES = 100_000_000


def use_up_memory():
    """Have the system kill this process for its use of memory; where that cannot be had, do what it does."""
    try:
        limit_this_process(MEMORY_BYTES)
    except OSError:
        kill(signal.SIGKILL)
    _leaks.extend(bytearray(b"x" * 10_000_000) for _ in range(100))


HOWS = {
    "quick": lambda _: None,
    "hold": lambda _: hold(),
    "nap": lambda _: time.sleep(0.05),
    "kill": lambda _: kill(signal.SIGKILL),
    "kill-once": kill_once,
    "abort": lambda _: os.abort(),
    "exit": lambda _: os._exit(3),
    "segfault": lambda _: segfault(),
    "leak": lambda _: leak(),
    "deaf": lambda _: sleep_in_c(DEAF_SECONDS),
    "block": lambda _: sleep_in_c(BLOCKED_SECONDS),
    "doomed": lambda _: time.sleep(DOOMED_SECONDS),
    "spared": lambda _: time.sleep(DOOMED_SECONDS),
    "oom": lambda _: use_up_memory(),
}


def run(request, how):
    """Write that it begins, do what is asked, write that it is done."""
    info = request.delivery_info or {}
    ledger.write(
        "start",
        request.id,
        attempt=getattr(request, "attempt", None) or 0,
        redelivered=bool(info.get("redelivered")),
    )
    HOWS[how](request.id)
    ledger.write("end", request.id)
    return how


@app.task(name="faults.work", bind=True)
def work(self, how="quick"):
    """Work."""
    return run(self.request, how)


@app.task(name="faults.await", bind=True)
async def await_(self, how="quick"):
    """Work on the loop of a pool that has one, and block it."""
    return run(self.request, how)


@app.task(name="faults.pass_on", bind=True)
def pass_on(self, key):
    """Send another task from inside of a task."""
    ledger.write(
        "start", self.request.id, redelivered=bool((self.request.delivery_info or {}).get("redelivered"))
    )
    ledger.write("intent", key)
    app.send_task("faults.work", task_id=key)
    ledger.write("confirmed", key)
    ledger.write("end", self.request.id)


if os.environ.get("FAULTS_THREADS"):
    # What imports of user programs do: threads, locks that they hold, open connections.
    _lock = threading.Lock()

    def _hold_lock():
        while True:
            with _lock:
                time.sleep(0.005)

    for _ in range(4):
        threading.Thread(target=_hold_lock, daemon=True).start()
    app.send_task("faults.nothing", queue="nobody")  # the client of this process is connected before the fork

if os.environ.get("FAULTS_HOSTS"):
    _getaddrinfo = socket.getaddrinfo

    def _resolve(host, *args, **kwargs):
        if host in ("broker.test", b"broker.test"):
            host = HOSTS.read_text().strip()
            if not host:
                raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return _getaddrinfo(host, *args, **kwargs)

    socket.getaddrinfo = _resolve
