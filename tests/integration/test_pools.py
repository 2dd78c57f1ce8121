"""What every pool does alike, seen by who calls tasks; one worker of each kind runs for all the tests."""

from __future__ import annotations

import functools
import importlib.util
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from celeriac import states
from celeriac.canvas import chain, chord, group
from celeriac.errors import SoftTimeLimitExceeded, TaskRevokedError, TimeLimitExceeded
from processes import Program, user_environment
from worker_program import TIMEOUT, until

PROJECT = """
import asyncio
import signal
import time
from pathlib import Path
from celeriac.app import Celeriac
from celeriac.errors import SoftTimeLimitExceeded

HERE = Path(__file__).parent
app = Celeriac("proj", broker="sqlite:///URL", backend="sqlite:///URL", set_as_current=False)
app.conf.worker_lease_seconds = 1.5

def trace(name):
    with (HERE / name).open("a") as file:
        file.write("x")

def traced(name):
    return lambda **_: trace(name)

for hook in ("worker_process_init", "worker_init", "worker_ready", "worker_shutdown"):
    getattr(app.hooks, hook).connect(traced(hook), weak=False)
for phase in ("started", "preshutdown", "postshutdown", "apply"):
    app.hooks.get(f"eventlet_pool_{phase}").connect(traced(f"eventlet-{phase}"), weak=False)
for hook in ("task_prerun", "task_postrun", "task_success", "task_failure", "task_retry"):
    def on(sender=None, hook=hook, **_):
        trace(f"{hook}-{sender.request.id}")
    getattr(app.hooks, hook).connect(on, weak=False)

@app.task(name="proj.add")
def add(x, y):
    return x + y

@app.task(name="proj.total")
def total(numbers):
    return sum(numbers)

@app.task(name="proj.fail")
def fail(text):
    raise LookupError(text)

@app.task(name="proj.again", bind=True, max_retries=2)
def again(self):
    if self.request.retries < 2:
        raise self.retry(countdown=0)
    return self.request.retries

@app.task(name="proj.whoami", bind=True)
def whoami(self):
    return self.request.id

@app.task(name="proj.wait")
def wait(name, go="go"):
    trace(f"{name}-begun")
    while not (HERE / go).exists():
        time.sleep(0.01)
    trace(f"{name}-done")
    return name

@app.task(name="proj.stuck")
def stuck(seconds):
    trace("stuck-begun")
    time.sleep(seconds)  # one call, in C
    return seconds

@app.task(name="proj.deaf")
def deaf():
    trace("deaf-begun")
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    time.sleep(120)  # and no signal ends it, as in much of what is written in C

@app.task(name="proj.busy")
def busy():
    try:
        while True:
            pass
    except SoftTimeLimitExceeded:
        return "cleaned up"

@app.task(name="proj.abusy")
async def abusy():
    return busy()

@app.task(name="proj.leave")
def leave():
    raise SystemExit(3)

@app.task(name="proj.anap")
async def anap(seconds):
    await asyncio.sleep(seconds)
    return seconds

@app.task(name="proj.aadd")
async def aadd(x, y):
    await asyncio.sleep(0)
    return x + y

@app.task(name="proj.afail")
async def afail(text):
    raise LookupError(text)

@app.task(name="proj.awhoami", bind=True)
async def awhoami(self):
    await asyncio.sleep(0.01)
    return self.request.id

@app.task(name="proj.aagain", bind=True, max_retries=2)
async def aagain(self):
    if self.request.retries < 2:
        raise self.retry(countdown=0)
    return self.request.retries

@app.task(name="proj.agives_up", soft_time_limit=0.3)
async def agives_up():
    try:
        await asyncio.sleep(60)
    except SoftTimeLimitExceeded:
        return "cleaned up"

@app.task(name="proj.ablocks")
async def ablocks():
    trace("ablocks-begun")
    return sum(range(10**12))  # one call in C that keeps everybody else from running

@app.task(name="proj.acancelled")
async def acancelled(name):
    trace(f"{name}-begun")
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        trace(f"{name}-cancelled")
        raise

@app.task(name="proj.alate", acks_late=True)
async def alate(name):
    trace(f"{name}-begun")
    while not (HERE / "go").exists():
        await asyncio.sleep(0.01)
    return name
"""

KINDS = ["prefork", "threads", "solo", "asyncio", "gevent", "eventlet"]
SLOTS = {"solo": 1}  # others have four


