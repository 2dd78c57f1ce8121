"""Workflows as values: what they are made of, what ``|`` makes of them, and what they give when run right here."""

import json
import pickle
import re
from copy import copy

from celery import chain, chord, chunks, group, signature, xmap, xstarmap
from celery.canvas import Signature, StampingVisitor, _chain, maybe_signature
from quiz.asking import error, error_text, new_app, question


class Tasks:
    """The tasks of the questions, in an app of their own."""

    def __init__(self, **settings):
        self.app = app = new_app(**settings)
        self.seen = seen = []

        @app.task(name="add")
        def add(x, y=0):
            return x + y

        @app.task(name="total")
        def total(numbers):
            return sum(numbers)

        @app.task(name="args")
        def args(*args, **kwargs):
            return [list(args), kwargs] if kwargs else list(args)

        @app.task(name="fail")
        def fail(*args):
            raise KeyError("x")

        @app.task(name="note")
        def note(x):
            seen.append(["note", x])

        @app.task(name="told")
        def told(request, exc, traceback):
            seen.append(["told", request.task, repr(exc), "KeyError" in str(traceback)])

        @app.task(name="stamps", bind=True)
        def stamps(self, *args):
            return [
                self.request.stamped_headers and sorted(self.request.stamped_headers),
                self.request.stamps,
            ]

        @app.task(name="delegate", bind=True)
        def delegate(self, *given):
            return self.replace(signature(given[-1], app=app))

        self.add, self.total, self.args, self.fail = add, total, args, fail
        self.note, self.told, self.stamps, self.delegate = note, told, stamps, delegate


def tree(value):
    """Return a workflow as nested lists: kinds, reprs of calls, and what is linked to them."""
    if isinstance(value, (list, tuple)):
        return [tree(item) for item in value]
    if not isinstance(value, dict):
        return value
    kind, kwargs = value.get("subtask_type"), value["kwargs"]
    # Real Celery has `immutable` among the options of some errbacks, where it is without effect.
    kept = {k: item for k, item in value["options"].items() if k not in {"link", "link_error", "immutable"}}
    links = {
        name: tree(value["options"][name]) for name in ("link", "link_error") if name in value["options"]
    }
    more = {**kept, **links, **({"immutable": True} if value["immutable"] else {})}
    if kind in {"chain", "group"}:
        body = [kind, *(tree(item) for item in kwargs["tasks"])]
    elif kind == "chord":
        header = kwargs["header"]
        header = header["kwargs"]["tasks"] if isinstance(header, dict) else header
        body = [kind, [tree(item) for item in header], tree(kwargs["body"])]
    else:
        body = [value["task"], list(value["args"]), {key: tree(item) for key, item in kwargs.items()}]
    return [*body, more] if more else body


def as_written(made):
    """Return the repr of a workflow, where real Celery has one; an empty chain at its end is a slip of it."""
    try:
        text = re.sub(r" \| <_?chain@0x[0-9a-f]+: empty>", "", repr(made))
        return text.replace("%group(", "%celery.group(")
    except IndexError:
        return None


def parts_of(t):
    """Return a fresh set of operands for ``|``."""
    a, b = t.add.s(1), t.add.s(2)
    return {
        "task": a,
        "immutable": t.add.si(3, 4),
        "chain": _chain(t.add.s(5), t.add.s(6)),
        "chain-of-1": _chain(t.add.s(7)),
        "chain of a group": _chain(group(t.add.s(7), t.add.s(8))),
        "empty chain": _chain(app=t.app),
        "group": group(t.add.s(8), t.add.s(9)),
        "group-of-1": group(t.add.s(10)),
        "empty group": group(app=t.app),
        "group of a chain": group(_chain(t.add.s(10), t.add.s(11))),
        "chord": chord([t.add.s(11), t.add.s(12)], t.total.s()),
        "chord with a chain": chord([t.add.s(13)], t.total.s() | b),
        "chord with a group": chord([t.add.s(13)], group(t.args.s(), t.args.s(1))),
        "chain to group": a | group(t.add.s(14), t.add.s(15)),
        "chain to chord": a | group(t.add.s(16), t.add.s(17)) | t.total.s(),
        "chord, group": chord([t.add.s(18)], t.total.s()) | group(t.add.s(19), t.add.s(20)),
        "linked chain": _chain(a, b).set(link=[t.note.s()], link_error=[t.told.s()]),
        "chain with options": _chain(a, b, queue="q"),
        "map": t.add.map([1, 2]),
        "starmap": t.add.starmap([(1, 2)]),
    }


