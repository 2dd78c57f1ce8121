"""Signatures and what ``|`` makes of them; nothing is sent."""

from __future__ import annotations

import copy
import functools
import json
import operator
import pickle
from typing import Any

import pytest

from celeriac import Signature, chain, chord, chunks, group, maybe_signature, signature, xmap, xstarmap
from celeriac.app import Celeriac
from celeriac.canvas import _chain, _chord
from celeriac.canvas.joining import join_all
from desk import new_app

app: Celeriac = new_app()


@app.task(name="add")
def add(x: int, y: int = 0) -> int:
    return x + y


a, b, c, d = (add.s(number) for number in range(4))


def test_a_signature_is_a_dict_of_six_keys() -> None:
    made = add.signature((1,), {"y": 2}, queue="q", immutable=True)

    assert dict(made) == {
        "task": "add",
        "args": (1,),
        "kwargs": {"y": 2},
        "options": {"queue": "q"},
        "subtask_type": None,
        "immutable": True,
    }
    assert json.loads(json.dumps(made))["task"] == "add"
    assert (made.task, made.args, made.kwargs, made.options) == ("add", (1,), {"y": 2}, {"queue": "q"})
    assert (repr(add.s(1, y=2)), add.s(1).reprcall(5)) == ("add(1, y=2)", "add(5, 1)")
    assert type(copy.deepcopy(made)) is dict
    assert pickle.loads(pickle.dumps(made)) == made


def test_what_is_given_later_comes_before_what_was_there() -> None:
    made = Signature("add", (2,), {"y": 1}, {"queue": "q", "priority": 1}, app=app)

    assert made.merge((1,), {"y": 5}, {"queue": "r", "priority": None}) == (
        (1, 2),
        {"y": 5},
        {"queue": "r", "priority": 1},
    )
    fixed = add.si(2).set(group_id="g", stamped_headers=["s"], s=1)
    assert fixed.merge((1,), {"y": 5}, {"group_id": "h", "stamped_headers": [], "s": 2, "queue": "q"}) == (
        (2,),
        {},
        {"group_id": "g", "stamped_headers": ["s"], "s": 1, "queue": "q"},
    )


def test_clones_do_not_share_and_replace_puts_in_place() -> None:
    made = add.s(1).set(link=[dict(add.s(2))])
    twin = made.clone((0,), {"y": 1}, queue="q")
    twin.options["link"].append("x")

    assert (twin.args, twin.kwargs, twin.options["queue"]) == ((0, 1), {"y": 1}, "q")
    assert len(made.options["link"]) == 1
    assert made.replace(args=(9,)).args == (9,)


def test_called_it_runs_right_here() -> None:
    assert add.s(1)(2) == 3
    assert signature("add", args=(1,), app=app)(5) == 6
    assert add.s(1).apply((2,)).get() == 3


def test_links_are_kept_once_and_return_what_they_are_given() -> None:
    made = add.s(1)

    assert made.link(b) is b
    assert made.link(b) is b
    assert made.on_error(c) is made
    assert made.link_error(d) is d
    assert made.options == {"link": [b], "link_error": [c, d]}
    b2 = add.s(9)
    made.link(b2)
    assert made.flatten_links() == [made, b, b2]


def test_freezing_gives_an_id_once() -> None:
    made = add.s(1)
    result = made.freeze(group_id="g", chord={"task": "x"}, group_index=2)

    assert made.freeze("other").id == result.id == made.id
    assert made.options["group_id"] == "g"
    assert made.options["group_index"] == 2
    assert result.app is app


def test_dicts_become_signatures_of_their_kind() -> None:
    for made in (add.s(1), chain(a, b), group(a, b), chord([a], b), add.chunks([(1, 2)], 1)):
        back = maybe_signature(json.loads(json.dumps(made)), app=app)
        assert type(back) is type(made) if not isinstance(made, _chain) else isinstance(back, _chain)
        assert json.dumps(back) == json.dumps(made)
        assert back.app is app
    assert maybe_signature(None) is None
    assert maybe_signature(a) is a
    assert maybe_signature(a, clone=True) is not a
    with pytest.raises(KeyError):
        maybe_signature({"task": "t", "subtask_type": "unheard-of"})


