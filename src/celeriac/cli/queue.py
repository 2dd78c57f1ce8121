"""``celeriac queue``: care for the queues themselves."""

from __future__ import annotations

import click

from celeriac.cli.context import CLIContext


@click.group("queue")
def command() -> None:
    """Care for the queues themselves."""


@command.command("reap")
@click.pass_obj
def reaping(obj: CLIContext) -> None:
    """Take over what dead workers held, also when no worker is left to do so.

    Workers do it by themselves, every few seconds. A worker counts as dead 15 s after its last sign of life.
    """
    obj.app.finalize()
    transport = obj.app.transport
    if not transport.caps.leases:
        obj.say(f"The broker at {transport.address} does that by itself.")
        return
    count = transport.reap()
    if count:
        messages = "One message" if count == 1 else f"{count} messages"
        obj.echo(f"{messages} of dead workers went back to the queues.")
    else:
        obj.say(f"No dead worker holds anything at {transport.address} that can go back.")
