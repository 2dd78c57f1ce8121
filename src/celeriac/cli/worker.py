"""``celery worker``: run tasks."""

from __future__ import annotations

import datetime
import importlib
import logging
import os
import socket
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import click

from celeriac import addresses
from celeriac.app import Celeriac
from celeriac.cli import daemon, logs
from celeriac.cli.added import take_added
from celeriac.cli.banner import BannerFacts, render
from celeriac.cli.context import CLIContext
from celeriac.cli.detach import detach
from celeriac.cli.pidfile import EX_CANTCREAT, locked
from celeriac.errors import ConfigError, QueueNotFound
from celeriac.node.options import NodeOptions
from celeriac.node.worker import Worker, own_program
from celeriac.pools.base import nothing
from celeriac.pools.prefork.spawned import invitation

logger: logging.Logger = logging.getLogger("celery.worker")


class CommaSeparated(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.2 on only
    """Names separated by commas."""

    name = "names"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:  # Any: str or tuple
        """Return the names as a tuple."""
        if isinstance(value, tuple):
            return value
        return tuple(name for name in (part.strip() for part in value.split(",")) if name)


class Autoscale(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.2 on only
    """Two numbers of slots, ``most,fewest``; the second is 1 when it is left out."""

    name = "max,min"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:  # Any: str or tuple
        """Return the two numbers."""
        if isinstance(value, tuple):
            return value
        try:
            numbers = [int(part) for part in value.split(",")]
            most, fewest = numbers if len(numbers) > 1 else (numbers[0], 1)
        except ValueError:
            self.fail(f"{value!r} is not two numbers, such as 10,3.", param, ctx)
        if most < 1 or fewest < 0:
            self.fail(f"{value!r}: there has to be at least one slot.", param, ctx)
        if fewest > most:
            self.fail(
                f"{value!r} is reversed: the most slots come first, such as {fewest},{most}.", param, ctx
            )
        return most, max(fewest, 1)  # Celery takes 0 as well, and has one process then


class LogLevel(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.2 on only
    """A log level by name, in any case, or number."""

    name = "level"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:  # Any: str or int
        """Return the level's number."""
        try:
            return logs.level_of(value)
        except ValueError as exc:
            self.fail(str(exc), param, ctx)


def node_name(given: str | None) -> str:
    """Return a node's name: ``%h`` is the host, ``%n`` its first part, ``%d`` its domain, ``%%`` a percent.

    Args:
        given: What ``-n`` said; a name without ``@`` is the host's part.
    """
    host = socket.gethostname()
    short, _, domain = host.partition(".")
    if not given:
        return f"celery@{host}"
    name = given if "@" in given else f"celery@{given}"
    return expand(name, {"h": host, "n": short, "d": domain})


def expand(text: str, values: dict[str, str]) -> str:
    """Replace ``%x`` by its value for each known ``x``, and ``%%`` by ``%``."""
    parts = text.split("%%")
    for letter, value in values.items():
        parts = [part.replace(f"%{letter}", value) for part in parts]
    return "%".join(parts)


def file_name(path: str | None, node: str, place: int = 0) -> str | None:
    """Return the path of a log or pid file with the node's name put in.

    ``%n`` is the part before the ``@``, ``%h`` the host, ``%d`` its domain, ``%p`` the whole name; ``%i`` is
    the process's place in the pool, 0 in the main process, ``%I`` the same behind a dash, empty there.
    """
    if not path:
        return None
    name, _, host = node.partition("@")
    domain = host.partition(".")[2]
    values = {"n": name, "h": host, "d": domain, "p": node}
    return expand(path, {**values, "i": str(place), "I": f"-{place}" if place else ""})


@click.command("worker", context_settings={"auto_envvar_prefix": "CELERY_WORKER"})
@click.option("-n", "--hostname", help="Name of this node; %h host, %n its name, %d its domain.")
@click.option("-l", "--loglevel", type=LogLevel(), default="WARNING", show_default=True, help="What to log.")
@click.option(
    "-O", "optimization", type=click.Choice(["default", "fair"]), default="default", help="Always fair."
)
@click.option(
    "--prefetch-multiplier",
    type=click.IntRange(min=0),
    help="Messages to hold per slot; 0: no limit. Without it none that cannot begin soon.",
)
@click.option(
    "-c",
    "--concurrency",
    type=click.IntRange(min=0),
    help="How many tasks to run at once; 0: as many as there are processors.",
)
@click.option(
    "--autoscale",
    type=Autoscale(),
    help="max,min: run as many tasks at once as there is work for, between the two.",
)
@click.option(
    "-P",
    "--pool",
    help="What runs the tasks: prefork, threads, asyncio, gevent, eventlet, solo, custom, or pkg.mod:Class.",
)
@click.option(
    "-E", "--task-events", "--events", "events", is_flag=True, default=None, help="Send events, for monitors."
)
@click.option("--time-limit", type=float, help="Hard limit in seconds for tasks with none of their own.")
@click.option("--soft-time-limit", type=float, help="Soft limit in seconds for tasks with none of their own.")
@click.option(
    "--max-tasks-per-child", type=click.IntRange(min=1), help="Replace a process after so many tasks."
)
@click.option(
    "--max-memory-per-child", type=click.IntRange(min=1), help="Replace a process above so many KiB."
)
@click.option(
    "-B", "--beat", is_flag=True, help="Send periodic tasks too; any number of workers may, one of them does."
)
@click.option(
    "-s", "--schedule-filename", help="With -B: keeps when entries were sent, instead of the broker."
)
@click.option("--scheduler", help="With -B: class of the scheduler, or the name of an installed one.")
@click.option("--purge", "--discard", is_flag=True, help="Throw away what waits in the queues first.")
@click.option("-Q", "--queues", type=CommaSeparated(), default=(), help="Consume only from these queues.")
@click.option("-X", "--exclude-queues", type=CommaSeparated(), default=(), help="Do not consume from these.")
@click.option("-I", "--include", type=CommaSeparated(), default=(), help="More modules to import.")
@click.option("--without-gossip", is_flag=True, help="Do not listen to other workers.")
@click.option("--without-mingle", is_flag=True, help="Do not ask other workers at start.")
@click.option("--without-heartbeat", is_flag=True, help="Send no heartbeat events.")
@click.option("--heartbeat-interval", type=float, help="Seconds between heartbeat events.")
@click.option(
    "-f", "--logfile", help="Log to this file; %n, %h, %d, %p are filled in. With %I, a file per process."
)
@click.option(
    "-S", "--statedb", help="Keep revoked tasks in this file over a restart; %n, %h, %d, %p are filled in."
)
@click.option("--pidfile", help="Keep the process id in this file, and a second worker away.")
@click.option("-D", "--detach", is_flag=True, help="Go on in the background, without a terminal.")
@click.option(
    "--reload",
    is_flag=True,
    allow_from_autoenv=False,
    help="For development: begin anew when a Python file that was loaded changes. Needs celeriac[reload].",
)
@click.option(
    "--disable-prefetch", is_flag=True, default=None, help="Take a task only when it can begin at once."
)
@daemon.options
@click.argument("settings", nargs=-1, metavar="[-- SETTING=VALUE]...")
@click.pass_context
def command(ctx: click.Context, /, **options: Any) -> None:  # Any: click's values
    """Run a worker: take tasks from the queues and run them until told to stop."""
    obj: CLIContext = ctx.obj
    app = obj.app
    options["extra"] = take_added(ctx, options)
    _set(app, options.pop("settings"), options.pop("disable_prefetch"))
    asked = daemon.taken(app, "worker", options)
    asked.become()
    node = node_name(options.pop("hostname"))
    level: int = options.pop("loglevel")
    log_pattern = asked.logfile
    logfile = file_name(log_pattern, node)
    pidfile = file_name(asked.pidfile, node)
    options["statedb"] = file_name(options["statedb"] or app.conf.worker_state_db, node)
    options["max_memory_per_child_kib"] = options.pop("max_memory_per_child")
    purge: bool = options.pop("purge")
    scheduler = options.pop("beat"), options.pop("schedule_filename"), options.pop("scheduler")
    background = options.pop("detach")
    is_reloaded = options.pop("reload")
    if is_reloaded and background:
        raise click.UsageError("--reload is for a worker in the foreground: leave out --detach.")
    node_options = NodeOptions(hostname=node, loglevel=level, logfile=logfile, **options)
    _refuse_pickle_as_root(obj)
    invited = invitation()
    lock = None if invited else locked(obj, pidfile)
    if background:
        if lock is not None:
            lock.release()  # it was to be had; who goes on takes it
        detach(own_program(), asked.executable)
        return

    def in_child(place: int) -> None:
        own = file_name(log_pattern, node, place)
        if logfile is not None and own is not None and own != logfile:
            logs.move(logfile, own)

    streams = sys.stdout, sys.stderr
    try:
        _set_up_logs(obj, app, level, logfile)
        worker = Worker(app, node_options, in_child, own_program())
        if invited is not None:
            worker.run_as_child(invited)
        if is_reloaded:
            importlib.import_module("celeriac.cli.reloading").tell_loaded()
        _tell_settings_without_effect(app)
        if purge:
            removed = sum(app.transport.purge(queue.name) for queue in worker.queues)
            app.close()  # the worker forks next, and no child shall inherit a connection
            obj.echo(f"purge: Erased {removed} message{'s' if removed != 1 else ''} from the queue.")
        _show_banner(obj, worker, level)
        with _beat(app, *scheduler):
            code = worker.run(_end_with_watcher if is_reloaded else nothing)
    except (ConfigError, QueueNotFound) as exc:
        raise click.UsageError(str(exc.args[0] if exc.args else exc)) from exc
    finally:
        sys.stdout, sys.stderr = streams  # what is said from here on is for the person, not for the log
        if lock is not None:
            lock.release()
    sys.exit(code)


def _set(app: Celeriac, settings: Sequence[str], disable_prefetch: bool | None) -> None:
    """Make settings of what stands on the command line."""
    try:
        app.config_from_cmdline(settings, namespace="worker")
    except (ValueError, ConfigError) as exc:
        raise click.UsageError(str(exc)) from exc
    if disable_prefetch is not None:
        app.conf.worker_disable_prefetch = disable_prefetch


def _end_with_watcher() -> None:
    importlib.import_module("celeriac.cli.reloading").end_with_watcher()


def _beat(
    app: Celeriac, wanted: bool, schedule_filename: str | None, scheduler: str | None
) -> AbstractContextManager[Any]:  # Any: nobody asks what is entered
    if not wanted:
        return nullcontext()
    from celeriac.beat.embedded import embedded_beat  # 2 MB that every other worker would carry

    return embedded_beat(app, schedule_filename, scheduler)


def _refuse_pickle_as_root(obj: CLIContext) -> None:
    accepted = {"pickle", "application/x-python-serialize"} & set(obj.app.conf.accept_content)
    if accepted and os.geteuid() == 0 and not os.environ.get("C_FORCE_ROOT"):
        obj.error(
            "Running as root and accepting pickle: whoever can send a message would own this machine.\n"
            "Use another user, take pickle out of accept_content, or set C_FORCE_ROOT=1 to do it anyway."
        )
        sys.exit(1)


def _set_up_logs(obj: CLIContext, app: Celeriac, level: int, logfile: str | None) -> None:
    redirect = app.conf.get("worker_redirect_stdouts_level") or "WARNING"
    options = logs.LogOptions(
        level=level,
        file=logfile,
        colour=False if obj.no_color else None,
        redirect_level=logs.level_of(redirect),
    )
    try:
        logs.setup(app, options)
    except OSError as exc:
        if logfile is None or exc.filename != os.path.abspath(logfile):
            raise  # a receiver of setup_logging has logs of its own
        obj.error(f"ERROR: Logfile ({logfile}) cannot be written: {exc.strerror}.")
        sys.exit(EX_CANTCREAT)


def _show_banner(obj: CLIContext, worker: Worker, level: int) -> None:
    if obj.quiet:
        return
    app = worker.app
    facts = BannerFacts(
        hostname=worker.hostname,
        version=obj.version,
        app=f"{app.main or '__main__'}:{hex(id(app))}",
        transport=addresses.of_messages(app),
        results=addresses.of_results(app),
        concurrency=_concurrency(worker),
        events=_events_on(worker),
        queues=worker.queues,
        tasks=_task_names(app, level),
        show_tasks=level <= logs.level_of("INFO"),
    )
    text = render(facts, datetime.datetime.now().astimezone())
    stream = sys.__stdout__  # prints go to the log by now, and the banner is no log line
    if stream is not None:
        click.echo(text, file=stream)
        stream.flush()


def _concurrency(worker: Worker) -> str:
    if worker.options.autoscale is None:
        return f"{worker.concurrency} ({worker.pool_kind})"
    most, fewest = worker.options.autoscale
    return f"{{min={fewest}, max={most}}} ({worker.pool_kind})"


def _tell_settings_without_effect(app: Celeriac) -> None:
    names = app.conf.without_effect()
    if names:
        logger.warning("These settings are known, but have no effect in this version: %s.", ", ".join(names))


def _events_on(worker: Worker) -> bool:
    asked = worker.options.events
    return bool(worker.app.conf.worker_send_task_events if asked is None else asked)


def _task_names(app: Celeriac, level: int) -> Sequence[str]:
    show_builtin = level <= logs.level_of("DEBUG")
    return [name for name in app.tasks if show_builtin or not name.startswith("celery.")]