def joined(left):
    """Return what ``|`` makes of one operand and every other one, and whether it left them alone."""
    t = Tasks()
    found = {}
    for right in parts_of(t):
        pool, other = parts_of(t), parts_of(t)
        before = [tree(pool[left]), tree(other[right])]
        try:
            made = pool[left] | other[right]
        except Exception as exc:
            found[right] = type(exc).__name__
            continue
        kind = type(made).__name__
        found[right] = [
            kind,
            tree(made),
            as_written(made) if right != "empty chain" else None,
            before == [tree(pool[left]), tree(other[right])],
        ]
    return found


@question
def what_follows_a_task():
    return joined("task"), joined("immutable")


@question
def what_follows_a_chain():
    return joined("chain"), joined("chain-of-1"), joined("linked chain"), joined("chain with options")


@question
def what_follows_an_empty_chain():
    return joined("empty chain")


@question
def what_follows_a_group():
    return joined("group"), joined("group-of-1"), joined("group of a chain")


@question
def what_follows_an_empty_group():
    return joined("empty group")


@question
def what_follows_a_chord():
    return joined("chord"), joined("chord with a chain"), joined("chord with a group")


@question
def what_follows_a_chain_that_ends_in_a_group():
    return joined("chain to group"), joined("chord, group"), joined("chain of a group")


@question
def what_follows_a_chain_that_ends_in_a_chord():
    return joined("chain to chord")


@question
def what_follows_a_map():
    return joined("map"), joined("starmap")


@question
def the_chain_of_several():
    t = Tasks()
    a, g = t.add.s(1), group(t.add.s(2), t.add.s(3))
    made = {
        "one": chain(a),
        "one list": chain([a]),
        "a group": chain(g),
        "two": chain(a, a),
        "list": chain([a, a]),
        "generator": chain(t.add.s(i) for i in range(3)),
        "group first": chain(g, a),
        "groups": chain(g, g, a),
        "group last": chain(a, g),
        "nested": chain(chain(a, chain(a, a)), a),
        "options": chain(a, a, queue="q"),
        "none": chain(),
    }
    return {name: [type(it).__name__, tree(it)] for name, it in made.items()}


@question
def what_is_no_signature():
    t = Tasks()
    operands = [1, None, "x", [1], {"task": "add"}]
    return [error_text(lambda it=it: t.add.s(1) | it) for it in operands], error(lambda: 1 | t.add.s(1))


@question
def groups_are_made_of():
    t = Tasks()
    a, b = t.add.s(1), t.add.s(2)
    made = {
        "args": group(a, b),
        "list": group([a, b]),
        "group": group(group(a, b)),
        "chain": group(a | b),
        "options": group(a, b, queue="q"),
        "nested": group(a, group(b, a)),
    }
    return {name: [tree(it), len(it), bool(it), repr(it)] for name, it in made.items()}


@question
def chords_are_made_of():
    t = Tasks()
    a, b = t.add.s(1), t.add.s(2)
    made = {
        "list": chord([a, b], t.total.s()),
        "group": chord(group(a, b), t.total.s()),
        "chain": chord([a | b], t.total.s()),
        "options": chord([a], t.total.s(), queue="q"),
        "nested": chord([group(a, b), b], t.total.s()),
        "tuple": chord((a, b), t.total.s()),
        "dicts": chord([dict(a)], dict(t.total.s())),
    }
    return {name: [tree(it), repr(it), len(it)] for name, it in made.items()}


@question
def json_and_back():
    t = Tasks()
    found = {}
    for name, it in parts_of(t).items():
        back = maybe_signature(json.loads(json.dumps(it)), app=t.app)
        pickled = pickle.loads(pickle.dumps(it))
        found[name] = [type(back).__name__, tree(back), repr(back), type(pickled).__name__, tree(pickled)]
    return found


@question
def plain_forms():
    t = Tasks()
    return {name: json.loads(json.dumps(it)) for name, it in parts_of(t).items() if name != "empty group"}


@question
def clones():
    t = Tasks()
    found = {}
    for name, it in parts_of(t).items():
        if "empty" in name:
            continue
        found[name] = [
            tree(it.clone()),
            tree(it.clone((9,))) if name in {"task", "immutable", "chord"} else None,
            tree(it.clone(queue="q")) if "map" not in name else None,
            error(lambda it=it: tree(it.clone(kwargs={"y": 1}))) if name in {"task", "immutable"} else None,
        ]
    return found


