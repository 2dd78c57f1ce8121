"""Colours of a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final

__all__ = ("colored",)

BLACK, RED, GREEN, YELLOW, BLUE, MAGENTA, CYAN, WHITE = range(8)
OP_SEQ: Final = "\x1b[%dm"
RESET_SEQ: Final = "\x1b[0m"
COLOR_SEQ: Final = "\x1b[1;%dm"
IS_WINDOWS: Final = sys.platform == "win32"


def fg(s: int) -> str:
    """Return what makes the following text of a colour."""
    return COLOR_SEQ % s


class colored:  # noqa: N801 - Celery's name
    """Texts with colours: ``str(colored().red("text"))``.

    Args:
        *s: Texts and coloured texts.
        **kwargs: ``enabled``: whether there are colours; ``op``: the sequence before the text.
    """

    def __init__(self, *s: object, **kwargs: Any) -> None:
        self.s: tuple[object, ...] = s
        self.enabled: bool = not IS_WINDOWS and kwargs.get("enabled", True)
        self.op: str = kwargs.get("op", "")
        self.names: dict[str, Callable[..., colored]] = {
            "black": self.black,
            "red": self.red,
            "green": self.green,
            "yellow": self.yellow,
            "blue": self.blue,
            "magenta": self.magenta,
            "cyan": self.cyan,
            "white": self.white,
        }

    def embed(self) -> str:
        """Return the text with its colour on, and not reset."""
        parts = [self.op if self.enabled else ""]
        parts += [one.embed() if isinstance(one, colored) else str(one) for one in self.s]
        return "".join(parts)

    def no_color(self) -> str:
        """Return the text without colours."""
        return "".join(one.no_color() if isinstance(one, colored) else str(one) for one in self.s)

    def __str__(self) -> str:
        suffix = RESET_SEQ if self.enabled else ""
        parts = [self.op if self.enabled else ""]
        parts += [str(one) for one in self.s]
        return f"{''.join(parts)}{suffix}"

    def __repr__(self) -> str:
        return repr(self.no_color())

    def __add__(self, other: object) -> str:
        return f"{self}{other}"

    def node(self, s: tuple[object, ...], op: str) -> colored:
        """Return texts with a sequence before them."""
        return type(self)(*s, enabled=self.enabled, op=op)

    def _fg(self, s: tuple[object, ...], colour: int) -> colored:
        return self.node(s, fg(30 + colour))

    def _bg(self, s: tuple[object, ...], colour: int) -> colored:
        return self.node(s, fg(40 + colour))

    def black(self, *s: object) -> colored:
        """Return black texts."""
        return self._fg(s, BLACK)

    def red(self, *s: object) -> colored:
        """Return red texts."""
        return self._fg(s, RED)

    def green(self, *s: object) -> colored:
        """Return green texts."""
        return self._fg(s, GREEN)

    def yellow(self, *s: object) -> colored:
        """Return yellow texts."""
        return self._fg(s, YELLOW)

    def blue(self, *s: object) -> colored:
        """Return blue texts."""
        return self._fg(s, BLUE)

    def magenta(self, *s: object) -> colored:
        """Return magenta texts."""
        return self._fg(s, MAGENTA)

    def cyan(self, *s: object) -> colored:
        """Return cyan texts."""
        return self._fg(s, CYAN)

    def white(self, *s: object) -> colored:
        """Return white texts."""
        return self._fg(s, WHITE)

    def bold(self, *s: object) -> colored:
        """Return bold texts."""
        return self.node(s, OP_SEQ % 1)

    def underline(self, *s: object) -> colored:
        """Return underlined texts."""
        return self.node(s, OP_SEQ % 4)

    def blink(self, *s: object) -> colored:
        """Return blinking texts."""
        return self.node(s, OP_SEQ % 5)

    def reverse(self, *s: object) -> colored:
        """Return texts with the colours changed for each other."""
        return self.node(s, OP_SEQ % 7)

    def bright(self, *s: object) -> colored:
        """Return texts as Celery's ``bright`` has them."""
        return self.node(s, OP_SEQ % 8)

    def ired(self, *s: object) -> colored:
        """Return texts on red."""
        return self._bg(s, RED)

    def igreen(self, *s: object) -> colored:
        """Return texts on green."""
        return self._bg(s, GREEN)

    def iyellow(self, *s: object) -> colored:
        """Return texts on yellow."""
        return self._bg(s, YELLOW)

    def iblue(self, *s: object) -> colored:
        """Return texts on blue."""
        return self._bg(s, BLUE)

    def imagenta(self, *s: object) -> colored:
        """Return texts on magenta."""
        return self._bg(s, MAGENTA)

    def icyan(self, *s: object) -> colored:
        """Return texts on cyan."""
        return self._bg(s, CYAN)

    def iwhite(self, *s: object) -> colored:
        """Return texts on white."""
        return self._bg(s, WHITE)

    def reset(self, *s: object) -> colored:
        """Return texts without colours of their own."""
        return type(self)(*(s or ("",)), enabled=self.enabled, op=RESET_SEQ)


def supports_images() -> bool:
    """Return whether the terminal can show images: none that we know is asked."""
    return False


def imgcat(path: str, inline: int = 1, preserve_aspect_ratio: int = 0, **kwargs: Any) -> str:
    """Return nothing: images in terminals are not supported."""
    return ""
