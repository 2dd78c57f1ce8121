"""Touch: whether the broker hears us, which is asked before anything begins."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from celeriac.node.link import Link
from celeriac.ports import Unheard

WINDOW_SECONDS = 0.005  # so long after an answer the broker is taken to hear us
_AHEAD_SECONDS = 0.0025  # so long after an answer the next one is asked for, that nobody has to wait for it
_AGAIN_SECONDS = 0.1  # before a broker is asked again that could not be


class Touch:
    """Knows whether what is here is certainly ours to begin.

    Redis hands over messages that it was asked for up to a second ago. A network that swallows what we say
    lets those in, and the word that their tasks have begun never gets out: others run them again. So nothing
    begins unless the broker has just answered, and when it has not, it is asked.

    Args:
        link: To the broker.
        on_touch: Called when it has answered, or is to be asked once more.
    """

    def __init__(self, link: Link, on_touch: Callable[[], None]) -> None:
        self._link = link
        self._on_touch = on_touch
        self._asking = False
        self.asked: int = 0  # how often

    def certain(self) -> bool:
        """Return whether a task may begin; if not, ``on_touch`` is called when that should be asked again."""
        if not self._link.sure:
            return False
        if not self._link.transport.caps.hands_over:
            return True
        consumer = cast("Unheard", self._link.consumer)
        age = asyncio.get_running_loop().time() - consumer.heard_at
        if age > _AHEAD_SECONDS and not self._asking:
            self._asking = True
            self.asked += 1
            consumer.touch(self._touched)
        return age <= WINDOW_SECONDS

    def _touched(self, answered: bool) -> None:
        self._asking = False
        if answered:
            self._on_touch()
        else:
            asyncio.get_running_loop().call_later(_AGAIN_SECONDS, self._on_touch)
