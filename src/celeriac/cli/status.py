"""``celery status``: which workers are there."""

from __future__ import annotations

import json
from typing import Any

import click

from celeriac.cli.context import CLIContext
from celeriac.cli.remote import Unavailable, ask, footer, no_answer, nodes_of, options

_WAIT_SECONDS = 1.0


@click.command("status")
@options
@click.pass_obj
def command(obj: CLIContext, timeout: float | None, destination: str | None, as_json: bool) -> None:
    """Show the workers that are there."""

    def show(reply: dict[str, Any]) -> None:
        for node in reply:
            obj.echo(f"->  {obj.style(node, fg='cyan')}: {obj.style('OK', fg='green', bold=True)}")

    wanted = nodes_of(destination)
    replies = ask(obj, "ping", {}, timeout or _WAIT_SECONDS, wanted, None if as_json else show)
    if not replies:
        raise Unavailable(no_answer(obj, wanted))
    nodes = {node: answer for reply in replies for node, answer in reply.items()}
    if as_json:
        obj.echo(json.dumps(nodes, default=repr))
    obj.say(footer(len(nodes)))