@question
def replaced_fields():
    t = Tasks()
    made = t.add.signature((1,), {"y": 2}, queue="q", immutable=True)
    return [
        tree(made.replace()),
        tree(made.replace(args=(9,))),
        tree(made.replace(kwargs={"y": 9})),
        tree(made.replace(options={"priority": 1})),
        tree(made.replace((5,), {"y": 6}, {})),
        tree(made),
    ]


@question
def set_in_place():
    t = Tasks()
    made = t.add.s(1)
    same = made.set(queue="q", countdown=3) is made
    one = tree(made)
    made.set(immutable=True)
    two = tree(made)
    made.set(immutable=False, priority=1)
    return same, one, two, tree(made)


@question
def merging():
    t = Tasks()
    made = t.add.s(1).set(queue="q", group_id="g", stamped_headers=["s"], s="1")
    fixed = t.add.si(1)
    return [
        tree(made.clone((2,), {"y": 3}, queue="r", group_id="h", stamped_headers=["z"], s="2", z=1)),
        tree(made.clone(priority=3)),
        tree(fixed.clone((2,), {"y": 3}, queue="r")),
        made.reprcall(5, y=6),
        fixed.reprcall(5),
    ]


@question
def links():
    t = Tasks()
    found = {}
    for name, it in parts_of(t).items():
        if "empty" in name or "map" in name:
            continue
        returned = [tree(it.link(t.note.s())), tree(it.link_error(t.told.s()))]
        it.link(t.note.s())
        same = it.on_error(t.note.s()) is it
        found[name] = [returned, same, tree(it)]
    return found


@question
def links_with_errbacks_on_headers():
    t = Tasks(task_allow_error_cb_on_chord_header=True)
    made = chord([t.add.s(1), group(t.add.s(2), t.add.s(3))], t.total.s())
    made.link_error(t.told.s())
    return tree(made)


@question
def flat_links():
    t = Tasks()
    made = t.add.s(1)
    made.link(t.add.s(2)).link(t.add.s(3))
    made.link(t.add.s(4))
    return [tree(it) for it in made.flatten_links()]


@question
def immutable_composites():
    t = Tasks()
    found = {}
    for name, it in parts_of(t).items():
        if "empty" in name or "map" in name:
            continue
        it.set_immutable(True)
        found[name] = tree(it)
    return found


@question
def skewed_groups():
    t = Tasks()

    def countdowns(*args, **kwargs):
        made = group(t.add.s(i) for i in range(5))
        same = made.skew(*args, **kwargs) is made
        return [same, *(it.options.get("countdown") for it in made.tasks)]

    return countdowns(), countdowns(start=1, stop=3), countdowns(start=1, stop=10, step=2)


@question
def maps_and_chunks():
    t = Tasks()
    made = t.add.chunks(((n, n) for n in range(5)), 2)
    found = made.group()
    return [
        tree(found),
        repr(t.add.map([1])),
        repr(t.add.starmap([(1, 2)])),
        isinstance(t.add.map([1]), xmap),
        isinstance(t.add.starmap([]), xstarmap),
        isinstance(made, chunks),
        t.add.map([1]).subtask_type,
        tree(xmap.from_dict(json.loads(json.dumps(t.add.map([1]))), app=t.app)),
        tree(chunks.from_dict(json.loads(json.dumps(t.add.chunks([(1, 2)], 1))), app=t.app)),
    ]


@question
def types_of_ones_own():
    @Signature.register_type("quiz_mine")
    class Mine(Signature):
        @classmethod
        def from_dict(cls, d, app=None):
            return cls(d, app=app)

    made = signature({"task": "t", "args": [], "kwargs": {}, "options": {}, "subtask_type": "quiz_mine"})
    return type(made).__name__, error(signature, {"task": "t", "subtask_type": "unheard-of"})


@question
def results_of_frozen_workflows():
    t = Tasks()
    found = {}
    for name, it in parts_of(t).items():
        if name == "empty chain":
            continue
        result = it.freeze()
        found[name] = [type(result).__name__, shape_of(result), frozen(it)]
    return found


def shape_of(result):
    """Return kinds of a result, its members and its parents."""
    parents = shape_of(result.parent) if result.parent is not None else None
    members = getattr(result, "results", None)
    return [type(result).__name__, [shape_of(it) for it in members] if members is not None else None, parents]


