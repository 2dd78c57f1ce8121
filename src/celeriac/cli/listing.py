"""``celery list``: what the broker has."""

from __future__ import annotations

from typing import Final

import click

from celeriac.cli.context import CLIContext

_ROW: Final = "{:<28} {:<28} {}"


@click.group("list")
def command() -> None:
    """List what the broker has of this app."""


@command.command("bindings")
@click.pass_obj
def bindings(obj: CLIContext) -> None:
    """List the queues with the exchanges and routing keys that fill them, as the app declares them."""
    obj.app.finalize()
    ways: list[tuple[str, str, str]] = []
    for queue in obj.app.router.queues.values():
        if queue.bindings:
            ways += [(queue.name, way.exchange.name, way.routing_key) for way in queue.bindings]
        else:
            ways.append((queue.name, queue.exchange.name, queue.routing_key))
    obj.echo(_ROW.format("Queue", "Exchange", "Routing Key"))
    obj.echo(_ROW.format(*["-" * 16] * 3))
    for way in ways:
        obj.echo(_ROW.format(*way))
