"""``celery call``: send a task by name."""

from __future__ import annotations

import datetime
import json
from typing import Any

import click

from celeriac.cli.context import CLIContext


class JsonValue(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.2 on only
    """An argument that is JSON of one kind.

    Args:
        kind: The Python type that it must be.
        name: What to call it in messages.
    """

    def __init__(self, kind: type, name: str) -> None:
        self._kind = kind
        self.name = name

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:  # Any: any JSON
        """Return the value of the text."""
        if isinstance(value, self._kind):
            return value
        try:
            decoded = json.loads(value)
        except ValueError as exc:
            self.fail(f"{value!r} is not JSON: {exc}", param, ctx)
        if not isinstance(decoded, self._kind):
            self.fail(f"{value!r} is not a {self.name}", param, ctx)
        return decoded


class Moment(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.2 on only
    """A moment in ISO 8601."""

    name = "ISO 8601"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:  # Any: click's values
        """Return the text as it is, if it is a moment."""
        try:
            datetime.datetime.fromisoformat(value)
        except ValueError as exc:
            self.fail(f"{value!r} is no {self.name}: {exc}", param, ctx)
        return value


class NumberOrTime(Moment):
    """Seconds, or a moment in ISO 8601."""

    name = "seconds or ISO 8601"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:  # Any: float or str
        """Return seconds as a float, a moment as it is."""
        try:
            return float(value)
        except ValueError:
            return super().convert(value, param, ctx)


@click.command("call")
@click.argument("name")
@click.option("-a", "--args", type=JsonValue(list, "JSON array"), default="[]", help="Positional arguments.")
@click.option("-k", "--kwargs", type=JsonValue(dict, "JSON object"), default="{}", help="Keyword arguments.")
@click.option("--eta", type=Moment(), help="Not before this moment, in ISO 8601.")
@click.option("--countdown", type=float, help="Not before so many seconds from now.")
@click.option("--expires", type=NumberOrTime(), help="Discard it after this.")
@click.option("--serializer", help="json, pickle, yaml, msgpack or auth.")
@click.option("--queue", help="Send it to this queue.")
@click.option("--exchange", help="Send it to this exchange.")
@click.option("--routing-key", help="With this routing key.")
@click.pass_obj
def command(
    obj: CLIContext, /, name: str, args: list[Any], kwargs: dict[str, Any], **options: Any
) -> None:  # Any: JSON
    """Send a task by name and print its id."""
    given = {key: value for key, value in options.items() if value is not None}
    obj.echo(obj.app.send_task(name, args=args, kwargs=kwargs, **given).id)