def frozen(it):
    """Return what freezing has written into the calls of a workflow; ours notes the group's id right then."""
    calls = []

    def walk(sig):
        kind, kwargs = sig.get("subtask_type"), sig["kwargs"]
        if kind in {"chain", "group"}:
            for inner in kwargs["tasks"]:
                walk(inner)
        elif kind == "chord":
            header = kwargs["header"]
            for inner in header["kwargs"]["tasks"] if isinstance(header, dict) else header:
                walk(inner)
            walk(kwargs["body"])
        else:
            names = sorted(
                key
                for key in sig["options"]
                if sig["options"][key] is not None and key not in {"group_id", "chord"}
            )
            calls.append([sig["task"], names, sig["options"].get("group_index")])

    walk(it)
    return calls


# --- stamps -------------------------------------------------------------------------------------------------


class Visitor(StampingVisitor):
    """Stamps everything, and notes what it is shown."""

    def __init__(self):
        self.calls = []

    def note(self, *what):
        *name, headers = what
        self.calls.append([*name, {key: value for key, value in headers.items() if key != "stamped_headers"}])

    def on_signature(self, sig, **headers):
        self.note("signature", sig.name, headers)
        return {"mine": "S"}

    def on_group_start(self, sig, **headers):
        self.note("group start", len(sig.tasks), headers)
        return {"in_group": "G"}

    def on_group_end(self, sig, **headers):
        self.note("group end", headers)

    def on_chain_start(self, sig, **headers):
        self.note("chain start", len(sig.tasks), headers)
        return {"in_chain": "C"}

    def on_chain_end(self, sig, **headers):
        self.note("chain end", headers)

    def on_chord_header_end(self, sig, **headers):
        self.note("header end", headers)

    def on_chord_body(self, sig, **headers):
        self.note("body", headers)
        return {"on_body": "B"}

    def on_callback(self, sig, **headers):
        self.note("callback", sig.name, headers)
        return {"on_callback": "L"}

    def on_errback(self, sig, **headers):
        self.note("errback", sig.name, headers)
        return {"on_errback": "E"}


class Plain(StampingVisitor):
    """Stamps calls only, with what it was given."""

    def __init__(self, **stamps):
        self.stamps = stamps

    def on_signature(self, sig, **headers):
        return self.stamps