def test_own_kinds_of_signatures_can_be_registered() -> None:
    @Signature.register_type("unit_mine")
    class Mine(Signature):
        @classmethod
        def from_dict(cls, d: Any, app: Any = None) -> Mine:
            return cls(d, app=app)

    assert type(signature({"task": "t", "subtask_type": "unit_mine", "options": {}})) is Mine


def shape(made: Any) -> Any:
    if isinstance(made, _chain):
        return [shape(step) for step in made.tasks]
    if isinstance(made, group):
        return {shape(member) for member in made.tasks}
    if isinstance(made, _chord):
        header = made.tasks.tasks if isinstance(made.tasks, group) else made.tasks
        return (frozenset(shape(member) for member in header), shape(made.body))
    return made.args[0]


g1, g2 = group([add.s(10)]), group([add.s(20), add.s(21)])
header = frozenset({20, 21})


@pytest.mark.parametrize(
    ("joined", "expected"),
    [
        (lambda: a | b, [0, 1]),
        (lambda: a | (b | c), [0, 1, 2]),
        (lambda: a | g1, [0, 10]),
        (lambda: a | g2, [0, {20, 21}]),
        (lambda: a | chord(g2, b), [0, (header, 1)]),
        (lambda: (a | b) | g1, [0, 1, 10]),
        (lambda: (a | b) | g2, [0, 1, {20, 21}]),
        (lambda: (a | chord(g2, b)) | g2, [0, (header, [1, {20, 21}])]),
        (lambda: _chain() | g2, {20, 21}),
        (lambda: (a | b) | (c | d), [0, 1, 2, 3]),
        (lambda: (a | g2) | b, [0, (header, 1)]),
        (lambda: (a | g2) | b | c, [0, (header, [1, 2])]),
        (lambda: (a | g2) | chord(g2, b), [0, (header, (header, 1))]),
        (lambda: (a | chord(g2, b)) | c, [0, (header, [1, 2])]),
        (lambda: (a | b) | chord(g2, c), [0, 1, (header, 2)]),
        (lambda: g2 | a, (header, 0)),
        (lambda: g2 | (a | b), (header, [0, 1])),
        (lambda: g2 | g2, (header, {20, 21})),
        (lambda: chord(g2, a) | b, (header, [0, 1])),
        (lambda: chord(g2, a) | g1, (header, [0, 10])),
        (lambda: chord(g2, a) | g2, [(header, 0), {20, 21}]),
        (lambda: chord(g2, a) | (b | c), [(header, 0), 1, 2]),
        (lambda: chord(g2, a) | chord(g2, b), (header, [0, (header, 1)])),
        (lambda: chain(a, b, c), [0, 1, 2]),
        (lambda: chain([a, g2, c]), [0, (header, 2)]),
        (lambda: chain(g2, c), (header, 2)),
        (lambda: chain(a), [0]),
    ],
)
def test_who_follows_whom(joined: Any, expected: Any) -> None:
    before = [repr(s) for s in (a, b, c, d, g1, g2)]

    assert shape(joined()) == expected
    assert [repr(s) for s in (a, b, c, d, g1, g2)] == before


def test_a_group_of_one_at_the_end_of_a_chords_body_is_no_header_of_what_follows_the_chord() -> None:
    body = _chain([b, g1])

    joined = chord(g2, body) | (c | d)

    assert shape(joined) == [(header, [1, {10}]), 2, 3]
    assert [shape(step) for step in joined.unrolled()] == [(header, [1, {10}]), 2, 3]


def test_a_signature_is_joined_with_signatures_only() -> None:
    with pytest.raises(TypeError, match=r"unsupported operand type\(s\) for \|"):
        a | 1
    made: Any = add.s(1)
    made |= b
    assert shape(made) == [1, 1]


def test_a_group_is_made_of_signatures_or_an_iterable() -> None:
    assert group([a, b]).tasks == group(x for x in (a, b)).tasks == [a, b]
    assert group(group(a, b)).tasks == group(a, b).tasks == (a, b)
    assert (len(group(a, b)), bool(group()), bool(group(a))) == (2, False, True)
    assert repr(group(a, b)) == "group((add(0), add(1)))"
    with pytest.raises(TypeError, match="use a chord"):
        group(a).apply_async(link=b)
    with pytest.raises(TypeError, match="individual tasks"):
        group(a).apply_async(link_error=b)


