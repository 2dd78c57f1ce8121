"""What a consumer holds: the deliveries that it has to settle, under the id that its leases are kept by."""

from __future__ import annotations

import uuid

import msgspec


class Token(msgspec.Struct, eq=False):
    """The transport's side of a delivery."""

    holding: Holding
    number: int
    field: bytes  # its name in the hash of leases
    message: bytes  # as it was in the list
    begun: bool = False
    caught: bool = False  # it lies in the list of what was caught, not in the hash yet


class Holding:
    """Everything held under one membership.

    When the broker has taken the leases back, the consumer starts over with a new one; tokens of the old
    one are void from then on.

    Args:
        node: The node's name, for people who look into the database.
    """

    def __init__(self, node: str) -> None:
        self._node = node
        self.id: str = ""  # of the present connection; "" before the first
        self.ids: list[str] = []  # that the server may know us by
        self.tokens: dict[bytes, Token] = {}  # by field
        self._number = 0

    def next_id(self) -> str:
        """Return an id for a new connection; one that no process ever had."""
        fresh = f"{self._node}/{uuid.uuid4().hex[:16]}"
        self.ids.append(fresh)
        return fresh

    def joined(self, id_: str) -> None:
        """Note that the server knows us by this id only."""
        self.id = id_
        self.ids = [id_]

    def reserve(self, count: int) -> int:
        """Return the first of as many numbers that were never used here."""
        first = self._number + 1
        self._number += count
        return first

    def add(self, number: int, field: bytes, message: bytes, *, begun: bool = False) -> Token:
        """Note one more delivery."""
        token = self.tokens[field] = Token(self, number, field, message, begun)
        return token

    def holds(self, token: Token) -> bool:
        """Whether the delivery is ours and not settled yet."""
        return token.holding is self and token.field in self.tokens


def number_of(field: bytes) -> int:
    """Return the number in the name of a field."""
    return int(field.partition(b":")[0])


def list_of(field: bytes) -> bytes:
    """Return the list in the name of a field; without the key prefix."""
    return field.partition(b":")[2]
