"""What a command is given to work with."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from celeriac.app import Celeriac
from celeriac.control.panel import Panel
from celeriac.wire.control import Command

if TYPE_CHECKING:  # the command line knows the commands too, and shall not load a worker for that
    from celeriac.control.gossip import Gossip
    from celeriac.node.node import Node

_SAMPLES: Final = 100  # of memory that are remembered


class State:
    """The node that a command is for.

    Args:
        node: The node.
        panel: The commands that it knows.
        consumer: What commands of users find as ``state.consumer``.
        gossip: What the node hears of others; None when it does not listen.
    """

    def __init__(
        self,
        node: Node,
        panel: Panel,
        consumer: Any = None,  # Any: others' class
        gossip: Gossip | None = None,
    ) -> None:
        self.node = node
        self.gossip = gossip
        self.panel = panel
        self.app: Celeriac = node.app
        self.hostname: str = node.hostname
        self.consumer = consumer
        self.command: Command | None = None  # the one that is done at the moment
        self.tset: type[set[Any]] = set
        self.memory: deque[str] = deque(maxlen=_SAMPLES)  # what the latest `memsample` have told


NO_ANSWER = object()  # returned by a command that is not answered


def ok(text: str) -> dict[str, str]:
    """Return the answer of a command that went well."""
    return {"ok": text}


def nok(text: str) -> dict[str, str]:
    """Return the answer of a command that did not."""
    return {"error": text}
