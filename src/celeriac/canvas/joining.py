"""What ``a | b`` makes of two signatures: one table of rules for all kinds."""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Iterable, Sequence
from typing import Any

from celeriac.canvas.chain import _chain
from celeriac.canvas.chord import _chord
from celeriac.canvas.group import group
from celeriac.canvas.signature import Signature


def join(left: Signature, right: Signature) -> Any:
    """Return the workflow of one signature, then another.

    A group that something follows becomes a chord: its members' results are needed together. What follows
    a chord follows its body. Nothing given is changed.
    """
    left, right = left.as_part(), right.as_part()
    if isinstance(left, group):
        return _chord(left, body=right, app=left._app)
    if isinstance(left, _chain):
        return _after_chain(left, right)
    if isinstance(left, _chord):
        return _after_chord(left, right)
    if isinstance(right, group) and len(right.tasks) == 1:
        return _chain([left, right.tasks[0]], app=left._app)
    following = right.unchained() if isinstance(right, _chain) else [right]
    return _chain([left, *following], app=left._app)


def join_all(first: Signature, others: Iterable[Signature]) -> Any:
    """Return what ``|`` makes of signatures, one after the other.

    Plain calls in a row cost one copy of what is before them: joined one by one, they would cost a copy each,
    a second and a half for a thousand.
    """
    whole: Any = first
    for plain, row in itertools.groupby(others, lambda sig: type(sig) is Signature):
        if plain and getattr(type(whole), "__or__", None) is Signature.__or__:  # nobody has overridden it
            whole = _with_calls(whole, list(row))
        else:
            whole = functools.reduce(operator.or_, row, whole)
    return whole


def _with_calls(left: Signature, calls: Sequence[Signature]) -> Any:
    """Return the workflow of one signature, then plain calls."""
    whole: Any = functools.reduce(join, calls[:2], left)
    if len(calls) <= 2:
        return whole
    # Two calls after anything are the end of a chain that was made just now, wherever that is.
    end = whole
    while isinstance(end, _chord) or isinstance(end.tasks[-1], _chord):
        end = (end if isinstance(end, _chord) else end.tasks[-1]).body
    end.tasks = [*end.tasks[:-1], *(call.clone() for call in calls[1:-1]), calls[-1]]
    return whole


def _after_chain(left: _chain, right: Signature) -> Any:
    if isinstance(right, group) and len(right.tasks) == 1:
        return _after_chain(left, right.tasks[0])
    if isinstance(right, _chain):
        return functools.reduce(join, right.unchained(), left)
    if isinstance(right, group):
        if not left.tasks:
            return right
        if isinstance(left.tasks[-1], _chord):
            return _with_last_body(left, right)
        return _appended(left, right)
    last = left.tasks[-1] if left.tasks else None
    if isinstance(last, group):
        return _upgraded(left, right)
    if isinstance(last, _chord) and not isinstance(right, _chord):
        return _with_last_body(left, right)
    return _appended(left, right)


def _after_chord(left: _chord, right: Signature) -> Any:
    if isinstance(right, _chain):
        return _chain([left, *right.unchained()], app=left._app)
    if isinstance(right, group):
        if len(right.tasks) != 1:
            return _chain([left, right], app=left._app)
        right = right.tasks[0]
    copy = left.clone()
    copy.body = join(copy.body, right)
    return copy


def _appended(left: _chain, right: Signature) -> _chain:
    """Return a longer chain; what was linked to the shorter one stays with its steps."""
    return _chain([*left.unchained(), right], app=left._app)


def _unlinked(chain: _chain) -> _chain:
    """Return a copy whose steps have what was linked to the chain: its end will be another one."""
    copy = chain.clone()
    if copy.options.get("link") or copy.options.get("link_error"):
        copy.tasks = copy.unchained()
        copy.options.pop("link", None)
        copy.options.pop("link_error", None)
    return copy


def _with_last_body(left: _chain, right: Signature) -> _chain:
    """Return a chain that ends in a chord, with something after that chord's body."""
    copy = _unlinked(left)
    copy.tasks[-1].body = join(copy.tasks[-1].body, right)
    return copy


def _upgraded(left: _chain, right: Signature) -> Any:
    """Return a chain that ends in a group, the group made a chord with what follows as its body."""
    copy = _unlinked(left)
    made = _chord(copy.tasks[-1], body=right, app=left._app)
    before = copy.tasks[-2] if len(copy.tasks) > 1 else None
    if isinstance(before, _chord):
        before.body = join(before.body, made)
        copy.tasks = copy.tasks[:-1]
    else:
        copy.tasks = [*copy.tasks[:-1], made]
    return copy
