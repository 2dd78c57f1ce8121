"""Stamps: labels on the calls of a workflow, which travel in the headers of their messages."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

NAMES = "stamped_headers"  # the option and header that tells which of the others are stamps

Stamps = dict[str, Any]  # Any: a stamp is a scalar or a list


class StampingVisitor(ABC):
    """Says what the parts of a workflow are stamped with: given to ``Signature.stamp``.

    Each method returns stamps by name. A key ``stamped_headers`` lists which of them are stamps; without it
    all of them are. ``headers`` are the stamps of what the part belongs to. They are called from the outside
    to the inside: a group before its members, and what is linked to a call before the call.
    """

    @abstractmethod
    def on_signature(self, sig: Any, **headers: Any) -> Stamps | None:
        """Return the stamps of one call."""

    def on_group_start(self, group: Any, **headers: Any) -> Stamps | None:
        """Return what all members of a group are stamped with."""
        return {}

    def on_group_end(self, group: Any, **headers: Any) -> None:  # noqa: B027 - optional
        """Run after the members of a group."""

    def on_chain_start(self, chain: Any, **headers: Any) -> Stamps | None:
        """Return what all steps of a chain are stamped with."""
        return {}

    def on_chain_end(self, chain: Any, **headers: Any) -> None:  # noqa: B027 - optional
        """Run after the steps of a chain."""

    def on_chord_header_start(self, sig: Any, **headers: Any) -> Stamps | None:
        """Return what header and body of a chord are stamped with: by default what its header is as group."""
        return self.on_group_start(sig.as_group(), **headers)

    def on_chord_header_end(self, sig: Any, **headers: Any) -> None:  # noqa: B027 - optional
        """Run after the members of a chord's header."""

    def on_chord_body(self, sig: Any, **headers: Any) -> Stamps | None:
        """Return what the body of a chord is stamped with besides."""
        return {}

    def on_callback(self, callback: Any, **headers: Any) -> Stamps | None:
        """Return what a signature is stamped with besides that is applied after a success."""
        return {}

    def on_errback(self, errback: Any, **headers: Any) -> Stamps | None:
        """Return what a signature is stamped with besides that is applied after a failure."""
        return {}


def merge(sources: Sequence[Mapping[str, Any] | None], *, append: bool) -> Stamps:
    """Return the stamps of several sources as one, with their names in ``stamped_headers``.

    Args:
        sources: Stamps by name, as visitors return them; the first has the last word.
        append: Collect the values of a name in a list. Lists are joined in any case.
    """
    merged: Stamps = {}
    names: dict[str, None] = {}
    for source in sources:
        for name in _names(source or {}):
            names[name] = None
        for name, value in (source or {}).items():
            if name == NAMES:
                continue
            if name not in merged:
                merged[name] = list(value) if isinstance(value, list) else value
            elif name in names and (append or (_is_list(merged[name]) and _is_list(value))):
                merged[name] = [*_listed(merged[name]), *_listed(value)]
    return {**merged, NAMES: list(names)}


def of_options(options: Mapping[str, Any]) -> Stamps:
    """Return the stamps among the options of a signature."""
    names = options.get(NAMES) or ()
    return {**{name: options[name] for name in names if name in options}, NAMES: list(names)}


def _names(source: Mapping[str, Any]) -> list[str]:
    named = source.get(NAMES)
    return list(source if named is None else named)


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple, set, frozenset)) else [value]
