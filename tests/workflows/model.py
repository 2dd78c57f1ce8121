"""The reference interpreter: what becomes of a workflow, told without the code under test.

A workflow is described by calls and how they are put together. `interpret` says which value it has, or which
failures it may be told to have failed with, how often each call runs, and how often each callback and errback
is called.

The rules, as in Celery but for what it leaves hanging:

* A step of a chain gets the value of the step before. When one fails, the rest never runs.
* The value of a group is the list of its members' values; groups inside are part of it.
* A group that something follows is the header of a chord, and what follows is its body.
* All members of a header run, whatever becomes of the others; the body gets the list of their values, with a
  list for each member that ends in a group. When one fails the body never runs, and its errbacks are called.
* What a body that never runs is asked for: the errbacks of a call; those of a chain and of its first step,
  each once; those of each member of a group.
* A call that is replaced has the value of what replaces it; callbacks and errbacks go over to that.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

RUNS = {"ok": 1, "fail": 1, "retry": 3, "gives up": 2, "replace": 1}


@dataclass(frozen=True)
class Call:
    """One call of a task."""

    label: str
    how: str = "ok"  # one of `RUNS`
    immutable: bool = False
    links: tuple[str, ...] = ()  # labels of callbacks
    errbacks: tuple[str, ...] = ()  # labels of errbacks
    instead: Node | None = None  # what replaces it


@dataclass(frozen=True)
class Chain:
    """One after the other."""

    steps: tuple[Node, ...]
    errbacks: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    plain: bool = False  # made as the list of its steps, not with `|`


@dataclass(frozen=True)
class Group:
    """Side by side."""

    members: tuple[Node, ...]


@dataclass(frozen=True)
class Chord:
    """Side by side, then one with all the values."""

    header: tuple[Node, ...]
    body: Node


Node = Call | Chain | Group | Chord


@dataclass(frozen=True)
class Many:
    """The value of a group."""

    values: tuple[Any, ...]


@dataclass(frozen=True)
class Failed:
    """No value; the labels of the calls whose failure it may be told as."""

    labels: frozenset[str]


class Raised(Exception):
    """A failure that leaves what is around it: what stands beside it and was to run later does not.

    Args:
        labels: As of `Failed`.
    """

    def __init__(self, labels: frozenset[str]) -> None:
        super().__init__(*labels)
        self.labels = labels


@dataclass
class Verdict:
    """What becomes of a workflow."""

    eager: bool = False  # it runs right here
    value: Any = None
    failures: frozenset[str] = frozenset()  # empty: it succeeds
    ran: Counter[str] = field(default_factory=Counter)
    called: Counter[str] = field(default_factory=Counter)  # callbacks and errbacks


def value_of(label: str, args: Sequence[Any]) -> int:
    """Return what a call returns: it tells label and arguments."""
    return zlib.crc32(f"{label}{list(args)!r}".encode())


def interpret(node: Node, *, eager: bool = False) -> Verdict:
    """Return what is to become of a workflow.

    Args:
        node: The workflow.
        eager: Whether it runs right here. Then, as in Celery, an error is raised where its value is needed:
            by the next step of a chain, or the body of a chord. Later members of a group do not run.
    """
    verdict = Verdict(eager=eager)
    try:
        outcome = _evaluate(node, (), verdict)
    except Raised as exc:
        outcome = Failed(exc.labels)
    if isinstance(outcome, Failed):
        verdict.failures = outcome.labels
    else:
        if isinstance(outcome, Many) and len(outcome.values) == 1 and _is_group(node):
            (only,) = outcome.values
            outcome = only if isinstance(only, Many) else outcome
        verdict.value = _plain(outcome)
    return verdict


def _is_group(node: Node) -> bool:
    """Return whether a group is what is sent; one with one member that is a group has that one's value."""
    if isinstance(node, Chain):
        steps = _steps(node)
        return len(steps) == 1 and isinstance(steps[0], Group)
    return isinstance(node, Group)


def calls_in(node: Node) -> Iterator[Call]:
    """Yield all calls of a workflow, those that replace others included."""
    if isinstance(node, Call):
        yield node
        if node.instead is not None:
            yield from calls_in(node.instead)
        return
    if isinstance(node, Chain):
        parts: tuple[Node, ...] = node.steps
    else:
        parts = node.members if isinstance(node, Group) else (*node.header, node.body)
    for part in parts:
        yield from calls_in(part)


def _evaluate(node: Node, args: tuple[Any, ...], verdict: Verdict) -> Any:
    if isinstance(node, Call):
        return _call(node, args, verdict)
    if isinstance(node, Chain):
        return _chain(node, args, verdict)
    if isinstance(node, Group):
        return _group(node, args, verdict)
    return _chord(node, args, verdict)


