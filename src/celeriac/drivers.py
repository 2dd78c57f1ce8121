"""Transports, backends, pools and commands by name: our own from a table, others' from entry points."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from celeriac.settings.spelling import did_you_mean


def load(dotted: str) -> Any:  # Any: whatever it names
    """Import ``module:attribute`` (``module.attribute`` means the same).

    Raises:
        ImportError: There is no such module.
        AttributeError: It has no such attribute.
    """
    module, colon, attribute = dotted.partition(":")
    if not colon:
        module, _, attribute = dotted.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def find(name: str, built_in: Mapping[str, str], group: str) -> Any | None:  # Any: whatever it names
    """Return what has a name, imported now; None when nothing has.

    Args:
        name: Such as ``redis``.
        built_in: Our own, as dotted names; they come first.
        group: The entry points of other packages.
    """
    if name in built_in:
        return load(built_in[name])
    for entry in entry_points(group=group, name=name):
        return entry.load()
    return None


def hint(name: str, built_in: Mapping[str, str], group: str) -> str:
    """Return the end of an error about an unknown name: the one that was meant, and all there are."""
    known = sorted({*built_in, *(entry.name for entry in entry_points(group=group))})
    meant = did_you_mean(name, known)
    return f"{f'did you mean {meant!r}? Known' if meant else 'known'}: {', '.join(known)}."


def entry_points(**which: str) -> Any:  # Any: EntryPoints, whose module is imported here only
    """Return the entry points that fit, as `importlib.metadata.entry_points` does."""
    # It takes a fifth of the time of a client's start to import, and only names of other packages need it.
    return importlib.import_module("importlib.metadata").entry_points(**which)
