"""Tables on the terminal, safe to show whatever a message holds."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from rich.console import Console
from rich.table import Table

from celeriac.cli.context import CLIContext


def draw(
    obj: CLIContext, titles: Sequence[str], rows: Iterable[Sequence[str]], whole: Collection[str] = ()
) -> None:
    """Draw a table for people; in a pipe it is as wide as it needs to be.

    Args:
        obj: Speaks to the person.
        titles: Of the columns.
        rows: One text per column.
        whole: Titles of the columns that are never broken into lines.
    """
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in titles:
        table.add_column(title, overflow="fold", no_wrap=title in whole)
    for row in rows:
        table.add_row(*map(plain, row))
    console = Console(no_color=obj.no_color, highlight=False, markup=False)
    if not console.is_terminal:
        console = Console(no_color=True, highlight=False, markup=False, width=10_000)
    console.print(table)


def plain(text: str) -> str:
    """Return the text without control characters: a hostile message must not paint on the terminal."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
