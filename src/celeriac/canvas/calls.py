"""Which calls a workflow consists of: all of them, and those whose results are its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from celeriac.canvas.chain import _chain
from celeriac.canvas.chord import _chord
from celeriac.canvas.group import group
from celeriac.canvas.signature import listed


def calls_of(sig: Any) -> Iterator[Any]:
    """Yield all plain calls in a signature, the members of headers included."""
    if isinstance(sig, (_chain, group)):
        for part in sig.tasks:
            yield from calls_of(part)
    elif isinstance(sig, _chord):
        for part in sig.as_group().tasks:
            yield from calls_of(part)
        if sig.body is not None:
            yield from calls_of(sig.body)
    else:
        yield sig


def ends_of(sig: Any) -> Iterator[Any]:
    """Yield the plain calls whose results are the result of a signature."""
    if isinstance(sig, _chain):
        if sig.tasks:
            yield from ends_of(sig.tasks[-1])
    elif isinstance(sig, group):
        for member in sig.tasks:
            yield from ends_of(member)
    elif isinstance(sig, _chord):
        if sig.body is not None:
            yield from ends_of(sig.body)
    else:
        yield sig


def units_of(body: Any) -> Iterator[tuple[list[Any], list[Any]]]:
    """Yield what stands side by side in a body: the errbacks to apply when it cannot run, and its ends."""
    if isinstance(body, group):
        for member in body.tasks:
            yield from units_of(member)
    else:
        yield _errbacks_of_unrun(body), list(ends_of(body))


def _errbacks_of_unrun(sig: Any) -> list[Any]:
    """Return the errbacks of a signature that cannot run: as if its first call had failed."""
    found = listed(sig.options.get("link_error"))
    inner: Any = None
    if isinstance(sig, _chain) and sig.tasks:
        inner = sig.tasks[0]
    elif isinstance(sig, _chord):
        inner = sig.body
    members = sig.tasks if isinstance(sig, group) else [inner] if inner is not None else []
    for member in members:
        found += [errback for errback in _errbacks_of_unrun(member) if errback not in found]
    return found
