"""``celery amqp``: a RabbitMQ broker by AMQP's own commands, one at a time or at a prompt."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final, Self

import click

from celeriac.cli.context import CLIContext
from celeriac.cli.tables import plain
from celeriac.message import Envelope, Props
from celeriac.settings.spelling import did_you_mean
from celeriac.transports.amqp import frames
from celeriac.transports.amqp.connection import ChannelClosed, Confirm, Event, Message, Refused
from celeriac.transports.amqp.errand import errand
from celeriac.transports.amqp.link import Link
from celeriac.transports.amqp.tables import decode_properties, encode_properties
from celeriac.transports.amqp.transport import AmqpTransport

_CHANNEL: Final = 1
_PATIENCE_SECONDS: Final = 10.0


class Session:
    """One connection, on which commands are given one after the other.

    Args:
        obj: Speaks to the person.
        transport: The broker.
    """

    def __init__(self, obj: CLIContext, transport: AmqpTransport) -> None:
        self.obj = obj
        self._transport = transport
        self._open = ExitStack()
        self._link: Link | None = None
        self._confirms = False
        self._confirmed = 0
        self._returned: list[Message] = []

    def __enter__(self) -> Self:
        self.obj.say(f"-> connecting to {self._transport.address}.")
        until = time.monotonic() + _PATIENCE_SECONDS
        self._link = self._open.enter_context(errand(self._transport.quiet_addresses, until, self._see))
        self.obj.say("-> connected.")
        return self

    def __exit__(self, *exc: object) -> None:
        self._open.close()

    def ask(self, name: str, *arguments: Any) -> Any:  # Any: AMQP's values
        """Have RabbitMQ do something and return what it answers.

        Raises:
            click.ClickException: It refuses; the next command may be given all the same.
        """
        assert self._link is not None
        try:
            return self._link.call(time.monotonic() + _PATIENCE_SECONDS, _CHANNEL, name, *arguments)
        except Refused as exc:
            raise click.ClickException(f"RabbitMQ refuses: {exc}") from exc

    def publish(
        self, text: str, exchange: str, routing_key: str, *, mandatory: bool, immediate: bool
    ) -> None:
        """Send a text and wait until RabbitMQ has it.

        Raises:
            click.ClickException: It refuses, or no queue takes a mandatory message.
        """
        link = self._link
        assert link is not None
        if not self._confirms:
            self.ask("confirm.select", False)
            self._confirms, self._confirmed = True, 0
        envelope = Envelope(
            headers={}, body=text.encode(), content_type="text/plain", properties=Props(delivery_mode=2)
        )
        before, until = self._confirmed, time.monotonic() + _PATIENCE_SECONDS
        link.send(
            frames.method(_CHANNEL, "basic.publish", 0, exchange, routing_key, mandatory, immediate)
            + frames.content(_CHANNEL, encode_properties(envelope), envelope.body, link.core.frame_max),
            until,
        )
        link.wait(lambda: self._confirmed > before or not self._confirms, until)
        if not self._confirms:
            raise click.ClickException(
                f"RabbitMQ refuses: there is no exchange {exchange!r}, or not for you."
            )
        if self._returned:
            self._returned.clear()
            raise click.ClickException("No queue takes it.")

    def send(self, frame: bytes) -> None:
        """Send what is not answered."""
        assert self._link is not None
        self._link.send(frame, time.monotonic() + _PATIENCE_SECONDS)

    def _see(self, event: Event) -> None:
        match event:
            case Confirm():
                self._confirmed += 1
            case Message():
                self._returned.append(event)
            case ChannelClosed():
                self._confirms = False
            case _:
                pass


@click.group("amqp", invoke_without_command=True)
@click.pass_context
def command(ctx: click.Context) -> None:
    """Administer a RabbitMQ broker: a prompt, or one command. What is got and not acknowledged goes back."""
    if ctx.invoked_subcommand is None:
        _repl(ctx)


@command.command("repl")
@click.pass_context
def repl(ctx: click.Context) -> None:
    """Give commands at a prompt."""
    assert ctx.parent is not None
    _repl(ctx.parent)


def _repl(ctx: click.Context) -> None:
    obj: CLIContext = ctx.obj
    with _session(obj) as session:
        number = 0
        while True:
            number += 1
            try:
                words = shlex.split(input(f"{number}> "))
            except EOFError:
                return
            except ValueError as exc:
                obj.error(f"Error: {exc}")
                continue
            if words and words[0] in ("exit", "quit"):
                return
            if words:
                _obey(session, words)


def _obey(session: Session, words: list[str]) -> None:
    """Do what a line at the prompt says; what is wrong with it is told, and the next may be given."""
    name, *arguments = words
    found = _BY_NAME.get(name)
    try:
        if name == "help":
            session.obj.echo("\n".join(sorted(_BY_NAME)))
        elif found is None:
            meant = did_you_mean(name, list(_BY_NAME))
            raise click.UsageError(
                f"No such command {name!r}." + (f" Did you mean {meant}?" if meant else "")
            )
        else:
            with found.make_context(name, arguments, obj=session) as ctx:
                found.invoke(ctx)
    except click.exceptions.Exit:
        return  # its help was shown
    except click.ClickException as exc:
        session.obj.error(f"Error: {exc.format_message()}")


@contextmanager
def _session(obj: CLIContext) -> Iterator[Session]:
    obj.app.finalize()
    transport = obj.app.transport
    if not isinstance(transport, AmqpTransport):
        raise click.UsageError(
            f"The broker at {transport.address} does not speak AMQP; "
            "queue list, peek, move and purge are for every broker."
        )
    with Session(obj, transport) as session:
        yield session


def _one(name: str) -> Callable[[Callable[..., None]], click.Command]:
    """Return a decorator for a command that is given a session: that of the prompt, or one of its own."""

    def decorate(function: Callable[..., None]) -> click.Command:
        @click.pass_obj
        def call(obj: CLIContext | Session, /, **values: Any) -> None:  # Any: click's values
            if isinstance(obj, Session):
                function(obj, **values)
                return
            with _session(obj) as session:
                function(session, **values)

        call.__click_params__ = getattr(function, "__click_params__", [])  # type: ignore[attr-defined]
        call.__doc__ = function.__doc__
        made = click.command(name)(call)
        command.add_command(made)
        return made

    return decorate


def _flag(name: str) -> Callable[[Any], Any]:  # Any: click's decorators
    return click.argument(name, type=click.BOOL, default=False)


@_one("exchange.declare")
@click.argument("exchange")
@click.argument("type")
@_flag("passive")
@_flag("durable")
@_flag("auto_delete")
def exchange_declare(
    session: Session, exchange: str, type: str, passive: bool, durable: bool, auto_delete: bool
) -> None:
    """Make an exchange; with PASSIVE, only look whether it is there."""
    session.ask("exchange.declare", 0, exchange, type, passive, durable, auto_delete, False, False, {})
    session.obj.echo("ok.")


@_one("exchange.delete")
@click.argument("exchange")
@_flag("if_unused")
def exchange_delete(session: Session, exchange: str, if_unused: bool) -> None:
    """Remove an exchange."""
    session.ask("exchange.delete", 0, exchange, if_unused, False)
    session.obj.echo("ok.")


@_one("queue.declare")
@click.argument("queue")
@_flag("passive")
@_flag("durable")
@_flag("auto_delete")
def queue_declare(session: Session, queue: str, passive: bool, durable: bool, auto_delete: bool) -> None:
    """Make a queue; with PASSIVE, only look how it is."""
    name, messages, consumers = session.ask(
        "queue.declare", 0, queue, passive, durable, False, auto_delete, False, {}
    )
    session.obj.echo(f"ok. queue:{name} messages:{messages} consumers:{consumers}.")


@_one("queue.bind")
@click.argument("queue")
@click.argument("exchange")
@click.argument("routing_key")
def queue_bind(session: Session, queue: str, exchange: str, routing_key: str) -> None:
    """Have a queue get what is sent to an exchange under a key."""
    session.ask("queue.bind", 0, queue, exchange, routing_key, False, {})
    session.obj.echo("ok.")


@_one("queue.delete")
@click.argument("queue")
@_flag("if_unused")
@_flag("if_empty")
def queue_delete(session: Session, queue: str, if_unused: bool, if_empty: bool) -> None:
    """Remove a queue and all that waits in it."""
    [count] = session.ask("queue.delete", 0, queue, if_unused, if_empty, False)
    session.obj.echo(f"ok. {count} messages deleted.")


@_one("queue.purge")
@click.argument("queue")
def queue_purge(session: Session, queue: str) -> None:
    """Throw away all that waits in a queue."""
    [count] = session.ask("queue.purge", 0, queue, False)
    session.obj.echo(f"ok. {count} messages deleted.")


@_one("basic.get")
@click.argument("queue")
@_flag("no_ack")
def basic_get(session: Session, queue: str, no_ack: bool) -> None:
    """Get a message: it stays this session's until it is acknowledged, or the session ends."""
    answer = session.ask("basic.get", 0, queue, no_ack)
    if not isinstance(answer, Message):
        session.obj.echo("empty")
        return
    envelope = decode_properties(answer.properties, answer.body)
    shown = {
        "body": envelope.body.decode("utf-8", "backslashreplace"),
        "delivery_info": {
            "delivery_tag": answer.tag,
            "exchange": answer.exchange,
            "routing_key": answer.routing_key,
            "redelivered": answer.redelivered,
        },
        "headers": envelope.headers,
        "content_type": envelope.content_type,
    }
    session.obj.echo(plain(repr(shown)))


@_one("basic.publish")
@click.argument("msg")
@click.argument("exchange")
@click.argument("routing_key")
@_flag("mandatory")
@_flag("immediate")
def basic_publish(
    session: Session, msg: str, exchange: str, routing_key: str, mandatory: bool, immediate: bool
) -> None:
    """Send a text; the EXCHANGE '' goes to the queue that the key names."""
    session.publish(msg, exchange, routing_key, mandatory=mandatory, immediate=immediate)
    session.obj.echo("ok.")


@_one("basic.ack")
@click.argument("delivery_tag", type=click.IntRange(min=1))
def basic_ack(session: Session, delivery_tag: int) -> None:
    """Acknowledge a message that was got."""
    session.send(frames.ack(_CHANNEL, delivery_tag))
    session.obj.echo("ok.")


_BY_NAME: Final = {name: each for name, each in command.commands.items() if name != "repl"}
