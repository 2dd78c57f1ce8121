"""What every command gets: the app, and how to speak to the person."""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:  # `--help` and `--version` need no app
    from celeriac.app import Celeriac


class CLIContext:
    """The ``ctx.obj`` of every command.

    Args:
        app_name: What ``-A`` named; None when it was not given.
        default_app: Makes the app of a command that was given none.
        version: What ``--version`` and the banner show.
        no_color: Whether the person wants no colours.
        quiet: Whether the person wants only what they asked for.
        workdir: The directory given by ``--workdir``.
        started_in: The working directory before that counted.
    """

    def __init__(
        self,
        app_name: str | None,
        default_app: Callable[[], Celeriac],
        *,
        version: str,
        no_color: bool = False,
        quiet: bool = False,
        workdir: str | None = None,
        started_in: str = ".",
    ) -> None:
        self.app_name = app_name
        self._default_app = default_app
        self._app: Celeriac | None = None
        self.version = version
        self.no_color = no_color
        self.quiet = quiet
        self.workdir = workdir
        self.started_in = started_in

    @property
    def app(self) -> Celeriac:
        """The app, imported when first asked for; ends the command with exit code 2 when there is none."""
        if self._app is None:
            self._app = self._load()
        return self._app

    def _load(self) -> Celeriac:
        if self.app_name is None:
            return self._default_app()
        locating = importlib.import_module("celeriac.cli.locate")
        try:
            found: Celeriac = locating.locate(self.app_name)
            return found
        except locating.AppNotFound as exc:
            text = str(exc)
        except Exception:  # noqa: BLE001 - the user's module may raise anything; show them where
            text = f"While trying to load the module {self.app_name} the following error occurred:\n"
            text += traceback.format_exc()
        raise click.UsageError(
            f"\nUnable to load celery application.\n{text}\n"
            "Give the app with -A, such as -A proj or -A proj.tasks:app, from the directory it is in."
        )

    def style(self, text: str, **style: str | bool) -> str:
        """Return the text in colour, unless the person wants none."""
        return text if self.no_color else click.style(text, **style)  # type: ignore[arg-type]  # click's own keywords

    def echo(self, text: str = "") -> None:
        """Show what was asked for."""
        click.echo(text)

    def say(self, text: str) -> None:
        """Show what is good to know, unless the person wants quiet."""
        if not self.quiet:
            click.echo(text)

    def error(self, text: str) -> None:
        """Show what went wrong, on standard error."""
        click.echo(self.style(text, fg="red"), err=True)