def _call(call: Call, args: tuple[Any, ...], verdict: Verdict) -> Any:
    if call.label:
        verdict.ran[call.label] += RUNS[call.how]
    if call.how in {"fail", "gives up"}:
        verdict.called.update(call.errbacks)
        return Failed(frozenset({call.label}))
    if call.how == "replace":
        assert call.instead is not None
        instead = call.instead
        if isinstance(instead, Group):
            instead = Chord(instead.members, Call(""))
        elif _ends_in_group(instead):
            instead = Chain((instead, Call("")))
        for errback in call.errbacks:
            instead = _with_errback(instead, errback)
        try:
            outcome = _evaluate(instead, (), verdict)
        except Raised as exc:
            outcome = Failed(exc.labels)
    else:
        outcome = value_of(call.label, () if call.immutable else args) if call.label else args[0]
    if not isinstance(outcome, Failed):
        verdict.called.update(call.links)
    return outcome


def _chain(chain: Chain, args: tuple[Any, ...], verdict: Verdict) -> Any:
    outcome: Any = None
    steps = _steps(chain)
    for step in steps:
        outcome = _evaluate(step, args, verdict)
        if isinstance(outcome, Failed):
            if verdict.eager and step is not steps[-1]:
                raise Raised(outcome.labels)
            return outcome
        args = (_plain(outcome),)
    verdict.called.update(chain.links)
    return outcome


def _group(group: Group, args: tuple[Any, ...], verdict: Verdict) -> Any:
    outcomes = [_evaluate(member, args, verdict) for member in _flat(group.members)]
    failed = [outcome.labels for outcome in outcomes if isinstance(outcome, Failed)]
    return Failed(frozenset().union(*failed)) if failed else Many(tuple(outcomes))


def _chord(chord: Chord, args: tuple[Any, ...], verdict: Verdict) -> Any:
    try:
        outcome = _group(Group(chord.header), args, verdict)
        if isinstance(outcome, Failed) and verdict.eager:
            raise Raised(outcome.labels)
    except Raised:
        verdict.called.update(_errbacks_of_unrun(chord.body))
        raise
    if isinstance(outcome, Failed):
        verdict.called.update(_errbacks_of_unrun(chord.body))
        return outcome
    return _evaluate(chord.body, (_plain(outcome),), verdict)


def _steps(chain: Chain) -> list[Node]:
    """Return the steps: no chains inside, no groups of one, and no group that something follows."""
    steps: list[Node] = []
    for step in _first_joined(chain):
        while isinstance(step, Group) and len(step.members) == 1:
            (step,) = step.members
        steps.extend(_steps(step) if isinstance(step, Chain) else [step])
    done: list[Node] = []
    for step in reversed(steps):
        if done and isinstance(step, Group):
            step = Chord(step.members, done.pop())
        elif done and isinstance(step, Chord) and _ends_in_group(step.body):
            step = Chord(step.header, Chain((step.body, done.pop())))
        done.append(step)
    done.reverse()
    for errback in chain.errbacks:
        done = [_with_errback(step, errback) for step in done]
    return done


def _first_joined(chain: Chain) -> tuple[Node, ...]:
    """Return the steps as they are given, the first two as a chord where `|` keeps a chain as a body.

    It does so for whatever follows a group. It matters for a chain that is a group only: as a body, its
    errbacks are called once; those of a group, for each of its members.
    """
    if chain.plain or len(chain.steps) < 2:
        return chain.steps
    first, second, *others = chain.steps
    first = _alone(first)
    if isinstance(first, Group) and isinstance(second, Chain) and isinstance(_alone(second), Group):
        return (Chord(first.members, second), *others)
    return chain.steps


def _alone(node: Node) -> Node:
    """Return what a chain of one step, or a group of one member, is."""
    while isinstance(node, (Chain, Group)):
        parts = node.steps if isinstance(node, Chain) else node.members
        if len(parts) != 1:
            break
        (node,) = parts
    return node


def _with_errback(node: Node, errback: str) -> Node:
    """Return what linking an errback to a node makes of it."""
    if isinstance(node, (Call, Chain)):
        return replace(node, errbacks=tuple(dict.fromkeys((*node.errbacks, errback))))
    if isinstance(node, Group):
        return Group(tuple(_with_errback(member, errback) for member in node.members))
    return Chord(node.header, _with_errback(node.body, errback))


def _errbacks_of_unrun(body: Node) -> list[str]:
    """Return the errbacks that are called because a body cannot run."""
    if isinstance(body, Call):
        return list(dict.fromkeys(body.errbacks))
    if isinstance(body, Chain):
        return list(dict.fromkeys((*body.errbacks, *_errbacks_of_unrun(_steps(body)[0]))))
    if isinstance(body, Group):
        return [errback for member in body.members for errback in _errbacks_of_unrun(member)]
    return list(dict.fromkeys(_errbacks_of_unrun(body.body)))


def _ends_in_group(node: Node) -> bool:
    if isinstance(node, Chain):
        return _ends_in_group(_steps(node)[-1])
    if isinstance(node, Chord):
        return _ends_in_group(node.body)
    return isinstance(node, Group)


def _flat(members: Sequence[Node]) -> Iterator[Node]:
    for member in members:
        if isinstance(member, Group):
            yield from _flat(member.members)
        else:
            yield member


def _plain(outcome: Any) -> Any:
    return [_plain(value) for value in outcome.values] if isinstance(outcome, Many) else outcome
