"""``celeriac dlq``: what was given up on and why; send it again, or throw it away."""

from __future__ import annotations

import datetime
import functools
import json
import re
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, get_args

import click
import msgspec

from celeriac.app import Celeriac
from celeriac.cli.context import CLIContext
from celeriac.cli.tables import draw
from celeriac.letters import MOST_LETTERS, Letter, Wanted, task_id_of, task_of
from celeriac.message import LetterKind
from celeriac.settings.spelling import did_you_mean

_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_SHOWN_BYTES: Final = 2048

Command = Callable[..., None]


class Choice(msgspec.Struct, frozen=True):
    """Which letters a person means."""

    queues: tuple[str, ...]
    wanted: Wanted

    @property
    def narrow(self) -> bool:
        """Whether they said so, and do not mean simply all there are."""
        return self.wanted != Wanted()


class _Moment(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.2 on only
    """How long ago (``90s``, ``2h``, ``7d``), or a moment in ISO 8601; becomes epoch seconds."""

    name = "age|time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the moment; ends the command when the text is neither."""
        if isinstance(value, float):
            return value
        ago = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", value)
        if ago is not None:
            return time.time() - float(ago[1]) * _SECONDS[ago[2]]
        try:
            moment = datetime.datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is neither an age, such as 90s, 30m, 2h or 7d, nor a time in ISO 8601.")
        return moment.timestamp()  # one without an offset is this machine's


_OPTIONS: Final = (
    click.option("-Q", "--queue", "--queues", "queues", metavar="NAMES", help="Only these queues: a,b."),
    click.option("--name", "names", multiple=True, metavar="TASK", help="Only this task; may be repeated."),
    click.option(
        "--reason",
        "kinds",
        multiple=True,
        type=click.Choice(get_args(LetterKind)),
        help="Only given up for this; may be repeated.",
    ),
    click.option("--id", "ids", multiple=True, help="Only this letter or task; may be repeated."),
    click.option("--since", type=_Moment(), help="Only given up since then."),
    click.option("--older", type=_Moment(), help="Only given up before that."),
)


def _choosing(command: Command) -> Command:
    """Give a command the filters, and their meaning as its argument ``choice``."""

    @functools.wraps(command)
    def chosen(
        obj: CLIContext,
        *,
        queues: str | None,
        names: tuple[str, ...],
        kinds: tuple[str, ...],
        ids: tuple[str, ...],
        since: float | None,
        older: float | None,
        **rest: Any,  # Any: the command's own
    ) -> None:
        given = _places(obj.app, queues)
        wanted = Wanted(
            names=frozenset(names), kinds=frozenset(kinds), ids=frozenset(ids), since=since, before=older
        )
        command(obj, choice=Choice(given, wanted), **rest)

    result: Command = click.pass_obj(chosen)
    for option in reversed(_OPTIONS):
        result = option(result)
    return result


@click.group("dlq")
def command() -> None:
    """Dead letters: messages that could not be read or run. List, show, retry or purge them."""


@click.command("list")
@_choosing
@click.option("-n", "--limit", default=20, show_default=True, help="At most so many of each queue.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, for machines.")
def listing(obj: CLIContext, choice: Choice, limit: int, as_json: bool) -> None:
    """List dead letters with the reason, newest first."""
    letters = _find(obj.app, choice, limit)
    if as_json:
        for letter in letters:
            obj.echo(json.dumps(_facts(letter)))
    elif letters:
        _draw(obj, letters)
    else:
        obj.say(_none(obj.app, choice))


@click.command("show")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.option("-Q", "--queue", "--queues", "queues", metavar="NAMES", help="Look in these queues: a,b.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, for machines.")
@click.pass_obj
def showing(obj: CLIContext, ids: tuple[str, ...], queues: str | None, as_json: bool) -> None:
    """Show all that is kept of dead letters, by their own id or their task's."""
    choice = Choice(_places(obj.app, queues), Wanted(ids=frozenset(ids)))
    letters = _find(obj.app, choice, MOST_LETTERS)
    for letter in letters:
        facts = _facts(letter) | _content(letter)
        if as_json:
            obj.echo(json.dumps(facts))
        else:
            for name, value in facts.items():
                obj.echo(f"{obj.style(f'{name:>12}', bold=True)}  {value}")
            obj.echo()
    if not letters:
        raise click.ClickException(_none(obj.app, choice))


@click.command("retry")
@_choosing
@click.argument("letters", nargs=-1, metavar="[ID]...")
@click.option("--all", "everything", is_flag=True, help="Whatever there is, when no filter is given.")
@click.option("-n", "--limit", default=MOST_LETTERS, show_default=True, help="At most so many of each queue.")
def retrying(obj: CLIContext, choice: Choice, letters: tuple[str, ...], everything: bool, limit: int) -> None:
    """Send dead letters to their queue again, as they were first sent: attempts count anew, ids stay."""
    choice = _with_ids(choice, letters)
    if not choice.narrow and not everything:
        raise click.UsageError("Say which: ids, filters such as --name and --reason, or --all.")
    graveyard = obj.app.transport.graveyard()
    moved = 0
    for queue in choice.queues:
        ids = [letter.id for letter in graveyard.find(queue, choice.wanted, limit)]
        moved += len(graveyard.retry(queue, ids)) if ids else 0
    _close(obj, choice, moved, "sent again")


@click.command("purge")
@_choosing
@click.argument("letters", nargs=-1, metavar="[ID]...")
@click.option("-f", "--force", is_flag=True, help="Do not ask first.")
@click.option("-n", "--limit", default=MOST_LETTERS, show_default=True, help="At most so many of each queue.")
def purging(obj: CLIContext, choice: Choice, letters: tuple[str, ...], force: bool, limit: int) -> None:
    """Throw dead letters away; without ids or filters, all of them. There is no way back."""
    choice = _with_ids(choice, letters)
    graveyard = obj.app.transport.graveyard()
    # What the person agrees to is what goes: nothing that died while they were reading the question.
    doomed = {
        queue: [letter.id for letter in graveyard.find(queue, choice.wanted, limit)]
        for queue in choice.queues
    }
    count = sum(map(len, doomed.values()))
    if count and not force:
        where = ", ".join(queue for queue, ids in doomed.items() if ids)
        click.confirm(f"This removes {_letters(count)} of {where} for good. Go on?", abort=True)
    removed = sum(len(graveyard.purge(queue, ids)) for queue, ids in doomed.items() if ids)
    _close(obj, choice, removed, "purged")


for _subcommand in (listing, showing, retrying, purging):
    command.add_command(_subcommand)


def _places(app: Celeriac, given: str | None) -> tuple[str, ...]:
    """Return the queues that were named, or all that the app names: in settings, routes and tasks."""
    app.finalize()
    if given:
        return tuple(name.strip() for name in given.split(","))
    of_tasks = (getattr(task, "queue", None) for task in app.tasks.values())
    names = [*app.router.mentioned(), *of_tasks]
    return tuple(dict.fromkeys(name for name in names if isinstance(name, str)))


def _with_ids(choice: Choice, ids: Sequence[str]) -> Choice:
    wanted = msgspec.structs.replace(choice.wanted, ids=choice.wanted.ids | frozenset(ids))
    return Choice(choice.queues, wanted)


def _find(app: Celeriac, choice: Choice, limit: int) -> list[Letter]:
    graveyard = app.transport.graveyard()
    return [letter for queue in choice.queues for letter in graveyard.find(queue, choice.wanted, limit)]


def _close(obj: CLIContext, choice: Choice, count: int, done: str) -> None:
    """Say how many it were; ids that name nothing are a mistake, filters that match nothing are none."""
    if count:
        obj.echo(f"{_letters(count).capitalize()} {done}.")
    elif choice.wanted.ids:
        raise click.ClickException(_none(obj.app, choice))
    else:
        obj.say(_none(obj.app, choice))


def _none(app: Celeriac, choice: Choice) -> str:
    """Return that there is nothing, with the name that was perhaps meant."""
    text = f"No dead letters{' like that' if choice.narrow else ''} in {', '.join(choice.queues)}."
    if not choice.wanted.names:
        return text
    names = {task_of(letter) for letter in _find(app, Choice(choice.queues, Wanted()), MOST_LETTERS)}
    for name in sorted(choice.wanted.names - names):
        meant = did_you_mean(name, sorted(names))
        if meant is not None:
            text += f" Did you mean --name {meant}?"
    return text


def _letters(count: int) -> str:
    return "one dead letter" if count == 1 else f"{count} dead letters"


def _facts(letter: Letter) -> dict[str, Any]:  # Any: JSON
    return {
        "queue": letter.queue,
        "letter": letter.id,
        "task": task_of(letter) or None,
        "id": task_id_of(letter) or None,
        "kind": letter.kind,
        "reason": letter.reason,
        "at": _when(letter.at),
        "node": letter.node,
        "attempt": letter.attempt,
    }


def _content(letter: Letter) -> dict[str, Any]:  # Any: JSON
    envelope = letter.envelope
    more = f" … ({len(envelope.body)} bytes)" if len(envelope.body) > _SHOWN_BYTES else ""
    return {
        "exchange": letter.exchange,
        "routing_key": letter.routing_key,
        "content_type": envelope.content_type,
        "headers": msgspec.to_builtins(envelope.headers, str_keys=True, enc_hook=repr),
        "properties": msgspec.to_builtins(envelope.properties, str_keys=True, enc_hook=repr),
        "body": envelope.body[:_SHOWN_BYTES].decode("utf-8", "backslashreplace") + more,
    }


def _when(at: float) -> str | None:
    if not at:
        return None
    return datetime.datetime.fromtimestamp(at).astimezone().isoformat(timespec="seconds")


def _draw(obj: CLIContext, letters: Sequence[Letter]) -> None:
    titles = ("letter", "queue", "task", "kind", "since", "attempt", "reason")
    rows = (
        (
            letter.id,
            letter.queue,
            f"{task_of(letter) or '(unreadable)'}[{task_id_of(letter) or '-'}]",
            letter.kind or "-",
            _when(letter.at) or "-",
            str(letter.attempt or "-"),
            letter.reason,
        )
        for letter in letters
    )
    draw(obj, titles, rows, whole=("letter", "kind"))