def steady(value):
    """Return a stamped workflow with the stamps' names in order: they come out of sets."""
    if isinstance(value, dict):
        return {
            key: sorted(set(item)) if key == "stamped_headers" and item else steady(item)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [steady(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return ["set", *sorted(map(str, value))]
    return value


def stampable(t):
    linked = t.add.s(1)
    linked.link(t.note.s())
    linked.link_error(t.told.s())
    return {
        "task": t.add.s(1),
        "linked": linked,
        "chain": t.add.s(1) | t.add.s(2),
        "group": group(t.add.s(1), t.add.s(2)),
        "chord": chord([t.add.s(1), t.add.s(2)], t.total.s()),
        "chord of a group": chord(group(t.add.s(1), linked.clone()), t.total.s() | t.note.s()),
        "chain, chord": t.add.s(1) | group(t.add.s(2), t.add.s(3)) | t.total.s(),
        "group of chains": group(t.add.s(1) | t.add.s(2), t.add.s(3)),
        "map": t.add.map([1]),
    }


@question
def stamping_visitors():
    t = Tasks()
    found = {}
    for name, it in stampable(t).items():
        visitor = Visitor()
        returned = it.stamp(visitor)
        found[name] = [returned is None, returned is it, steady(tree(it)), steady(visitor.calls)]
    return found


@question
def stamps_by_name():
    t = Tasks()
    found = {}
    for name, it in stampable(t).items():
        it.stamp(mine="S", other=(1, 2))
        found[name] = steady(tree(it))
    return found


@question
def stamps_that_meet():
    t = Tasks()
    found = {}
    for append in (False, True):
        for first in ("a", ["a", "b"], None):
            for second in ("z", ["y", "z"], "a"):
                made, named, both = t.add.s(1), t.add.s(1), t.add.s(1)
                made.stamp(Plain(s=copy(first)))
                made.stamp(Plain(s=copy(second)), append_stamps=append)
                named.stamp(s=copy(first))
                named.stamp(s=copy(second), append_stamps=append)
                both.stamp(Plain(s=copy(first)), s=copy(second), append_stamps=append)
                found[f"{first} {second} {append}"] = [steady(tree(it)) for it in (made, named, both)]
    return found


@question
def only_what_a_visitor_lists_is_a_stamp():
    t = Tasks()
    found = []
    for stamps in (
        {"a": 1, "stamped_headers": ["a"], "b": 2},
        {"a": 1, "stamped_headers": []},
        {"stamped_headers": ["gone"]},
        {},
        None,
    ):
        made = t.add.s(1)
        try:
            made.stamp(Plain(**stamps) if stamps is not None else None)
        except Exception as exc:
            found.append(type(exc).__name__)
            continue
        found.append(steady(tree(made)))
    return found


@question
def stamps_survive():
    t = Tasks()
    made = t.add.s(1)
    made.stamp(s="1")
    return [
        steady(tree(made.clone(s="2", queue="q"))),
        steady(tree(made.clone())),
        steady(tree(made | t.add.s(2))),
        steady(json.loads(json.dumps(made))),
    ]


@question
def a_visitor_has_to_say_what_it_does_with_calls():
    return error(StampingVisitor)


@question
def stamps_of_requests_right_here():
    t = Tasks()
    made = t.stamps.s()
    made.stamp(one="1", two=[2])
    both = t.stamps.s() | t.stamps.s()
    both.stamp(one="1")
    many = group(t.stamps.s(), t.stamps.s())
    many.stamp(one="1")
    return (
        made.apply().get(),
        both.apply().get(),
        many.apply().get(),
        t.stamps.apply_async(stamped_headers=["zz"], zz="v", task_id="i").id
        if t.app.conf.task_always_eager
        else None,
    )


# --- right here ---------------------------------------------------------------------------------------------


def runnable(t):
    """Return workflows that can be run, by name, as functions."""
    add, total, args, fail = t.add, t.total, t.args, t.fail
    return {
        "task": lambda: add.s(1, 2),
        "chain": lambda: add.s(1, 2) | add.s(3) | add.s(4),
        "chain of one": lambda: chain(add.s(1, 2)),
        "group": lambda: group(add.s(1, 2), add.s(3, 4)),
        "group of one": lambda: group(add.s(1, 2)),
        "empty group": lambda: group(app=t.app),
        "nested group": lambda: group(add.s(1, 2), group(add.s(3, 4), add.s(5, 6))),
        "group of chains": lambda: group(add.s(1, 2) | add.s(1), add.s(3, 4)),
        "chord": lambda: chord([add.s(1, 2), add.s(3, 4)], total.s()),
        "empty chord": lambda: chord([], total.s(), app=t.app),
        "chord with a chain": lambda: chord([add.s(1, 2)], total.s() | add.s(1)),
        "chord with a group": lambda: chord([add.s(1, 2)], group(args.s(), args.s(1))),
        "chord of chords": lambda: chord([chord([add.s(1, 2)], total.s()), add.s(1, 1)], total.s()),
        "chord of chains": lambda: chord([add.s(1, 2) | add.s(1), add.s(1, 1)], total.s()),
        "chord of groups": lambda: chord([group(add.s(1, 2), add.s(2, 2)), add.s(3, 3)], args.s()),
        "chain to a group": lambda: add.s(1, 2) | group(add.s(1), add.s(2)),
        "chain through a group": lambda: add.s(1, 2) | group(add.s(1), add.s(2)) | total.s(),
        "chain through a group and on": lambda: (
            add.s(1, 2) | group(add.s(1), add.s(2)) | total.s() | add.s(1)
        ),
        "chain through two groups": lambda: (
            add.s(1, 2) | group(add.s(1), add.s(2)) | group(args.s(), args.s(5)) | args.s()
        ),
        "group, group": lambda: group(add.s(1, 1), add.s(2, 2)) | group(total.s(), args.s()),
        "group of one in a chain": lambda: add.s(1, 2) | group(add.s(5)) | add.s(1),
        "immutable in a chain": lambda: add.s(1, 2) | add.si(7, 7) | add.s(1),
        "immutable body": lambda: chord([add.s(1, 2)], add.si(5, 5)),
        "chord, group": lambda: chord([add.s(1, 2)], total.s()) | group(add.s(1), add.s(2)),
        "map": lambda: total.map([[1, 2], [3]]),
        "starmap": lambda: add.starmap([(1, 2), (3, 4)]),
        "map in a chain": lambda: add.s(1, 2) | add.map([1, 2]) | total.s(),
        "kwargs": lambda: args.s(1, a=2) | args.s(3, b=4),
        "failing task": lambda: fail.s(1),
        "failing chain": lambda: add.s(1, 2) | fail.s() | add.s(1),
        "failing group": lambda: group(add.s(1, 2), fail.s()),
        "failing header": lambda: chord([add.s(1, 2), fail.s()], total.s()),
        "failing body": lambda: chord([add.s(1, 2)], fail.s()),
        "failing inner header": lambda: chord([chord([fail.s()], total.s()), add.s(1, 1)], total.s()),
        "replaced by a task": lambda: t.delegate.s(add.s(1, 2)),
        "replaced by a chain": lambda: t.delegate.s(add.s(1, 2) | add.s(3)),
        "replaced by a group": lambda: t.delegate.s(group(add.s(1, 2), add.s(3, 4))),
        "replaced by a chord": lambda: t.delegate.s(chord([add.s(1, 2), add.s(3, 4)], total.s())),
        "replaced by a failure": lambda: t.delegate.s(fail.s()),
        "replaced in a chain": lambda: add.s(1, 2) | t.delegate.s(add.s(1, 2)) | add.s(1),
        "replaced in a chord": lambda: chord([t.delegate.s(add.s(1, 2)), add.s(1, 1)], total.s()),
        "replaced twice": lambda: t.delegate.s(t.delegate.s(add.s(1, 2))),
    }


def run_here(t, make, how):
    try:
        result = how(make())
        value = result.get(timeout=1) if result is not None else None
        return [type(result).__name__, value, result.state if hasattr(result, "state") else None]
    except Exception as exc:
        return [type(exc).__name__, str(exc).partition("!")[0]]


@question
def workflows_right_here():
    t = Tasks()
    return {name: run_here(t, make, lambda it: it.apply()) for name, make in runnable(t).items()}


@question
def workflows_of_an_eager_app():
    t = Tasks(task_always_eager=True, task_store_eager_result=False)
    made = {name: make for name, make in runnable(t).items() if not name.startswith("replaced")}
    return {name: run_here(t, make, lambda it: it.apply_async()) for name, make in made.items()}


@question
def replaced_tasks_of_an_eager_app():
    t = Tasks(task_always_eager=True)
    made = {name: make for name, make in runnable(t).items() if name.startswith("replaced")}
    return {name: run_here(t, make, lambda it: it.apply_async()) for name, make in made.items()}


@question
def partial_arguments_right_here():
    t = Tasks()
    args = t.args
    made = {
        "task": lambda: args.s(1),
        "chain": lambda: args.s(1) | args.s(2),
        "group": lambda: group(args.s(1), args.s(2)),
        "chord": lambda: chord([args.s(1), args.s(2)], args.s(3)),
        "chord with args": lambda: chord([args.s(1)], args.s(3), args=(7,)),
        "immutable": lambda: args.si(1),
    }
    return {name: run_here(t, make, lambda it: it.apply((9,))) for name, make in made.items()}


def linked_here(*names):
    t = Tasks(task_always_eager=True)
    found = {}
    for name in names:
        del t.seen[:]
        made = runnable(t)[name]()
        made.link(t.note.s())
        made.link_error(t.told.s())
        run_here(t, lambda made=made: made, lambda it: it.apply_async())
        found[name] = list(t.seen)
    return found


@question
def links_right_here():
    return linked_here(
        *("task", "chord", "group", "failing task", "failing body"),
        *("group of chains", "chord of groups", "chord of chains", "chord with a group", "chain of one"),
    )


@question
def cured_links_right_here():
    return linked_here(
        "failing header", "failing inner header", "replaced by a task", "replaced by a failure"
    )


@question
def groups_inside_right_here():
    t = Tasks()
    add, args = t.add, t.args
    made = {
        "chain": lambda: chord([add.s(1, 2) | group(add.s(1), add.s(2)), add.s(1, 1)], args.s()),
        "alone": lambda: chord([add.s(1, 2) | group(add.s(1), add.s(2))], args.s()),
        "chord": lambda: chord([chord([add.s(1, 2)], group(args.s(), args.s(1))), add.s(1, 1)], args.s()),
    }
    return {name: run_here(t, make, lambda it: it.apply()) for name, make in made.items()}


@question
def a_group_of_a_group_right_here():
    t = Tasks()
    return run_here(t, lambda: group(t.add.s(1, 2) | group(t.add.s(1), t.add.s(2))), lambda it: it.apply())


@question
def links_of_chains_right_here():
    return linked_here("chain", "failing chain", "failing group", "chord with a chain", "chain to a group")
