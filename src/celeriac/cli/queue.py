"""``celeriac queue``: what waits where; look at it, move it, throw it away."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import click

from celeriac import moving
from celeriac.cli.context import CLIContext
from celeriac.cli.tables import draw
from celeriac.errors import TransportError
from celeriac.message import Delivery
from celeriac.ports import Transport
from celeriac.remote.mailbox import Reply

_patience = click.option(
    "-t",
    "--timeout",
    type=float,
    default=1.0,
    show_default=True,
    help="Seconds to wait for workers' answers.",
)


@click.group("queue")
def command() -> None:
    """Care for the queues themselves: list, look into, pause, move and purge them."""


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
        obj.echo(f"{_messages(count)} of dead workers went back to the queues.")
    else:
        obj.say(f"No dead worker holds anything at {transport.address} that can go back.")


@command.command("list")
@click.option("-Q", "--queues", metavar="NAMES", help="These queues instead of the configured ones: a,b.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, for machines.")
@click.pass_obj
def listing(obj: CLIContext, queues: str | None, as_json: bool) -> None:
    """List the queues, how many messages wait in each (not those that workers hold), and what is paused.

    Of those that wait, some are ready, and the others scheduled: their time has not come. RabbitMQ keeps none
    of these; the workers do, and `inspect scheduled` tells them. On Redis they count as ready until a worker
    has seen them. The oldest is that of the ready ones: how many seconds it waits since it was sent, or since
    the time that it was sent for. RabbitMQ does not tell, and messages of Celery itself are passed over.
    """
    obj.app.finalize()
    transport, names = obj.app.transport, _names(obj, queues)
    paused = _paused(obj, names)
    facts = []
    for name in names:
        ready = transport.ready(name)
        waiting = max(ready, transport.size(name))  # some may be taken in between
        facts.append(
            {
                "queue": name,
                "waiting": waiting,
                "ready": ready,
                "scheduled": waiting - ready,
                "oldest_seconds": _age(transport, name) if ready and transport.caps.ages else None,
                "paused": name in paused,
            }
        )
    if as_json:
        for fact in facts:
            obj.echo(json.dumps(fact))
    else:
        draw(
            obj,
            ("queue", "waiting", "ready", "scheduled", "oldest", "state"),
            [
                [
                    *(str(fact[title]) for title in ("queue", "waiting", "ready", "scheduled")),
                    "-" if fact["oldest_seconds"] is None else f"{fact['oldest_seconds']}s",
                    "paused" if fact["paused"] else "",
                ]
                for fact in facts
            ],
        )


@command.command("peek")
@click.argument("queue")
@click.option("-n", "--limit", type=click.IntRange(min=1), default=10, show_default=True, help="At most.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, for machines.")
@click.pass_obj
def peeking(obj: CLIContext, queue: str, limit: int, as_json: bool) -> None:
    """Show the messages that workers get next, and leave them where they are.

    RabbitMQ marks what was shown as redelivered, but for quorum queues.
    """
    obj.app.finalize()
    found = asyncio.run(moving.peek(obj.app.transport, obj.app.router.find(queue), limit))
    facts = [_facts(delivery) for delivery in found]
    if as_json:
        for fact in facts:
            obj.echo(json.dumps(fact, default=repr))
    elif facts:
        titles = tuple(facts[0])
        draw(
            obj,
            titles,
            [["-" if value is None else str(value) for value in fact.values()] for fact in facts],
            whole=("id",),
        )
    else:
        obj.say(f"No message is ready in {queue}.")


@command.command("move")
@click.argument("source")
@click.argument("target")
@click.option("--name", "names", multiple=True, metavar="TASK", help="Only this task; may be repeated.")
@click.option("-n", "--limit", type=click.IntRange(min=1), help="At most so many.")
@click.option("-f", "--force", is_flag=True, help="Do not ask first.")
@click.pass_obj
def moving_over(
    obj: CLIContext, source: str, target: str, names: tuple[str, ...], limit: int | None, force: bool
) -> None:
    """Move waiting messages to the end of another queue.

    Those that wait for their time stay. When this is killed in between, some may be in both queues.
    """
    app = obj.app
    app.finalize()
    if app.router.find(source).name == app.router.find(target).name:
        raise click.UsageError(f"{source} and {target} are one queue.")
    transport = app.transport
    count = transport.ready(source)
    if not count:
        obj.say(f"No message is ready in {source}.")
        return
    if not force:
        click.confirm(f"{_messages(count)} in {source} may go to {target}. Go on?", abort=True)
    move = moving.Move(
        source=transport,
        queue=app.router.find(source),
        target=transport,
        to=app.router.find(target),
        names=frozenset(names),
        limit=limit,
    )
    obj.echo(f"{_messages(asyncio.run(moving.carry_out(move)))} moved from {source} to {target}.")


@command.command("pause")
@click.argument("queues", nargs=-1, required=True, metavar="QUEUE...")
@_patience
@click.pass_obj
def pausing(obj: CLIContext, queues: tuple[str, ...], timeout: float) -> None:
    """Have no worker take anything from queues until they are resumed; messages may still be sent to them.

    It holds for workers that start later, too. What was fetched and has not begun goes back, what runs goes
    on to its end. Workers of Celery itself know nothing of this.
    """
    obj.app.finalize()
    for name in queues:
        replies = obj.app.control.pause_queue(name, reply=True, timeout=timeout)
        obj.echo(f"{name} is paused: what is sent to it waits.")
        _tell_who_heard(obj, replies or [], f"cancel_consumer {name}")


@command.command("resume")
@click.argument("queues", nargs=-1, required=True, metavar="QUEUE...")
@_patience
@click.pass_obj
def resuming(obj: CLIContext, queues: tuple[str, ...], timeout: float) -> None:
    """Have workers take from paused queues again."""
    obj.app.finalize()
    for name in queues:
        if name not in obj.app.control.paused_queues([name]):
            obj.say(f"{name} is not paused.")
        replies = obj.app.control.resume_queue(name, reply=True, timeout=timeout)
        obj.echo(f"{name} is open: workers take from it.")
        _tell_who_heard(obj, replies or [], None)


@command.command("purge")
@click.argument("queues", nargs=-1, required=True, metavar="QUEUE...")
@click.option("-f", "--force", is_flag=True, help="Do not ask first.")
@click.pass_obj
def purging(obj: CLIContext, queues: tuple[str, ...], force: bool) -> None:
    """Throw away all waiting messages of queues. There is no way back."""
    obj.app.finalize()
    transport = obj.app.transport
    count = sum(map(transport.size, queues))
    if count and not force:
        click.confirm(
            f"This removes {_messages(count).lower()} of {', '.join(queues)} for good. Go on?", abort=True
        )
    obj.echo(f"{_messages(sum(map(transport.purge, queues)))} purged from {', '.join(queues)}.")


def _age(transport: Transport, queue: str) -> int | None:
    since = transport.oldest(queue)
    return None if since is None else max(0, round(time.time() - since))


def _paused(obj: CLIContext, names: list[str]) -> list[str]:
    found: list[str] = []
    try:
        found = obj.app.control.paused_queues(names)
    except TransportError as exc:
        if exc.retryable:
            raise
        obj.say(f"The broker does not say which queues are paused: {exc}")
    return found


def _tell_who_heard(obj: CLIContext, replies: list[Reply], instead: str | None) -> None:
    """Tell how many workers know of a change, and who cannot.

    Args:
        obj: Speaks to the person.
        replies: What workers have answered.
        instead: The control command that has the same effect on a worker of Celery itself.
    """
    answers = {node: answer for reply in replies for node, answer in reply.items()}
    others = [node for node, answer in answers.items() if "ok" not in (answer or {})]
    count = len(answers) - len(others)
    if count:
        obj.say(f"{'One worker knows' if count == 1 else f'{count} workers know'} of it.")
    elif not others:
        obj.say("No worker has answered; those that run or start will find out by themselves.")
    for node in others if instead else ():
        obj.say(f"{node} does not know of pauses and goes on: celery control -d {node} {instead}")


def _names(obj: CLIContext, given: str | None) -> list[str]:
    if given is None:
        return list(obj.app.router.queues)
    return [name.strip() for name in given.split(",") if name.strip()]


def _facts(delivery: Delivery) -> dict[str, Any]:  # Any: JSON
    headers = delivery.envelope.headers
    return {
        "task": headers.get("task") or ("(unreadable)" if delivery.defect else None),
        "id": headers.get("id"),
        "attempt": delivery.attempt,
        "priority": delivery.envelope.properties.priority,
        "eta": headers.get("eta"),
        "args": headers.get("argsrepr"),
        "kwargs": headers.get("kwargsrepr"),
    }


def _messages(count: int) -> str:
    return "One message" if count == 1 else f"{count} messages"
