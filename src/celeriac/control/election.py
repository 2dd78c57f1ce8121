"""Elections among workers: one of them does something once, and all agree on which. Pure.

Every worker that is told of an election stands for it; every worker tells that it has heard of each that
stands. Who has heard that from all the others knows all candidates that can win, for a candidate that has
stood after hearing of another has a higher clock; the lowest wins.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

import msgspec

from celeriac.latest import Latest

_MOST_OPEN: Final = 100  # elections that are not decided; the oldest are given up


class Elected(msgspec.Struct, frozen=True):
    """The result of an election."""

    leader: str  # the one who has won, as `node.pid`
    topic: str  # what is to be done
    action: Any  # Any: whatever the topic needs


class _Ballot:
    """One election."""

    def __init__(self) -> None:
        self.called = False
        self.candidates: dict[str, tuple[int, str, Any]] = {}  # by `node.pid`: clock, topic and action
        self.heard: set[str] = set()  # nodes that have heard of candidates


class Elections:
    """Counts the votes of the elections that one node hears of.

    Args:
        node: The node's name.
    """

    def __init__(self, node: str) -> None:
        self._node = node
        self._open: Latest[str, _Ballot] = Latest(_MOST_OPEN)
        self._over: Latest[str, None] = Latest(_MOST_OPEN)

    def call(self, election_id: str) -> bool:
        """Note that there is an election; return whether the node shall stand, which it does once."""
        if election_id in self._over:
            return False
        ballot = self._ballot(election_id)
        stands, ballot.called = not ballot.called, True
        return stands

    def stand(self, event: dict[str, Any]) -> None:
        """Note a candidate, from the event ``worker-elect``.

        Raises:
            KeyError, TypeError, ValueError: The event lacks something.
        """
        election_id, clock = str(event["id"]), int(event["clock"])
        if election_id not in self._over:
            candidate = f"{event['hostname']}.{event['pid']}"
            stood = (clock, str(event["topic"]), event["action"])
            self._ballot(election_id).candidates[candidate] = stood

    def hear(self, event: dict[str, Any], others: Collection[str]) -> Elected | None:
        """Note that a node has heard of a candidate, from the event ``worker-elect-ack``.

        Args:
            event: The event.
            others: The names of all other nodes that are alive.

        Returns:
            Who has won, as soon as that is certain, and once.

        Raises:
            KeyError: The event lacks something.
        """
        election_id = str(event["id"])
        ballot = self._open.get(election_id)
        if ballot is None or not ballot.called:
            return None
        ballot.heard.add(str(event["hostname"]))
        if not ballot.candidates or not ballot.heard.issuperset({*others, self._node}):
            return None
        del self._open[election_id]
        self._over.note(election_id, None)
        clock_of = {name: stood[0] for name, stood in ballot.candidates.items()}
        leader = min(clock_of, key=lambda name: (clock_of[name], name))
        _, topic, action = ballot.candidates[leader]
        return Elected(leader, topic, action)

    def _ballot(self, election_id: str) -> _Ballot:
        ballot = self._open.get(election_id)
        if ballot is None:
            ballot = _Ballot()
            self._open.note(election_id, ballot)
        return ballot