def needs(kind: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(
        kind in ("gevent", "eventlet") and importlib.util.find_spec(kind) is None, reason=f"needs {kind}"
    )


def of_kinds(*kinds: str) -> pytest.MarkDecorator:
    """Run a test with the worker of each kind; those of one kind in the same process of the test run."""
    return pytest.mark.parametrize(
        "worker",
        [pytest.param(k, marks=[needs(k), pytest.mark.together(f"pool-{k}")], id=k) for k in kinds],
        indirect=True,
    )


class Running:
    """A worker, its project, and the folder in which tasks leave traces."""

    def __init__(self, kind: str, home: Path, *options: str, **environment: str) -> None:
        self.kind = kind
        self.home = home
        self._options = options or ("-c", str(SLOTS.get(kind, 4)))
        self._environment = environment
        (home / "proj.py").write_text(PROJECT.replace("URL", f"{home}/q.db"))
        spec = importlib.util.spec_from_file_location("proj", home / "proj.py")
        assert spec is not None
        assert spec.loader is not None
        self.proj: ModuleType = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.proj)
        self.program: Program = self.start()

    def start(self) -> Program:
        command = [sys.executable, "-m", "celeriac", "-A", "proj", "worker", "-P", self.kind, "-l", "INFO"]
        environment = user_environment(self.home, **self._environment)
        program = Program([*command, *self._options], cwd=self.home, env=environment)
        program.wait_for(r"ready\.")
        return program

    def traces(self, name: str) -> int:
        path = self.home / name
        return len(path.read_text()) if path.exists() else 0

    def has_traced(self, name: str, times: int) -> bool:
        return self.traces(name) == times

    def begun(self, name: str) -> None:
        until(lambda: self.traces(f"{name}-begun") > 0)

    def allow(self, name: str) -> None:
        (self.home / name).touch()


@pytest.fixture(scope="module")
def worker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = Running(request.param, tmp_path_factory.mktemp(request.param))
    yield running
    running.proj.app.close()
    running.program.end()


@of_kinds(*KINDS)
def test_results_and_errors_come_back(worker: Running) -> None:
    value, error = worker.proj.add.delay(1, 2), worker.proj.fail.delay("nothing there")

    assert value.get(timeout=TIMEOUT) == 3
    with pytest.raises(LookupError, match="nothing there"):
        error.get(timeout=TIMEOUT)
    assert error.state == states.FAILURE


@of_kinds(*KINDS)
def test_each_of_many_tasks_knows_its_own_request(worker: Running) -> None:
    results = [worker.proj.whoami.delay() for _ in range(100)]

    assert [result.get(timeout=TIMEOUT) for result in results] == [result.id for result in results]


@of_kinds(*KINDS)
def test_a_task_is_retried(worker: Running) -> None:
    assert worker.proj.again.delay().get(timeout=TIMEOUT) == 2


@of_kinds(*KINDS)
def test_workflows_run(worker: Running) -> None:
    proj = worker.proj
    add, total = proj.add, proj.total

    assert chain(add.s(1, 2), add.s(3), add.s(4)).delay().get(timeout=TIMEOUT) == 10
    assert group([add.s(n, n) for n in range(4)]).delay().get(timeout=TIMEOUT) == [0, 2, 4, 6]
    assert chord([add.s(n, n) for n in range(4)])(total.s()).get(timeout=TIMEOUT) == 12


@of_kinds(*KINDS)
def test_hooks_are_called_once_for_each_run(worker: Running) -> None:
    value, error, retried = (
        worker.proj.add.delay(1, 2),
        worker.proj.fail.delay("x"),
        worker.proj.again.delay(),
    )
    assert value.get(timeout=TIMEOUT) == 3
    with pytest.raises(LookupError):
        error.get(timeout=TIMEOUT)
    assert retried.get(timeout=TIMEOUT) == 2

    for result, hooks in (
        (value, {"task_prerun": 1, "task_postrun": 1, "task_success": 1, "task_failure": 0}),
        (error, {"task_prerun": 1, "task_postrun": 1, "task_success": 0, "task_failure": 1}),
        (retried, {"task_prerun": 3, "task_postrun": 3, "task_success": 1, "task_retry": 2}),
    ):
        for hook, times in hooks.items():
            name = f"{hook}-{result.id}"
            until(functools.partial(worker.has_traced, name, times))


