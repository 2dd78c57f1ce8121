"""``celeriac config``: which settings count, and where they come from."""

from __future__ import annotations

import json
from typing import Final

import click

from celeriac.cli.context import CLIContext
from celeriac.cli.tables import draw
from celeriac.settings.model import Setting
from celeriac.settings.names import meant
from celeriac.settings.secrets import censor
from celeriac.settings.settings import Origin
from celeriac.settings.table import BY_NAME, BY_OLD

_FROM: Final[dict[Origin, str]] = {
    "environment": "environment",
    "code": "code",
    "added": "added defaults",
    "source": "configuration",
    "default": "default",
}


@click.group("config")
def command() -> None:
    """Show the settings that count."""


@command.command("show")
@click.argument("names", nargs=-1, metavar="[SETTING]...")
@click.option("-a", "--all", "everything", is_flag=True, help="Those too that nobody has set.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, for machines.")
@click.pass_obj
def showing(obj: CLIContext, names: tuple[str, ...], everything: bool, as_json: bool) -> None:
    """Show each setting's value and where it comes from, secrets hidden; without names, all that are set.

    Of several places the first in this list wins: the environment, the program's code, defaults that code
    has added, the configuration (a module, object or dict), the built-in default.
    """
    conf = obj.app.conf
    wanted = [_setting(name).name for name in names] or sorted(BY_NAME)
    facts = []
    for name in wanted:
        origin, said = conf.origin(name)
        if names or everything or origin != "default":
            source = _FROM[origin] + (f" ({said})" if said not in ("", name) else "")
            facts.append((name, censor(name, conf[name]), source))
    if as_json:
        for name, value, source in facts:
            obj.echo(json.dumps({"setting": name, "value": value, "from": source}, default=repr))
    elif facts:
        draw(
            obj, ("setting", "value", "from"), [(name, repr(value), source) for name, value, source in facts]
        )
    else:
        obj.say("Every setting has its default; --all shows them.")


def _setting(name: str) -> Setting:
    setting = BY_NAME.get(name) or BY_OLD.get(name)
    if setting is None:
        near = meant(name)
        hint = f" Did you mean {near}?" if near else ""
        raise click.UsageError(f"There is no setting {name!r}.{hint}")
    return setting
