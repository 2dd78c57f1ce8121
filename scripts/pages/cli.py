"""The reference of the command line."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

from celeriac.cli.main import COMMANDS, umbrella


def page() -> str:
    """Return the global options and all commands of our own with theirs."""
    context = click.Context(umbrella, info_name="celeriac")
    lines = [
        "# Command line",
        "",
        "`celeriac` and, with the drop-in, `celery` are the same command.",
        "Global options may also stand behind the name of the command: `celeriac worker -A proj`.",
        "Options with an environment variable take their value from it when they are not given.",
        "",
        "<!-- Made by `make docs` from src/celeriac/cli; do not edit. -->",
        "",
        "## celeriac",
        *_about(umbrella, context),
    ]
    for name in sorted(COMMANDS):
        command = umbrella.get_command(context, name)
        assert command is not None
        lines += _section(command, context, name)
    return "\n".join(lines) + "\n"


def _section(command: click.Command, parent: click.Context, name: str) -> Iterator[str]:
    context = click.Context(command, info_name=name, parent=parent)
    yield ""
    yield f"## {context.command_path}"
    yield from _about(command, context)
    if isinstance(command, click.Group):
        for inner_name in sorted(command.list_commands(context)):
            inner = command.get_command(context, inner_name)
            if inner is not None and not inner.hidden:
                yield from _section(inner, context, inner_name)


def _about(command: click.Command, context: click.Context) -> Iterator[str]:
    yield ""
    yield inspect.cleandoc(command.help or "").replace("\b\n", "")
    yield ""
    yield f"    {' '.join([context.command_path, *command.collect_usage_pieces(context)])}"
    rows = [
        _row(param, context)
        for param in command.params
        if isinstance(param, click.Option) and not param.hidden
    ]
    if rows:
        yield ""
        yield "| option | takes | default | environment | what it does |"
        yield "|---|---|---|---|---|"
        yield from rows


def _row(option: click.Option, context: click.Context) -> str:
    names = ", ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])
    takes = "" if option.is_flag or option.count else _takes(option, context)
    default = "" if not option.show_default else f"`{option.default}`"
    cells = (
        names,
        takes + (", several times" if option.multiple else ""),
        default,
        _variables(option, context),
        option.help or "",
    )
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _takes(option: click.Option, context: click.Context) -> str:
    if isinstance(option.type, click.Choice):
        return ", ".join(f"`{choice}`" for choice in option.type.choices)
    if option.metavar:
        return option.metavar.lower()
    return {"integer range": "integer"}.get(option.type.name, option.type.name)


def _variables(option: click.Option, context: click.Context) -> str:
    names = [option.envvar] if isinstance(option.envvar, str) else list(option.envvar or ())
    prefix = context.command.context_settings.get("auto_envvar_prefix")
    if not names and prefix and option.allow_from_autoenv:
        names = [f"{prefix}_{(option.name or '').upper()}"]
    return ", ".join(f"`{name}`" for name in names)