@of_kinds(*KINDS)
def test_the_soft_limit_raises_in_a_task_that_keeps_the_processor(worker: Running) -> None:
    assert worker.proj.busy.apply_async(soft_time_limit=0.5).get(timeout=TIMEOUT) == "cleaned up"


@of_kinds(*KINDS)
def test_the_hard_limit_ends_a_task_in_c_code_and_no_other(worker: Running) -> None:
    others = [
        worker.proj.wait.delay(f"innocent{n}", "innocents") for n in range(SLOTS.get(worker.kind, 4) - 1)
    ]
    for n in range(len(others)):
        worker.begun(f"innocent{n}")

    stuck = worker.proj.stuck.apply_async((120,), time_limit=0.5)
    with pytest.raises(TimeLimitExceeded):
        stuck.get(timeout=TIMEOUT)
    after = worker.proj.add.delay(1, 2)

    assert after.get(timeout=TIMEOUT) == 3
    worker.allow("innocents")
    assert [other.get(timeout=TIMEOUT) for other in others] == [f"innocent{n}" for n in range(len(others))]
    assert [worker.traces(f"innocent{n}-begun") for n in range(len(others))] == [1] * len(others)


@of_kinds("solo")
def test_a_worker_whose_only_slot_does_not_end_begins_anew_and_what_waits_runs(worker: Running) -> None:
    stuck = worker.proj.deaf.apply_async(time_limit=0.3)
    worker.begun("deaf")
    innocent = [worker.proj.add.delay(number, 0) for number in range(3)]

    with pytest.raises(TimeLimitExceeded):
        stuck.get(timeout=TIMEOUT)

    assert [result.get(timeout=TIMEOUT) for result in innocent] == [0, 1, 2]
    assert worker.traces("deaf-begun") == 1


@of_kinds(*KINDS)
def test_a_running_task_can_be_terminated(worker: Running) -> None:
    running = worker.proj.wait.delay(f"victim-{worker.kind}", "never")
    worker.begun(f"victim-{worker.kind}")

    running.revoke(terminate=True)

    with pytest.raises(TaskRevokedError, match="terminated"):
        running.get(timeout=TIMEOUT)
    assert running.state == states.REVOKED
    assert worker.proj.add.delay(1, 2).get(timeout=TIMEOUT) == 3
    assert worker.traces(f"victim-{worker.kind}-done") == 0


@of_kinds(*KINDS)
def test_a_task_that_exits_is_lost_and_the_pool_goes_on(worker: Running) -> None:
    left = worker.proj.leave.delay()

    with pytest.raises(Exception, match="exitcode 3"):
        left.get(timeout=TIMEOUT)
    assert worker.proj.add.delay(1, 2).get(timeout=TIMEOUT) == 3


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=needs(kind)) for kind in KINDS])
def test_term_lets_what_runs_end_and_hands_the_rest_back(kind: str, tmp_path: Path) -> None:
    worker = Running(kind, tmp_path)
    results = [worker.proj.wait.delay("first"), *[worker.proj.wait.delay(f"more{n}") for n in range(8)]]
    worker.begun("first")

    worker.program.signal(signal.SIGTERM)
    worker.program.wait_for("Warm shutdown")
    worker.allow("go")

    assert worker.program.finish() == 0
    assert results[0].get(timeout=TIMEOUT) == "first"
    worker.program.end()
    worker.program = worker.start()
    assert len([result.get(timeout=TIMEOUT) for result in results]) == 9
    assert worker.traces("first-begun") == 1
    assert all(worker.traces(f"more{n}-begun") == 1 for n in range(8))
    assert [worker.traces(hook) for hook in ("worker_init", "worker_ready")] == [2, 2]
    ended = [worker.traces(f"eventlet-{moment}") for moment in ("preshutdown", "postshutdown")]
    assert ended == ([1, 1] if kind == "eventlet" else [0, 0])
    worker.program.end()
    worker.proj.app.close()


# --- coroutines ---------------------------------------------------------------------------------------


@of_kinds("prefork", "threads", "solo", "asyncio")
def test_coroutines_are_run_and_retried_and_fail(worker: Running) -> None:
    proj = worker.proj
    assert proj.aadd.delay(1, 2).get(timeout=TIMEOUT) == 3
    assert proj.aagain.delay().get(timeout=TIMEOUT) == 2
    assert proj.agives_up.delay().get(timeout=TIMEOUT) == "cleaned up"
    assert chain(proj.aadd.s(1, 2), proj.add.s(3), proj.aadd.s(4)).delay().get(timeout=TIMEOUT) == 10
    with pytest.raises(LookupError, match="no"):
        proj.afail.delay("no").get(timeout=TIMEOUT)


