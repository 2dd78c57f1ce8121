"""``celery migrate``: take waiting messages from one broker to another."""

from __future__ import annotations

import asyncio
import time

import click

from celeriac import moving
from celeriac.app import Celeriac
from celeriac.cli.context import CLIContext
from celeriac.cli.tables import plain
from celeriac.connections import connect_broker
from celeriac.message import Delivery
from celeriac.ports import Transport
from celeriac.settings.settings import Settings


@click.command("migrate")
@click.argument("source")
@click.argument("destination")
@click.option("-n", "--limit", type=click.IntRange(min=1), help="Messages at most.")
@click.option("-a", "--ack-messages", is_flag=True, help="Take them away from the source.")
@click.option("-T", "--tasks", metavar="NAMES", help="Only these tasks: a,b.")
@click.option("-Q", "--queues", metavar="NAMES", help="These queues instead of the configured ones: a,b.")
@click.option("-F", "--forever", is_flag=True, help="With -a: go on with what comes, until interrupted.")
@click.option(
    "-t", "--timeout", type=float, default=1.0, show_default=True, help="With -F: seconds between two looks."
)
@click.pass_obj
def command(
    obj: CLIContext,
    /,
    source: str,
    destination: str,
    limit: int | None,
    ack_messages: bool,
    forever: bool,
    timeout: float,
    **chosen: str | None,
) -> None:
    """Copy waiting messages from the broker SOURCE to DESTINATION, both URLs; with -a, move them.

    Those that wait for their time or are held by workers stay. Let no worker consume from the source
    meanwhile, unless with -a: it would run what the destination has got too.
    """
    if forever and not ack_messages:
        raise click.UsageError(
            "--forever needs --ack-messages: else the same messages were copied each time."
        )
    app = obj.app
    app.finalize()
    names = _split(chosen["queues"]) or list(app.router.queues)
    old, new = _broker(app, source), _broker(app, destination)
    if old.address == new.address:
        raise click.UsageError("Source and destination are one broker; queue move goes between its queues.")
    count = total = 0

    def tell(delivery: Delivery) -> None:
        nonlocal count
        count += 1
        obj.echo(f"Migrating task {count}/{total}: {_shown(delivery)}")

    try:
        while True:
            total = count + sum(old.ready(name) for name in names)
            total = total if limit is None else min(total, limit)
            for name in names:
                move = moving.Move(
                    source=old,
                    queue=app.router.find(name),
                    target=new,
                    to=app.router.find(name),
                    names=frozenset(_split(chosen["tasks"])),
                    limit=None if limit is None else limit - count,
                    keep=not ack_messages,
                )
                asyncio.run(moving.carry_out(move, tell))
            if not forever or count == limit:
                break
            time.sleep(timeout)
    except KeyboardInterrupt:
        if not forever:
            raise
    finally:
        old.close()
        new.close()
    if not count:
        obj.say(f"No message is ready in {', '.join(names)}.")


def _broker(app: Celeriac, url: str) -> Transport:
    options = app.conf.broker_transport_options
    # What the environment says is above an app's settings, and is not what is meant here.
    conf = Settings({"broker_url": url, "broker_transport_options": options}, environ={})
    return connect_broker(conf, app_name=app.main)


def _split(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def _shown(delivery: Delivery) -> str:
    headers = delivery.envelope.headers
    return plain(f"{headers.get('task')}[{headers.get('id')}]")
