"""Texts: shortened, indented, listed."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Callable, Mapping
from functools import partial
from pprint import pformat
from typing import Any, Final

__all__ = (
    "abbr",
    "abbrtask",
    "dedent",
    "dedent_initial",
    "ensure_newlines",
    "ensure_sep",
    "fill_paragraphs",
    "indent",
    "join",
    "pluralize",
    "pretty",
    "simple_format",
    "str_to_list",
    "truncate",
)

RE_FORMAT: Final = re.compile(r"%(\w)")


def str_to_list(s: Any) -> Any:  # Any: a text, or anything else as it is
    """Return the parts of a comma separated text; anything else as it is."""
    return s.split(",") if isinstance(s, str) else s


def dedent_initial(s: str, n: int = 4) -> str:
    """Return a text without ``n`` blanks at its beginning, if it has them."""
    return s[n:] if s[:n] == " " * n else s


def dedent(s: str, sep: str = "\n") -> str:
    """Return lines without four blanks at the beginning of each, if it has them."""
    return sep.join(dedent_initial(line) for line in s.splitlines())


def fill_paragraphs(s: str, width: int, sep: str = "\n") -> str:
    """Return lines, each broken to fit a width."""
    return sep.join(textwrap.fill(line, width) for line in s.split(sep))


def join(l: list[str], sep: str = "\n") -> str:  # noqa: E741 - Celery's name
    """Return the texts that are not empty with a separator between."""
    return sep.join(text for text in l if text)


def ensure_sep(sep: str, s: str, n: int = 2) -> str:
    """Return a text that ends with a separator ``n`` times at least."""
    ends = len(s) - len(s.rstrip(sep))
    return s + sep * max(n - ends, 0)


ensure_newlines: Final = partial(ensure_sep, "\n")


def abbr(S: str | None, max: int, ellipsis: str | bool = "...") -> str:  # noqa: N803 - Celery's name
    """Return a text that is ``max`` characters at most, ``???`` for none."""
    if S is None:
        return "???"
    if len(S) <= max:
        return S
    return f"{S[: max - len(ellipsis)]}{ellipsis}" if isinstance(ellipsis, str) and ellipsis else S[:max]


def abbrtask(S: str | None, max: int) -> str:  # noqa: N803 - Celery's name
    """Return a task's name with less of its module, when it is longer than ``max``: ``proj.[.]refresh``."""
    if S is None:
        return "???"
    if len(S) <= max:
        return S
    module, _, name = S.rpartition(".")
    return f"{abbr(module, max - len(name) - 3, False) if len(name) + 3 < max else ''}[.]{name}"


def indent(t: str, indent: int = 0, sep: str = "\n") -> str:
    """Return lines, each that is not empty with blanks before it."""
    return sep.join(" " * indent + line if line else line for line in t.split(sep))


def truncate(s: str, maxlen: int = 128, suffix: str = "...") -> str:
    """Return a text cut at ``maxlen``, at the last blank before it where there is one."""
    return s[:maxlen].rsplit(" ", 1)[0] + suffix if maxlen and len(s) >= maxlen else s


def pluralize(n: float, text: str, suffix: str = "s") -> str:
    """Return a word for a number of things: with the suffix, but for one."""
    return text if n == 1 else text + suffix


def pretty(value: Any, width: int = 80, nl_width: int = 80, sep: str = "\n", **kw: Any) -> str:
    """Return a value for people, on lines of its own when it is long.

    Args:
        value: The value.
        width: Characters in a line.
        nl_width: The longest that stays on one line.
        sep: Between the lines.
        **kw: As for ``pprint.pformat``.
    """
    if not isinstance(value, dict):
        return pformat(value, width=width, **kw)
    if len(repr(value)) <= nl_width:
        return f"{sep} {pformat(value, width=width, **kw)[1:]}"
    first, *others = pformat(value, width=4, **kw)[1:].splitlines()
    return sep + sep.join([f"    {first}", *(f"   {line}" for line in others)])


def match_case(s: str, other: str) -> str:
    """Return a text in the case of another one."""
    return s.upper() if other.isupper() else s.lower()


def simple_format(
    s: str,
    keys: Mapping[str, str | Callable[..., str]],
    pattern: re.Pattern[str] = RE_FORMAT,
    expand: str = r"\1",
) -> str:
    """Return a text with ``%h`` and such replaced.

    Args:
        s: The text.
        keys: What each letter stands for: a text, or a function that returns it.
        pattern: What is replaced.
        expand: How the letter is found in it.

    Raises:
        ValueError: A letter stands for nothing.
    """

    def replace(match: re.Match[str]) -> str:
        letter = match.expand(expand)
        if letter not in keys:
            raise ValueError(
                f"%{letter} in {s!r} stands for nothing: known are {', '.join(f'%{key}' for key in keys)}; "
                "a percent sign of its own is written twice"
            )
        value = keys[letter]
        return value() if callable(value) else value

    return pattern.sub(replace, s) if s else ""


def remove_repeating(substr: str, s: str) -> str:
    """Return a text in which a part occurs once only."""
    before, found, after = s.partition(substr)
    return before + found + after.replace(substr, "")


def remove_repeating_from_task(task_name: str, s: str) -> str:
    """Return a text in which the module of a task stands once only: ``p.t.add(2, 2), add(4, 4)``."""
    module, dot, _ = task_name.rpartition(".")
    return remove_repeating(module + dot, s) if module else s


class WhateverIO(io.StringIO):
    """A text in memory that bytes may be written to as well."""

    def __init__(self, v: bytes | str | None = None, *a: Any, **kw: Any) -> None:
        super().__init__(v.decode() if isinstance(v, bytes) else v, *a, **kw)

    def write(self, data: bytes | str) -> int:
        """Write text, or bytes of UTF-8."""
        return super().write(data.decode() if isinstance(data, bytes) else data)
