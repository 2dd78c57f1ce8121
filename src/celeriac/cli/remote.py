"""``celery inspect``, ``celery control`` and ``celery status``: asking and steering workers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NoReturn

import click

from celeriac.cli.context import CLIContext
from celeriac.control.panel import ControlCommand, Kind, Panel
from celeriac.errors import CeleriacError, TransportError
from celeriac.remote.mailbox import Reply
from celeriac.saferepr import saferepr
from celeriac.settings.spelling import did_you_mean

EX_UNAVAILABLE: Final = 69
_LOOK_AROUND_SECONDS: Final = 0.5  # for the names of those that are there, when nobody was who was meant
_INDENT: Final = " " * 4

Show = Callable[[Reply], None]


class Unavailable(click.ClickException):
    """Raised when workers cannot be asked, or none answers."""

    exit_code = EX_UNAVAILABLE


def options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of all three commands."""
    for option in (
        click.option("-t", "--timeout", type=float, help="Seconds to wait for answers."),
        click.option("-d", "--destination", help="Names of nodes, separated by commas."),
        click.option("-j", "--json", "as_json", is_flag=True, help="Print JSON."),
    ):
        function = option(function)
    return function


def make(kind: Kind) -> click.Command:
    """Return the command ``inspect`` or ``control``."""
    verb = "Ask workers about themselves." if kind == "inspect" else "Tell workers what to do."

    @click.command(kind, help=f"{verb} Without an action: see --list.", context_settings=_UNORDERED)
    @options
    @click.option("--list", "lists", is_flag=True, help="Show what there is.")
    @click.argument("action", required=False)
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
    @click.pass_obj
    def command(
        obj: CLIContext, /, lists: bool, action: str | None, arguments: tuple[str, ...], **common: Any
    ) -> None:  # Any: click's values
        panel: Panel = obj.app.panel
        if lists:
            _list(obj, panel, kind)
            return
        if action is None:
            raise click.UsageError("Missing argument 'ACTION'. --list shows them.")
        chosen = _chosen(panel, kind, action)
        _perform(obj, chosen, arguments, **common)

    return command


_UNORDERED: Final = {"ignore_unknown_options": True}


def _chosen(panel: Panel, kind: Kind, action: str) -> ControlCommand:
    chosen = panel.find(action)
    if chosen is not None and chosen.kind == kind:
        return chosen
    names = ", ".join(command.name for command in panel if command.kind == kind and command.visible)
    if chosen is not None:
        raise click.UsageError(f"{action} is a command of `celery {chosen.kind}`. Here are: {names}.")
    near = panel.near(action)
    meant = f" Did you mean {near}?" if near else ""
    raise click.UsageError(f"Command {action} not recognized.{meant} Available {kind} commands: {names}")


def _list(obj: CLIContext, panel: Panel, kind: Kind) -> None:
    obj.echo(f"{kind.capitalize()} Commands:")
    for command in panel:
        if command.kind == kind and command.visible:
            usage = f"{command.name} {command.signature or ''}".strip()
            obj.echo(f"  {usage:<50} {command.help or ''}".rstrip())


def arguments_of(command: ControlCommand, words: Sequence[str]) -> dict[str, Any]:
    """Return what the words on the command line are called in a command.

    Raises:
        UsageError: A word is not of the type that is wanted, or there are too many.
    """
    arguments: dict[str, Any] = {}
    for (name, convert), word in zip(command.args, words, strict=False):
        try:
            arguments[name] = convert(word)
        except ValueError as exc:
            raise click.UsageError(f"{command.name}: {name} cannot be {word!r}: {exc}.") from exc
    rest = list(words[len(command.args) :])
    if command.variadic is not None:
        arguments[command.variadic] = rest
    elif rest:
        usage = f"{command.name} {command.signature or ''}".strip()
        raise click.UsageError(f"{command.name} takes no argument {rest[0]!r}. Usage: {usage}")
    return arguments


