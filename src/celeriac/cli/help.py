"""``celery help``: the same as ``celery --help``."""

from __future__ import annotations

import click


@click.command("help")
@click.argument("name", required=False)
@click.pass_context
def command(ctx: click.Context, name: str | None) -> None:
    """Show the help of everything, or of one command."""
    parent = ctx.parent
    assert parent is not None
    group = parent.command
    assert isinstance(group, click.Group)
    if name is None:
        click.echo(parent.get_help())
        return
    inner = group.get_command(parent, name)
    if inner is None:
        raise click.UsageError(f"No such command {name!r}.", ctx=parent)
    click.echo(inner.get_help(click.Context(inner, info_name=name, parent=parent)))
