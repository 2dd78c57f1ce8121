"""The app that is meant where none is named."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import celeriac.app
import celeriac.result
import celery
import celery.app
from celery import Celery, bugreport, current_app, current_task, shared_task
from celery._state import get_current_app, get_current_worker_task, set_default_app


def in_thread(call: Callable[[], Any]) -> Any:
    """Return what a call returns in a thread of its own."""
    seen: list[Any] = []
    thread = threading.Thread(target=lambda: seen.append(call()))
    thread.start()
    thread.join()
    return seen[0]


def run(code: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a folder."""
    paths = os.pathsep.join(sys.path)
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": paths, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_app_is_the_cores_own_class() -> None:
    assert Celery is celeriac.app.Celeriac
    assert celery.app.Celery is Celery


def test_the_app_made_last_is_current_unless_it_does_not_want_to_be() -> None:
    Celery("first")
    second = Celery("second")
    Celery("third", set_as_current=False)

    assert get_current_app() is second
    assert current_app.main == "second"
    assert isinstance(current_app, Celery)
    assert celery.app.app_or_default() is second


def test_an_app_can_be_made_current_again() -> None:
    first, second = Celery("first"), Celery("second")

    first.set_current()  # type: ignore[attr-defined]  # the drop-in adds it

    assert get_current_app() is first
    assert celery.app.app_or_default(second) is second


def test_every_thread_has_a_current_app_of_its_own() -> None:
    first = Celery("first")

    def make() -> Celery:
        made = Celery("in the thread")
        assert get_current_app() is made
        return made

    made = in_thread(make)

    assert get_current_app() is first
    assert made is not first


def test_threads_that_made_no_app_get_the_default_one_or_the_latest() -> None:
    first, second = Celery("first"), Celery("second")
    latest = in_thread(get_current_app)

    first.set_default()  # type: ignore[attr-defined]  # the drop-in adds it

    assert latest is second
    assert in_thread(get_current_app) is first
    set_default_app(None)


@pytest.mark.parametrize(
    ("file", "text", "environment", "printed"),
    [
        ("celeryconfig.py", "task_default_queue = 'from-the-file'", {}, "default from-the-file True"),
        ("other.py", "CELERY_DEFAULT_QUEUE = 'o'", {"CELERY_CONFIG_MODULE": "other"}, "default o True"),
        ("unrelated.py", "", {}, "default celery True"),
    ],
)
def test_without_any_app_one_is_made_that_reads_celeryconfig(
    tmp_path: Path, file: str, text: str, environment: dict[str, str], printed: str
) -> None:
    (tmp_path / file).write_text(f"{text}\n")

    done = run(
        "from celery import current_app as app; from celery._state import get_current_app as get\n"
        "print(app.main, app.conf.task_default_queue, get() is get())",
        tmp_path,
        **environment,
    )

    assert (done.stdout.strip(), done.stderr) == (printed, "")


def test_a_mistake_in_celeryconfig_is_not_hidden(tmp_path: Path) -> None:
    (tmp_path / "celeryconfig.py").write_text("import a_package_that_is_missing\n")

    done = run("from celery import current_app; current_app.conf.task_default_queue", tmp_path)

    assert "No module named 'a_package_that_is_missing'" in done.stderr


def test_results_without_an_app_belong_to_the_current_one() -> None:
    app = Celery("app")

    assert celeriac.result.AsyncResult("id").app in (None, app)


def test_the_running_task_is_the_current_task() -> None:
    app = Celery("app", broker="memory://current-task")

    @app.task
    def look() -> tuple[Any, Any]:
        return current_task.name, get_current_worker_task()

    assert not current_task
    assert look() == (look.name, None)
    assert look.apply().get() == (look.name, look)


# --- shared tasks ------------------------------------------------------------------------------


def test_a_shared_task_is_one_of_every_app_made_before_and_after() -> None:
    before = Celery("before", broker="memory://before")
    before.finalize()

    @shared_task(name="shared.add", rate_limit="10/m")
    def add(x: int, y: int) -> int:
        return x + y

    after = Celery("after", broker="memory://after")

    assert before.tasks["shared.add"] is not after.tasks["shared.add"]
    assert [app.tasks["shared.add"].app for app in (before, after)] == [before, after]
    assert after.tasks["shared.add"].rate_limit == "10/m"


def test_a_shared_task_stands_for_that_of_the_current_app() -> None:
    first = Celery("first", broker="memory://shared-first")

    @shared_task
    def add(x: int, y: int) -> int:
        """Add."""
        return x + y

    assert add.app is first
    assert add.name == f"{__name__}.add"
    assert add.__doc__ == "Add."
    assert isinstance(add, celery.Task)
    assert add(1, 2) == 3

    second = Celery("second", broker="memory://shared-second")
    add.delay(1, 2)

    assert add.app is second
    assert (first.transport.size("celery"), second.transport.size("celery")) == (0, 1)


def test_a_task_of_one_app_is_one_of_the_others_too_unless_it_says_no() -> None:
    other = Celery("other")
    other.finalize()
    app = Celery("app")

    @app.task(name="mine")
    def mine() -> None: ...

    @app.task(name="private", shared=False)
    def private() -> None: ...

    assert "mine" in other.tasks
    assert "private" not in other.tasks
    assert other.tasks["mine"].app is other
    assert app.tasks["mine"] is mine


def test_a_shared_task_can_be_bound() -> None:
    app = Celery("app")

    @shared_task(bind=True)
    def who(self: Any, x: int) -> tuple[Any, int]:
        return self.app, x

    assert who(3) == (app, 3)


def test_what_is_no_function_cannot_be_shared() -> None:
    with pytest.raises(TypeError, match="must be a callable"):
        shared_task(5)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="takes one argument"):
        shared_task(len, len)  # type: ignore[call-overload]


def test_the_decorators_of_old_are_shared_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    from celery.decorators import task
    from celery.task import task as other

    @task
    def add(x: int, y: int) -> int:
        return x + y

    @other()
    def double(x: int) -> int:
        return 2 * x

    app = Celery("app")

    assert {add.name, double.name} <= set(app.tasks)
    assert (add(1, 2), double(2)) == (3, 4)


# --- settings ------------------------------------------------------------------------------------


def test_misspelt_settings_are_logged_not_raised(caplog: pytest.LogCaptureFixture) -> None:
    app = Celery("app", task_serialiser="yaml")

    assert app.conf.task_serializer == "json"
    assert "did you mean 'task_serializer'" in caplog.text


def test_all_apps_share_the_signals_of_the_process() -> None:
    from celery.signals import before_task_publish

    seen: list[str] = []
    before_task_publish.connect(lambda sender=None, **_: seen.append(sender), weak=False)

    for name in ("one", "two"):
        Celery(name, broker=f"memory://signals-{name}").send_task(f"task-of-{name}")

    assert seen == ["task-of-one", "task-of-two"]


def test_a_report_names_the_loader() -> None:
    app = Celery("reported", broker="memory://", set_as_current=False)

    assert "\nloader   -> celery.loaders.app.AppLoader\n" in bugreport(app)
    assert app.bugreport() == bugreport(app)