def _perform(
    obj: CLIContext,
    command: ControlCommand,
    words: Sequence[str],
    *,
    timeout: float | None,
    destination: str | None,
    as_json: bool,
) -> None:
    arguments = arguments_of(command, words)
    show: Show | None = None if as_json else lambda reply: _show(obj, reply)
    seconds, nodes = timeout or command.default_timeout, nodes_of(destination)
    if command.name == "shutdown":  # it answers nothing: whoever is there is asked before
        found = ask(obj, "ping", {}, seconds, nodes)
        obj.app.control.broadcast(command.name, arguments, destination=nodes)
        if not found:
            raise Unavailable(no_answer(obj, nodes))
        return
    replies = ask(obj, command.name, arguments, seconds, nodes, show)
    if not replies:
        raise Unavailable(no_answer(obj, nodes))
    if as_json:
        told: Any = replies if command.kind == "control" else _by_node(replies)
        obj.echo(json.dumps(told, default=repr))
    elif command.kind == "inspect":
        obj.echo(footer(len(_by_node(replies))))


def nodes_of(destination: str | None) -> list[str] | None:
    """Return the names in an option; None for all nodes."""
    names = [name.strip() for name in (destination or "").split(",") if name.strip()]
    return names or None


def ask(
    obj: CLIContext,
    name: str,
    arguments: Mapping[str, Any],
    seconds: float,
    nodes: list[str] | None,
    show: Show | None = None,
) -> list[Reply]:
    """Return the answers to a command; each is shown as it comes.

    Raises:
        Unavailable: The broker cannot be reached, or the command cannot be sent.
    """
    try:
        replies = obj.app.control.broadcast(
            name, arguments, destination=nodes, reply=True, timeout=seconds, callback=show
        )
    except TransportError as exc:
        _fail(
            "Could not connect to the message broker. Please make sure your broker is running and the broker "
            f"url is correct. {exc}"
        )
    except (CeleriacError, OSError) as exc:
        _fail(f"Unable to run the `{name}` command. Reason: {exc}")
    return replies or []


def no_answer(obj: CLIContext, nodes: Sequence[str] | None) -> str:
    """Return what is said when nobody has answered: with the name that was perhaps meant for one of these."""
    text = "No nodes replied within time constraint"
    if not nodes:
        return text
    there = _by_node(ask(obj, "ping", {}, _LOOK_AROUND_SECONDS, None))
    meant = {name: did_you_mean(name, there) for name in nodes}
    hints = [f" There is no {name}; did you mean {near}?" for name, near in meant.items() if near]
    if hints:
        return f"{text}.{''.join(hints)}"
    return f"{text}. There are: {', '.join(sorted(there))}." if there else text


def _fail(text: str) -> NoReturn:
    raise Unavailable(text)


def _by_node(replies: Sequence[Reply]) -> Reply:
    return {node: answer for reply in replies for node, answer in reply.items()}


def footer(count: int) -> str:
    """Return the line that says how many have answered."""
    return f"\n{count} {'node' if count == 1 else 'nodes'} online."


def _show(obj: CLIContext, reply: Reply) -> None:
    for node, answer in reply.items():
        head, body = described(answer)
        colour = "red" if head == "ERROR" else "green"
        obj.echo(f"->  {obj.style(node, fg='cyan')}: {obj.style(head, fg=colour, bold=True)}")
        if body and not obj.quiet:
            obj.echo(body)


def described(answer: Any) -> tuple[str, str]:
    """Return OK or ERROR, and the text of an answer, indented."""
    if isinstance(answer, Mapping) and "error" in answer:
        return "ERROR", _indented(str(answer["error"]), 2)
    if isinstance(answer, Mapping) and "ok" in answer:
        return "OK", _indented(_text(answer["ok"]), 2)
    return "OK", _indented(_text(answer), 1)


def _text(answer: Any) -> str:
    if isinstance(answer, (list, tuple)):
        if not answer:
            return "- empty -"
        return "\n".join(f"* {item}" for item in answer)
    if isinstance(answer, Mapping):
        return json.dumps(answer, indent=4, default=saferepr)
    return str(answer)


def _indented(text: str, times: int) -> str:
    return "\n".join(_INDENT * times + line for line in text.splitlines())
