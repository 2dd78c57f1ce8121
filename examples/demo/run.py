"""The main job, with nothing set up before: slow pages, then a thousand files, through a queue.

Starts a worker with five processes on the embedded broker, shows what happens, and leaves nothing behind.
"""

import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

HERE = Path(__file__).resolve().parent
PROCESSES = 5

console = Console()


def main() -> int:
    """Run the demo and return its exit code."""
    with tempfile.TemporaryDirectory(prefix="celeriac-demo-") as folder:
        os.environ["XDG_STATE_HOME"] = folder  # the embedded broker's file goes here, and away with it
        sys.path.insert(0, str(HERE))
        import site_of_pages
        import tasks

        table = Table(title="What the demo did", title_justify="left")
        for heading in ("job", "items", "one by one", "through the queue", "faster"):
            table.add_column(heading, justify="left" if heading == "job" else "right")
        with site_of_pages.Site() as site, worker(Path(folder)):
            fetch_pages(tasks, site.urls, table)
            count_modules(tasks, standard_library(), table)
        tasks.app.close()
        console.print()
        console.print(table)
        console.print("Next: [bold]README.md[/] shows the ten lines that your own program needs.")
    return 0


@contextmanager
def worker(folder: Path) -> Iterator[None]:
    """Run a worker for as long as the block takes."""
    command = [sys.executable, "-m", "celeriac", "-A", "tasks", "worker", "-c", str(PROCESSES), "-l", "INFO"]
    console.print(f"[dim]$ celeriac -A tasks worker -c {PROCESSES}[/]")
    log = folder / "worker.log"
    with log.open("wb") as output:
        # In a group of its own: Ctrl+C is for the demo, which then stops the worker.
        process = subprocess.Popen(
            command, cwd=HERE, stdout=output, stderr=subprocess.STDOUT, process_group=0
        )
    try:
        began = time.perf_counter()
        while b" ready." not in log.read_bytes():
            if process.poll() is not None or time.perf_counter() - began > 30:
                raise SystemExit(f"The worker did not start:\n{log.read_text()}")
            time.sleep(0.02)
        console.print(f"[dim]the worker was ready after {time.perf_counter() - began:.2f} s[/]\n")
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(timeout=30)
        if code:
            console.print(f"The worker ended with code {code}:\n{log.read_text()}")


def fetch_pages(tasks, urls: list[str], table: Table) -> None:
    """Fetch slow pages one after another, then all at once through the queue."""
    with bar() as progress:
        began = time.perf_counter()
        for url in progress.track(urls, description="slow pages, one after another"):
            tasks.fetch(url)
        alone = time.perf_counter() - began

        began = time.perf_counter()
        results = [tasks.fetch.delay(url) for url in urls]
        for result in progress.track(results, description="slow pages, through the queue"):
            title, size = result.get(timeout=60)
            assert size > 0 and title, "a page came back empty"
        queued = time.perf_counter() - began
    add_row(table, "fetch slow pages", len(urls), alone, queued)


def count_modules(tasks, paths: list[str], table: Table) -> None:
    """Count every module of the standard library: a group of tasks, and one that adds up behind it."""
    from celeriac import chain, group

    with bar() as progress:
        began = time.perf_counter()
        expected = tasks.add_up(
            [tasks.count(path) for path in progress.track(paths, description="modules, one by one")]
        )
        alone = time.perf_counter() - began

        began = time.perf_counter()
        workflow = chain(group(tasks.count.s(path) for path in paths), tasks.add_up.s())
        total = workflow.apply_async()
        shown = progress.add_task("modules, through the queue", total=len(paths))
        while not total.ready():
            progress.update(shown, completed=total.parent.completed_count())
            time.sleep(0.25)
        counted = total.get(timeout=60)
        progress.update(shown, completed=len(paths))
        queued = time.perf_counter() - began
    assert counted == expected, "the queue lost or doubled something"
    add_row(table, "count the standard library", len(paths), alone, queued)
    console.print(
        f"The standard library has {counted['lines']:,} lines, {counted['functions']:,} functions and "
        f"{counted['classes']:,} classes in {counted['modules']:,} modules."
    )


def standard_library() -> list[str]:
    """Return the path of every module of the standard library that this Python can parse."""
    root = Path(sysconfig.get_path("stdlib"))
    skipped = {"site-packages", "dist-packages", "__pycache__", "test", "tests", "lib2to3", "idlelib"}
    return [
        str(path) for path in sorted(root.rglob("*.py")) if not skipped & set(path.relative_to(root).parts)
    ]


def bar() -> Progress:
    """Return a progress bar with counts and times."""
    columns = (TextColumn("{task.description:32}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console)


def add_row(table: Table, job: str, items: int, alone: float, queued: float) -> None:
    """Add what a job took to the table."""
    table.add_row(job, f"{items:,}", f"{alone:.1f} s", f"{queued:.1f} s", f"{alone / queued:.1f} x")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        console.print("\nStopped; nothing is left running.")
        sys.exit(128 + signal.SIGINT)