def test_what_is_linked_to_a_group_is_linked_to_its_members() -> None:
    made = group(add.s(1), add.s(2))
    made.link(c)
    made.link_error(d)
    made.skew(start=1, step=2)

    assert made.tasks[0].options["link"][0].immutable
    assert "link" not in made.tasks[1].options
    assert not any(task.options["link_error"][0].immutable for task in made.tasks)
    assert [task.options["countdown"] for task in made.tasks] == [1, 3]
    made.set_immutable(True)
    assert all(task.immutable for task in made.tasks)


def test_a_frozen_group_numbers_its_members_also_in_groups_inside() -> None:
    made = group(add.s(1), group(add.s(2), add.s(3)), chain(add.s(4), add.s(5)))
    result = made.freeze()

    members = list(made.flat())
    assert [m.options.get("group_index") for m in members[:3]] == [0, 1, 2]
    assert members[3].tasks[-1].options["group_index"] == 3
    assert "group_index" not in members[3].tasks[0].options
    assert len(result.results) == made.parts == 4
    assert result.id == made.options["task_id"]


def test_how_many_parts_a_chord_has() -> None:
    assert group(a, b).parts == 2
    assert group(chain(a, g2), b).parts == 3
    assert group(chord(g2, a), b).parts == 2
    assert group(_chain(), b).parts == 1
    assert chord([a, g2], b).__length_hint__() == 3


def test_chunks_are_groups_of_starmaps() -> None:
    made = add.chunks(zip(range(5), range(5), strict=True), 2)
    assert isinstance(made, chunks)
    parts = made.group().tasks

    assert [part.kwargs["it"] for part in parts] == [[(0, 0), (1, 1)], [(2, 2), (3, 3)], [(4, 4)]]
    assert all(isinstance(part, xstarmap) for part in parts)
    assert repr(parts[0]) == "[add(*x) for x in [(0, 0), (1, 1)]]"
    assert repr(add.map([1, 2])) == "[add(x) for x in [1, 2]]"
    assert isinstance(add.map([1]), xmap)
    assert add.map([1]).subtask_type is None
    assert add.map([1]).immutable


def test_an_empty_chain_does_nothing() -> None:
    assert chain()() is None
    assert chain().apply_async() is None
    assert "empty" in repr(chain())
    assert repr(a | b) == "add(0) | add(1)"


def test_a_signature_without_an_app_asks_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Signature, "default_sender", lambda: app)

    assert signature("add", args=(1,)).app is app
    assert signature("add", args=(1,))(1) == 2
    assert group().app is app


def test_the_app_of_a_workflow_is_that_of_a_member() -> None:
    assert chain(signature("x"), a).app is app
    assert chord([], a).app is None or chord([], a).app is app
    assert chord([a], signature("x")).app is app


@pytest.mark.parametrize(
    "first",
    [
        lambda: a,
        lambda: a | b,
        lambda: _chain(a, b, link=[d], link_error=[c]),
        _chain,
        lambda: g2,
        lambda: group([a | b]),
        lambda: a | g2,
        lambda: chord(g2, a),
        lambda: chord(g2, a | g2),
        lambda: a | chord(g2, chord(g2, a)),
        lambda: chord(g2, g2),
        lambda: add.map([1]),
    ],
)
@pytest.mark.parametrize(
    "others",
    [
        lambda: [a, b, c, d],
        lambda: [a, b, g2, a, b, c, d],
        lambda: [a | b, c, d, a],
        lambda: [chord(g2, a), b, c, d],
    ],
)
def test_joined_in_one_go_is_what_joining_one_by_one_makes(first: Any, others: Any) -> None:
    before = json.dumps([first(), others()])

    joined = join_all(first(), others())

    assert json.dumps(joined) == json.dumps(functools.reduce(operator.or_, others(), first()))
    assert type(joined) is type(functools.reduce(operator.or_, others(), first()))
    assert json.dumps([first(), others()]) == before
