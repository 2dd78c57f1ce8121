"""``celery upgrade``: bring what was written for old versions up to date."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import click

from celeriac.cli.context import CLIContext
from celeriac.settings.table import BY_OLD


@click.group("upgrade")
def command() -> None:
    """Bring what was written for old versions up to date."""


@command.command("settings")
@click.argument("filename", type=click.Path(exists=True, dir_okay=False))
@click.option(
    "--django", is_flag=True, help="The names that a namespace CELERY takes: CELERY_TASK_ACKS_LATE."
)
@click.option("--compat", is_flag=True, help="The same as --django.")
@click.option("--no-backup", is_flag=True, help="Keep no copy of the file as it was.")
@click.pass_obj
def settings(obj: CLIContext, filename: str, django: bool, compat: bool, no_backup: bool) -> None:
    """Rewrite a settings module with the new names of the settings; the old file stays as FILE.orig."""
    path = Path(filename)
    text = path.read_text()
    upgraded = upgrade(text, prefixed=django or compat)
    if upgraded == text:
        obj.echo("Does not seem to require any changes :-)")
        return
    if not no_backup:
        backup = shutil.copy2(path, f"{path}.orig")
        obj.say(f"The file as it was is {backup}.")
    path.write_text(upgraded)
    obj.echo("Changes to your setting have been made!")


def upgrade(text: str, *, prefixed: bool) -> str:
    """Return a module's text with the settings' new names, where lines begin with an old one.

    Args:
        text: Python.
        prefixed: Whether to use the upper-case names with the prefix ``CELERY_``.
    """

    def new(match: re.Match[str]) -> str:
        setting = BY_OLD.get(match[2])
        if setting is None:
            return match[0]
        return match[1] + (f"CELERY_{setting.name.upper()}" if prefixed else setting.name) + match[3]

    return re.sub(r"(?m)^([ \t]*)([A-Z][A-Z0-9_]*)(\s*(?::[^=\n]*)?(?:[+|]?=)(?!=))", new, text)
