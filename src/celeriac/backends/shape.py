"""The shape of a chord's header that has groups inside: its body gets a list where such a group stands.

What is a group is a member that ends in one, such as a chain; the members of a group that is itself a member
belong to the header.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from celeriac.errors import ChordError
from celeriac.message import Outcome
from celeriac.states import FAILURE, SUCCESS

Shape = Any  # nested result tuples: ((id, parent), members), members being None for one task


class Store(Protocol):
    """What is needed of a result store; see `celeriac.ports.ResultBackend`."""

    def fetch(self, ids: Sequence[str]) -> dict[str, Outcome]:
        """Return what is known of the ids."""
        ...

    def restore_group(self, group_id: str) -> Shape | None:
        """Return the shape, or None."""
        ...


def shape_of(chord_id: str, members: Shape) -> Shape | None:
    """Return the shape of a header, to be kept under its id; None when it has no groups inside.

    Args:
        chord_id: The header's id.
        members: The header's result tuple, or those of its members.
    """
    children = members[1] if members and isinstance(members[0][0], str) else members
    has_groups = any(child[1] is not None for child in children or ())
    return [[chord_id, None], children] if has_groups else None


def shaped(store: Store, chord_id: str, parts: Sequence[Outcome]) -> list[Outcome]:
    """Return one outcome for each member of a header, whose shape may have been kept."""
    shape = store.restore_group(chord_id)
    return list(parts) if shape is None else in_shape(store, shape, parts)


def in_shape(store: Store, shape: Shape, parts: Sequence[Outcome]) -> list[Outcome]:
    """Return one outcome for each member of a header with groups inside: a group's has a list of values.

    Parts that the chord has grown by are no members; they come last.
    """
    known = {part.id: part for part in parts}
    leaves = dict.fromkeys(_leaves(shape))
    missing = [leaf for leaf in leaves if leaf not in known]
    if missing:
        known.update(store.fetch(missing))
    added = [part for part in parts if part.id not in leaves]
    return [*(_joined(member, known) for member in shape[1]), *added]


def _leaves(member: Shape) -> list[str]:
    """Return the ids of all tasks below a result tuple."""
    (own_id, _), children = member
    return [own_id] if children is None else [leaf for child in children for leaf in _leaves(child)]


def _joined(member: Shape, known: Mapping[str, Outcome]) -> Outcome:
    """Return the outcome of a task, or of a group with the list of its values; the first failure counts."""
    (own_id, _), children = member
    if children is None:
        missing = ChordError(f"The result of {own_id} is gone")
        return known.get(own_id) or Outcome(id=own_id, state=FAILURE, result=missing)
    joined = [_joined(child, known) for child in children]
    failed = next((outcome for outcome in joined if outcome.state != SUCCESS), None)
    return failed or Outcome(id=own_id, state=SUCCESS, result=[outcome.result for outcome in joined])
