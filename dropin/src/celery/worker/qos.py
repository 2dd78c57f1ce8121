"""How many messages a worker holds at most, as steps and commands read and change it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from celeriac.node.node import Node

__all__ = ("QoS",)


class QoS:
    """Reads and changes the prefetch of a node.

    Args:
        node: The node.
    """

    def __init__(self, node: Node) -> None:
        self._node = node

    @property
    def value(self) -> int:
        """The number now; 0: no limit."""
        return self._node.dispatcher.prefetch()

    def increment_eventually(self, n: int = 1) -> int:
        """Hold so many more from now on."""
        return self._change(max(n, 0))

    def decrement_eventually(self, n: int = 1) -> int:
        """Hold so many fewer from now on."""
        return self._change(-max(n, 0))

    def _change(self, by: int) -> int:
        dispatcher = self._node.dispatcher
        prefetch = max(dispatcher.base + by, 1) if dispatcher.base else 0
        self._node.post(lambda: dispatcher.rebase(prefetch))
        return prefetch