@of_kinds("gevent", "eventlet")
def test_the_signals_of_the_eventlet_pool_are_sent_by_that_alone(worker: Running) -> None:
    assert worker.proj.add.delay(1, 2).get(timeout=TIMEOUT) == 3

    is_eventlets = worker.kind == "eventlet"
    assert (worker.traces("eventlet-started") > 0) is is_eventlets
    assert (worker.traces("eventlet-apply") > 0) is is_eventlets
    assert worker.traces("eventlet-preshutdown") == 0


@of_kinds("gevent", "eventlet")
def test_a_coroutine_among_greenlets_is_refused_with_the_pools_that_run_it(worker: Running) -> None:
    with pytest.raises(Exception, match="-P asyncio"):
        worker.proj.aadd.delay(1, 2).get(timeout=TIMEOUT)


@of_kinds("asyncio")
def test_coroutines_that_run_at_once_know_their_own_requests(worker: Running) -> None:
    results = [worker.proj.awhoami.delay() for _ in range(100)]

    assert [result.get(timeout=TIMEOUT) for result in results] == [result.id for result in results]


@of_kinds("threads", "solo", "asyncio")
def test_a_terminated_coroutine_sees_its_cancellation(worker: Running) -> None:
    running = worker.proj.acancelled.delay("revoked")
    worker.begun("revoked")

    running.revoke(terminate=True)

    with pytest.raises(TaskRevokedError):
        running.get(timeout=TIMEOUT)
    until(lambda: worker.traces("revoked-cancelled") == 1)
    assert worker.proj.aadd.delay(1, 2).get(timeout=TIMEOUT) == 3


@of_kinds("threads", "solo", "asyncio")
def test_a_coroutine_past_its_hard_limit_sees_its_cancellation(worker: Running) -> None:
    late = worker.proj.acancelled.apply_async(("late",), time_limit=1.0)

    with pytest.raises(TimeLimitExceeded):
        late.get(timeout=TIMEOUT)
    until(lambda: worker.traces("late-cancelled") == 1)


@of_kinds("prefork", "solo", "asyncio")
def test_the_soft_limit_raises_in_a_coroutine_that_keeps_the_processor(worker: Running) -> None:
    assert worker.proj.abusy.apply_async(soft_time_limit=0.3).get(timeout=TIMEOUT) == "cleaned up"


@of_kinds("asyncio")
def test_a_coroutine_without_a_handler_fails_at_its_soft_limit(worker: Running) -> None:
    with pytest.raises(SoftTimeLimitExceeded):
        worker.proj.anap.apply_async((60,), soft_time_limit=0.3).get(timeout=TIMEOUT)


@of_kinds("asyncio")
def test_a_process_that_one_task_blocks_is_renewed_and_late_tasks_run_again(worker: Running) -> None:
    (worker.home / "go").unlink(missing_ok=True)
    innocent = worker.proj.alate.delay("blocked")
    worker.begun("blocked")

    guilty = worker.proj.ablocks.apply_async(time_limit=1)

    with pytest.raises(TimeLimitExceeded):
        guilty.get(timeout=TIMEOUT)
    worker.allow("go")
    assert innocent.get(timeout=TIMEOUT) == "blocked"
    assert worker.traces("blocked-begun") == 2
    assert worker.proj.aadd.delay(1, 2).get(timeout=TIMEOUT) == 3


# --- autoscale ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["prefork", "threads", "asyncio"])
def test_slots_are_added_for_what_waits_and_go_when_they_are_not_needed(kind: str, tmp_path: Path) -> None:
    worker = Running(kind, tmp_path, "--autoscale", "4,1", AUTOSCALE_KEEPALIVE="0.3")
    results = [worker.proj.wait.delay(f"w{n}") for n in range(4)]

    for n in range(4):
        worker.begun(f"w{n}")  # so all at once
    worker.allow("go")

    assert len([result.get(timeout=TIMEOUT) for result in results]) == 4
    worker.program.wait_for("Scaling down")
    assert worker.program.stop() == 0
    worker.program.end()
    worker.proj.app.close()
