"""The umbrella command: global options, and finding the commands below it."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from celeriac.cli import added
from celeriac.cli.context import CLIContext
from celeriac.drivers import entry_points
from celeriac.errors import CeleriacError
from celeriac.settings.spelling import did_you_mean
from celeriac.version import VERSION

if TYPE_CHECKING:  # `--help` and `--version` need no app
    from celeriac.app import Celeriac

COMMANDS: Final = {
    "amqp": "celeriac.cli.amqp",
    "beat": "celeriac.cli.beat",
    "call": "celeriac.cli.call",
    "check": "celeriac.cli.check",
    "config": "celeriac.cli.config",
    "control": "celeriac.cli.control",
    "dead": "celeriac.cli.dead",
    "dlq": "celeriac.cli.dlq",
    "doctor": "celeriac.cli.doctor",
    "events": "celeriac.cli.events",
    "graph": "celeriac.cli.graph",
    "help": "celeriac.cli.help",
    "inspect": "celeriac.cli.inspect",
    "list": "celeriac.cli.listing",
    "logtool": "celeriac.cli.logtool",
    "migrate": "celeriac.cli.migrate",
    "multi": "celeriac.cli.multi",
    "purge": "celeriac.cli.purge",
    "queue": "celeriac.cli.queue",
    "report": "celeriac.cli.report",
    "result": "celeriac.cli.result",
    "retry-preview": "celeriac.cli.retry_preview",
    "schedule": "celeriac.cli.schedule",
    "shell": "celeriac.cli.shell",
    "status": "celeriac.cli.status",
    "upgrade": "celeriac.cli.upgrade",
    "worker": "celeriac.cli.worker",
}
# Global options that people of Celery 3 and 4 write behind the command; they are moved to the front.
_MOVED_WITH_VALUE: Final = (
    "-A",
    "--app",
    "-b",
    "--broker",
    "--result-backend",
    "--loader",
    "--config",
    "--workdir",
)
_ENVIRONMENT: Final = "CELERY"  # each option may be a variable: CELERY_QUIET, CELERY_WORKER_CONCURRENCY
_RESOLVED: Final = "celeriac.command"  # the key in click's `meta` of the command that will be invoked
_MOVED_FLAGS: Final = ("-C", "--no-color", "-q", "--quiet")


# What `--help` tells of each, so that it has to import none of them.
SUMMARIES: Final = {
    "amqp": "Administer a RabbitMQ broker, command by command or at a prompt.",
    "beat": "Send periodic tasks when they are due, until told to stop.",
    "call": "Send a task by name and print its id.",
    "check": "Find tasks that are queued or scheduled but not in the code.",
    "config": "Show the settings that count.",
    "control": "Tell workers what to do.",
    "dead": "Another name of dlq list.",
    "dlq": "Dead letters: messages that could not be read or run.",
    "doctor": "Look at settings, broker, result store and clocks, and say what to do.",
    "events": "Show what workers tell.",
    "graph": "Draw how a worker is put together, or which workers there are, for Graphviz.",
    "help": "Show the help of everything, or of one command.",
    "inspect": "Ask workers about themselves.",
    "list": "List what the broker has of this app.",
    "logtool": "Read workers' logs: totals, failures, what came to no end.",
    "migrate": "Copy or move waiting messages from one broker to another.",
    "multi": "Start, stop and restart several workers of this machine.",
    "purge": "Throw away all waiting messages of the configured queues.",
    "queue": "Care for the queues themselves: list, look into, pause, move and purge them.",
    "report": "Print versions, where messages and results go, and settings.",
    "result": "Print the return value of a task, waiting for it if need be.",
    "retry-preview": "Print how long a task that fails waits before each retry.",
    "schedule": "See and change periodic tasks while schedulers run.",
    "shell": "Begin an interactive session with the app at hand.",
    "status": "Show the workers that are there.",
    "upgrade": "Bring what was written for old versions up to date.",
    "worker": "Run a worker: take tasks from the queues and run them.",
}


class LazyCommands(click.Group):
    """Imports a command's module when it is asked for; suggests the nearest name for one that is not there.

    Other packages add commands through the entry point group ``celery.commands`` (or ``celeriac.commands``).
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted({*COMMANDS, *_plugins()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command by its name."""
        if cmd_name in COMMANDS:
            command = importlib.import_module(COMMANDS[cmd_name]).command
            assert isinstance(command, click.Command)
            return command
        plugin = _plugins().get(cmd_name)
        if plugin is None:
            return None
        try:
            return plugin()
        except Exception as exc:  # noqa: BLE001 - what another package raises must not take every command away
            return _stand_in(cmd_name, exc)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a line for each command, our own from the table."""
        plugins = [name for name in self.list_commands(ctx) if name not in COMMANDS]
        limit = formatter.width - 6 - max(map(len, (*COMMANDS, *plugins)))
        rows = list(SUMMARIES.items())
        for name in plugins:
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                rows.append((name, command.get_short_help_str(limit)))
        with formatter.section("Commands"):
            formatter.write_dl(sorted(rows))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or say which one was perhaps meant."""
        try:
            name, command, rest = super().resolve_command(ctx, args)
        except click.UsageError as exc:
            meant = did_you_mean(args[0], self.list_commands(ctx))
            if meant is not None:
                raise click.UsageError(f"{exc.message} Did you mean {meant}?", exc.ctx) from exc
            raise
        if name == "worker" and "--reload" in rest:
            reloading = importlib.import_module("celeriac.cli.reloading")
            if reloading.is_asked(rest):
                return name, reloading.command, rest
        if command is not None:
            command = ctx.meta[_RESOLVED] = added.open_to_options(command)
        return name, command, rest


def _plugins() -> dict[str, Callable[[], click.Command]]:
    found = [*entry_points(group="celery.commands"), *entry_points(group="celeriac.commands")]
    return {point.name: point.load for point in found}


def _stand_in(name: str, error: Exception) -> click.Command:
    """Return a command that stands where one cannot be loaded, and says why when it is run."""

    def tell(**_: Any) -> None:  # Any: click's values
        reason = f"{type(error).__name__}: {error}"
        raise click.ClickException(f"The command {name} of another package cannot be loaded: {reason}")

    anything = click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)
    return click.Command(
        name,
        {"ignore_unknown_options": True, "help_option_names": []},
        callback=tell,
        params=[anything],
        short_help="(cannot be loaded)",
    )


def hoist(args: Sequence[str]) -> list[str]:
    """Return the arguments with the global options in front of the command.

    Args:
        args: Such as ``worker -A proj -l info``, which becomes ``-A proj worker -l info``.
    """
    front: list[str] = []
    rest: list[str] = []
    waiting = iter(args)
    for arg in waiting:
        name, equals, _ = arg.partition("=")
        if arg == "--" or (arg == "multi" and not rest):  # behind `multi` they are its workers'
            rest += [arg, *waiting]
        elif arg in _MOVED_FLAGS or (equals and name in _MOVED_WITH_VALUE):
            front.append(arg)
        elif arg in _MOVED_WITH_VALUE:
            front += [arg, *[value for _, value in zip(range(1), waiting, strict=False)]]
        elif len(arg) > 2 and arg[:2] in ("-A", "-b") and not arg.startswith("--"):
            front.append(arg)
        else:
            rest.append(arg)
    return front + rest


@click.command(cls=LazyCommands, invoke_without_command=True)
@click.option(
    "-A", "--app", envvar=["APP", "CELERY_APP"], metavar="APPLICATION", help="The app, as pkg.mod:attr."
)
@click.option("-b", "--broker", envvar="BROKER_URL", help="Broker URL, above the app's settings.")
@click.option(
    "--result-backend", envvar="RESULT_BACKEND", help="Result backend URL, above the app's settings."
)
@click.option("--loader", envvar="LOADER", help="Loader class, for old programs.")
@click.option("--config", envvar="CONFIG_MODULE", help="Module with the settings, when no app is given.")
@click.option("--workdir", type=click.Path(exists=True, file_okay=False), help="Directory to work in.")
@click.option("-C", "--no-color", is_flag=True, envvar="NO_COLOR", help="No colours.")
@click.option("-q", "--quiet", is_flag=True, help="Only what was asked for.")
@click.option("--version", "show_version", is_flag=True, help="Show the version and leave.")
@click.option("--skip-checks", is_flag=True, envvar="SKIP_CHECKS", help="Leave out Django's checks.")
@click.pass_context
def umbrella(ctx: click.Context, /, show_version: bool, **options: Any) -> None:  # Any: click's values
    """Run and watch a distributed task queue.

    Begin with the command `worker`: it runs the tasks of the app that -A names.
    """
    given = ctx.obj
    if show_version:
        click.echo(given["version"])
        ctx.exit()
    started_in = os.getcwd()
    _export_options(options)
    ctx.obj = CLIContext(
        options["app"],
        given["default_app"],
        version=given["version"],
        no_color=options["no_color"],
        quiet=options["quiet"],
        workdir=options["workdir"],
        started_in=started_in,
    )
    command = ctx.meta.get(_RESOLVED)
    app_is_named = options["app"] is not None or given["app_is_given"]
    if command is not None and added.is_extended(str(command.name), app_is_named=app_is_named):
        added.extend(command, ctx.obj.app)
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def _export_options(options: dict[str, Any]) -> None:  # Any: click's values
    """Set what child processes and lazily read settings look for in the environment."""
    for option, variable in (
        ("broker", "CELERY_BROKER_URL"),
        ("result_backend", "CELERY_RESULT_BACKEND"),
        ("loader", "CELERY_LOADER"),
        ("config", "CELERY_CONFIG_MODULE"),
    ):
        if options[option]:
            os.environ[variable] = options[option]
    if options["skip_checks"]:
        os.environ["CELERY_SKIP_CHECKS"] = "true"
    if options["workdir"]:
        os.chdir(options["workdir"])


def app_of_working_folder() -> Celeriac:
    """Return the app of a command without ``-A``: configured by ``celeryconfig.py`` here."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    app: Celeriac = importlib.import_module("celeriac.app").Celeriac("default")
    app.config_from_object(os.environ.get("CELERY_CONFIG_MODULE", "celeryconfig"), silent=True)
    return app


def run(
    args: Sequence[str] | None = None,
    *,
    app: Celeriac | None = None,
    program: str = "celeriac",
    shown_version: str = VERSION,
    default_app: Callable[[], Celeriac] = app_of_working_folder,
) -> int:
    """Run the command line and return its exit code.

    Args:
        args: Arguments without the program's name; those of the process when not given.
        app: The app of a command without ``-A``, for programs that start a worker themselves.
        program: Name shown in usage texts.
        shown_version: What ``--version`` prints.
        default_app: Makes the app of a command without ``-A`` when no ``app`` is given.
    """
    given = {
        "version": shown_version,
        "app_is_given": app is not None,
        "default_app": (lambda: app) if app is not None else default_app,
    }
    variable = f"_{program.upper()}_COMPLETE"
    if variable in os.environ:  # a shell asks what may follow
        completion = importlib.import_module("click.shell_completion")
        code: int = completion.shell_complete(
            umbrella, {"obj": given}, program, variable, os.environ[variable]
        )
        return code
    arguments = hoist(sys.argv[1:] if args is None else args)
    try:
        with umbrella.make_context(program, arguments, obj=given, auto_envvar_prefix=_ENVIRONMENT) as ctx:
            umbrella.invoke(ctx)
    except click.exceptions.Exit as exc:
        return exc.exit_code
    except click.ClickException as exc:
        exc.show()
        return exc.exit_code
    except click.Abort:
        click.echo("Aborted.", err=True)
        return 1
    except CeleriacError as exc:
        click.echo(click.style(f"Error: {exc}", fg="red"), err=True)
        return 1
    except SystemExit as exc:
        return exc.code if isinstance(exc.code, int) else int(exc.code is not None)
    return 0


def main() -> None:
    """Run the command line of this process and exit with its code."""
    sys.exit(run())


if __name__ == "__main__":
    main()
