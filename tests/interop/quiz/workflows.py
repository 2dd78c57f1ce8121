"""What workers make of workflows: results, errors, which errbacks are called with what, and lineage.

All workflows are sent at once and then waited for, so that one that never ends costs the wait once.
"""

import json
import time

from celery import chain, chord, group, signature
from celery.result import GroupResult
from quiz.asking import as_json, question, shown
from quiz.worker import app, store

WAIT = 4  # seconds; some workflows never end on real Celery
PAUSE = 0.5  # seconds in which what is one too many would come
AGAIN = (
    0.1  # seconds until the next try: sooner, and real Celery may store RETRY after what that has ended in
)


class Fault(Exception):
    """What tasks here fail with."""


def note(key, *what):
    store().rpush(f"seen-{key}", json.dumps(what))


@app.task(name="w.add")
def add(x, y=0):
    return x + y


@app.task(name="w.total")
def total(numbers):
    return sum(numbers)


@app.task(name="w.args")
def args(*args, **kwargs):
    return [list(args), kwargs] if kwargs else list(args)


@app.task(name="w.fail")
def fail(*args):
    raise KeyError("x")


@app.task(name="w.again", bind=True)
def again(self, *args):
    if self.request.retries < 2:
        raise self.retry(countdown=AGAIN)
    return [*args, self.request.retries]


@app.task(name="w.gives_up", bind=True, max_retries=1)
def gives_up(self, *args):
    raise self.retry(exc=KeyError("again"), countdown=AGAIN)


@app.task(name="w.delegate", bind=True)
def delegate(self, *given):
    return self.replace(signature(given[-1], app=app))


@app.task(name="w.ignored", ignore_result=True)
def ignored(x=1):
    return x


@app.task(name="w.old")
def old(task_id, *, key):
    note(key, "old", task_id)


@app.task(name="w.bound", bind=True)
def bound(self, task_id, *, key):
    note(key, "bound", task_id)


@app.task(name="w.new")
def new(request, exc, traceback, *, key):
    note(key, "new", request.id, request.task, repr(exc), "KeyError" in str(traceback))


@app.task(name="w.seen")
def seen(*values, key):
    note(key, "seen", *values)


@app.task(name="w.tell", bind=True)
def tell(self, *args, key, again=0):
    request = self.request
    info = {
        name: getattr(request, name, None) for name in ("id", "root_id", "parent_id", "group", "group_index")
    }
    note(
        key,
        {
            **info,
            "stamps": request.stamps,
            "stamped": sorted(request.stamped_headers or ()),
            "priority": request.delivery_info.get("priority"),
        },
    )
    if request.retries < again:
        raise self.retry(countdown=0)
    return args[0] if args else None


@app.task(name="w.tell_again", bind=True)
def tell_again(self, *args, key):
    note(key, {"stamps": self.request.stamps, "stamped": sorted(self.request.stamped_headers or ())})
    if not self.request.retries:
        raise self.retry(countdown=0)
    return 1


@app.task(name="w.tell_replaced", bind=True)
def tell_replaced(self, *args, key):
    note(key, {"stamps": self.request.stamps, "stamped": sorted(self.request.stamped_headers or ())})
    return self.replace(tell.si(key=key))


@app.task(name="w.tell_child", bind=True)
def tell_child(self, *args, key):
    tell.delay(key=key)


def value_of(result):
    if result is None:
        return None
    try:
        return [type(result).__name__, result.get(timeout=WAIT, interval=0.05)]
    except Exception as exc:
        return [type(exc).__name__, shown(str(exc)) if type(exc).__name__ != "TimeoutError" else ""]


def own_value(result):
    """Return what is stored for a result itself, its parents aside."""
    if result is None:
        return None
    if isinstance(result, GroupResult):
        return [own_value(member) for member in result.results]
    value = result.result
    return [result.state, shown(repr(value)) if isinstance(value, Exception) else as_json(value)]


def settled(result):
    """Return a result and its parents once none is to be tried again: real Celery tells of others first."""
    deadline = time.monotonic() + WAIT
    while "RETRY" in repr(parents(result)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return parents(result)


def parents(result):
    found = []
    while result is not None and len(found) < 10:
        found.append(own_value(result))
        result = result.parent
    return found


def sent(makers):
    """Send workflows and return what became of each."""
    results, found = {}, {}
    for name, make in makers.items():
        try:
            results[name] = make()
        except Exception as exc:
            found[name] = ["not sent", type(exc).__name__, shown(str(exc))]
    values = {name: value_of(result) for name, result in results.items()}
    time.sleep(PAUSE)
    return {**found, **{name: [value, settled(results[name])] for name, value in values.items()}}


def called(key, result):
    """Return which errbacks and callbacks were called, ids told as whose they are."""
    names, number = {}, 0  # by id
    while result is not None:
        members = result.results if isinstance(result, GroupResult) else [result]
        for index, member in enumerate(members):
            names[member.id] = f"result {number}" if member is result else f"result {number}.{index}"
        result, number = result.parent, number + 1
    items = [json.loads(item) for item in store().lrange(f"seen-{key}", 0, -1)]
    return sorted(
        [[names.get(value, value) if isinstance(value, str) else value for value in it] for it in items],
        key=repr,
    )


def waited(makers):
    """Send workflows, wait for them, and return what was noted meanwhile."""
    results = {}
    found = {}
    for name, make in makers.items():
        try:
            results[name] = make(name)
        except Exception as exc:
            found[name] = ["not sent", type(exc).__name__]
    values = {name: value_of(result) for name, result in results.items()}
    time.sleep(PAUSE)
    for name, result in results.items():
        found[name] = [
            values[name],
            [[shown(v) if isinstance(v, str) else v for v in it] for it in called(name, result)],
        ]
    return found


PLAIN = {
    "task": lambda: add.s(1, 2),
    "chain": lambda: add.s(1, 2) | add.s(3) | add.s(4),
    "chain of one": lambda: chain(add.s(1, 2)),
    "group": lambda: group(add.s(1, 2), add.s(3, 4)),
    "group of one": lambda: group(add.s(1, 2)),
    "empty group": lambda: group(app=app),
    "nested group": lambda: group(add.s(1, 2), group(add.s(3, 4), add.s(5, 6))),
    "deeply nested group": lambda: group(group(group(add.s(1, 2)), add.s(3, 4)), group(add.s(5, 6))),
    "group of chains": lambda: group(add.s(1, 2) | add.s(1), add.s(3, 4)),
    "group of a chain to a group": lambda: group(add.s(1, 2) | group(add.s(1), add.s(2)), add.s(3, 4)),
    "group of a chord": lambda: group(chord([add.s(1, 2)], total.s()), add.s(3, 4)),
    "chord": lambda: chord([add.s(1, 2), add.s(3, 4)], total.s()),
    "chord of one": lambda: chord([add.s(1, 2)], total.s()),
    "empty chord": lambda: chord([], total.s(), app=app),
    "chord with a chain": lambda: chord([add.s(1, 2)], total.s() | add.s(1)),
    "chord with a group": lambda: chord([add.s(1, 2)], group(args.s(), args.s(1))),
    "chord with a chord": lambda: chord([add.s(1, 2)], chord([total.s(), args.s(7)], args.s())),
    "chord of chords": lambda: chord([chord([add.s(1, 2)], total.s()), add.s(1, 1)], total.s()),
    "chord of chords of chords": lambda: chord(
        [chord([chord([add.s(1, 2), add.s(1, 1)], total.s()), add.s(1, 1)], total.s()), add.s(1, 1)],
        total.s(),
    ),
    "chord of chains": lambda: chord([add.s(1, 2) | add.s(1), add.s(1, 1)], total.s()),
    "chord of a chain to a group": lambda: chord([add.s(1, 2) | group(add.s(1), add.s(2))], args.s()),
    "chord of a chain to a chord": lambda: chord(
        [add.s(1, 2) | group(add.s(1), add.s(2)) | total.s(), add.s(1, 1)], args.s()
    ),
    "chord of an empty group": lambda: chord([group(app=app), add.s(1, 1)], args.s()),
    "chain to a group": lambda: add.s(1, 2) | group(add.s(1), add.s(2)),
    "chain to a group of chains": lambda: add.s(1, 2) | group(add.s(1) | add.s(1), add.s(2)),
    "chain through a group": lambda: add.s(1, 2) | group(add.s(1), add.s(2)) | total.s(),
    "chain through a group and on": lambda: add.s(1, 2) | group(add.s(1), add.s(2)) | total.s() | add.s(1),
    "chain through two groups": lambda: (
        add.s(1, 2) | group(add.s(1), add.s(2)) | group(args.s(), args.s(5)) | args.s()
    ),
    "group, group": lambda: group(add.s(1, 1), add.s(2, 2)) | group(total.s(), args.s()),
    "group of one in a chain": lambda: add.s(1, 2) | group(add.s(5)) | add.s(1),
    "immutable in a chain": lambda: add.s(1, 2) | add.si(7, 7) | add.s(1),
    "immutable body": lambda: chord([add.s(1, 2)], add.si(5, 5)),
    "chord, group": lambda: chord([add.s(1, 2)], total.s()) | group(add.s(1), add.s(2)),
    "chord, chain": lambda: chord([add.s(1, 2)], total.s()) | (add.s(1) | add.s(2)),
    "map": lambda: total.map([[1, 2], [3]]),
    "starmap": lambda: add.starmap([(1, 2), (3, 4)]),
    "chunks": lambda: add.chunks([(1, 2), (3, 4), (5, 6)], 2),
    "map in a chain": lambda: add.s(1, 2) | add.map([1, 2]) | total.s(),
    "map in a chord": lambda: chord([add.map([1, 2]), add.s(1)], args.s()),
    "kwargs": lambda: args.s(1, a=2) | args.s(3, b=4),
    "retried": lambda: again.s(5),
    "retried in a chain": lambda: add.s(1, 2) | again.s() | args.s(),
    "retried in a chord": lambda: chord([again.s(1), add.s(1, 1)], args.s()),
    "ignored in a chord": lambda: chord([ignored.s(), ignored.s(2)], args.s()),
    "ignored in a chain": lambda: ignored.s(5) | add.s(1),
    "from json": lambda: signature(
        json.loads(json.dumps(add.s(1, 2) | group(add.s(1), add.s(2)) | total.s() | add.s(1))), app=app
    ),
}

FAILING = {
    "task": lambda: fail.s(1),
    "first in a chain": lambda: fail.s() | add.s(1) | add.s(2),
    "in a chain": lambda: add.s(1, 2) | fail.s() | add.s(1) | add.s(2),
    "last in a chain": lambda: add.s(1, 2) | fail.s(),
    "in a group": lambda: group(add.s(1, 2), fail.s()),
    "in a header": lambda: chord([add.s(1, 2), fail.s()], total.s()),
    "in a body": lambda: chord([add.s(1, 2)], fail.s()),
    "in a chain in a header": lambda: chord([fail.s() | add.s(1), add.s(1, 1)], total.s()),
    "gives up": lambda: gives_up.s(),
    "gives up in a chain": lambda: add.s(1, 2) | gives_up.s() | add.s(1),
}

REPLACED = {
    "by a task": lambda: delegate.s(add.s(1, 2)),
    "by a chain": lambda: delegate.s(add.s(1, 2) | add.s(3)),
    "by a group": lambda: delegate.s(group(add.s(1, 2), add.s(3, 4))),
    "by a group of one": lambda: delegate.s(group(add.s(1, 2))),
    "by a chord": lambda: delegate.s(chord([add.s(1, 2), add.s(3, 4)], total.s())),
    "by a chord with a chain": lambda: delegate.s(chord([add.s(1, 2)], total.s() | add.s(1))),
    "by a chain through a group": lambda: delegate.s(add.s(1, 2) | group(add.s(1), add.s(2)) | total.s()),
    "by a failure": lambda: delegate.s(fail.s()),
    "twice": lambda: delegate.s(delegate.s(add.s(1, 2))),
    "twice by groups": lambda: delegate.s(group(delegate.s(group(add.s(1, 2), add.s(1, 1))), add.s(3, 3))),
    "in a chain": lambda: add.s(1, 2) | delegate.s(add.si(1, 2)) | add.s(1),
    "in a chain by a group": lambda: add.s(1, 2) | delegate.s(group(add.si(1, 2), add.si(1, 1))) | total.s(),
    "in a chain by a chain": lambda: add.s(1, 2) | delegate.s(add.si(1, 2) | add.s(1)) | add.s(1),
    "in a chain by a failure": lambda: add.s(1, 2) | delegate.s(fail.si()) | add.s(1),
    "in a chord": lambda: chord([delegate.s(add.s(1, 2)), add.s(1, 1)], total.s()),
    "in a chord by a chain": lambda: chord([delegate.s(add.s(1, 2) | add.s(1)), add.s(1, 1)], total.s()),
    "in a chord by a group": lambda: chord(
        [delegate.s(group(add.s(1, 2), add.s(1, 1))), add.s(1, 1)], args.s()
    ),
    "in a chord by a chord": lambda: chord(
        [delegate.s(chord([add.s(1, 2)], total.s())), add.s(1, 1)], args.s()
    ),
    "in a chord by a failure": lambda: chord([delegate.s(fail.s()), add.s(1, 1)], total.s()),
    "body": lambda: chord([add.s(1, 2)], delegate.s(add.si(5, 5))),
    "in a group": lambda: group(delegate.s(add.s(1, 2)), add.s(1, 1)),
    "by an empty group": lambda: delegate.s(group(app=app)),
    "first of a chain": lambda: delegate.s(add.s(1, 2)) | add.s(1) | add.s(2),
}


# Where real Celery waits for ever, leaves results that nobody will write, or calls an errback twice or never.
CURED = {
    "replaced by a chain to a group": lambda: delegate.s(add.s(1, 2) | group(add.s(1), add.s(2))),
    "in an inner header": lambda: chord([chord([fail.s(), add.s(1)], total.s()), add.s(1, 1)], total.s()),
    "in an inner body": lambda: chord([chord([add.s(1)], fail.s()), add.s(1, 1)], total.s()),
    "before a group": lambda: fail.s() | group(add.s(1), add.s(2)),
    "before a chord": lambda: fail.s() | group(add.s(1), add.s(2)) | total.s(),
    "before a chord and on": lambda: fail.s() | group(add.s(1), add.s(2)) | total.s() | add.s(1),
    "in a chord in a chain": lambda: add.s(1, 2) | group(fail.s(), add.s(2)) | total.s() | add.s(1),
    "body that is a chain": lambda: chord([fail.s()], total.s() | add.s(1)),
    "body that is a group": lambda: chord([fail.s()], group(total.s(), args.s())),
    "in a map": lambda: fail.map([1]),
}


def all_of(table):
    return sent({name: lambda make=make: make().apply_async() for name, make in table.items()})


@question
def workflows():
    return all_of(PLAIN)


@question
def failing_workflows():
    return all_of(FAILING)


@question
def the_order_of_groups_in_a_header():
    return all_of(
        {
            "chord of groups": lambda: chord([group(add.s(1, 2), add.s(2, 2)), add.s(3, 3)], args.s()),
            # Real Celery's order, and whether it has all results by then, depends on who is first.
            "chord of a chord to a group": lambda: chord(
                [chord([add.s(1, 2)], group(args.s(), args.s(1))), add.s(1, 1)], args.s()
            ),
            "chord of a chain to a group and a task": lambda: chord(
                [add.s(1, 2) | group(add.s(1), add.s(2)), add.s(1, 1)], args.s()
            ),
        }
    )


@question
def cured_workflows():
    return all_of(CURED)


@question
def errbacks_of_headers_too():
    tables = {
        "two": lambda: chord([add.s(1, 2), fail.s(), fail.s(2)], total.s()),
        "a chain": lambda: chord([add.s(1, 2) | fail.s() | add.s(1), add.s(1, 1)], total.s()),
        "joined": lambda: add.s(1, 2) | group(add.s(2), fail.s()) | total.s(),
        "body": lambda: chord([add.s(1, 2)], fail.s()),
    }
    app.conf.task_allow_error_cb_on_chord_header = True
    try:
        return {
            task.name: with_errbacks(
                keyed(f"header {task.name}", tables),
                lambda made, key, task=task: made.link_error(task.s(key=key)),
            )
            for task in (new, old)
        }
    finally:
        app.conf.task_allow_error_cb_on_chord_header = False


@question
def errbacks_of_all_kinds():
    made = {
        "group": lambda key: group(old.s(key=key), old.s(key=key)),
        "chord": lambda key: chord([old.s(key=key)], seen.si(2, key=key)),
        "dict": lambda key: json.loads(json.dumps(new.s(key=key))),
        "name": lambda key: signature("w.new", kwargs={"key": key}, app=app),
        "unknown name": lambda key: signature("not.there", kwargs={"key": key}, app=app),
    }
    return waited(
        {
            f"kind {name}": lambda key, make=make: fail.apply_async(link_error=make(key))
            for name, make in made.items()
        }
    )


@question
def cured_errbacks():
    return with_errbacks(keyed("cured", CURED), lambda made, key: made.link_error(new.s(key=key)))


@question
def replaced_tasks():
    return all_of(REPLACED)


@question
def partial_arguments():
    made = {
        "task": lambda: args.s(1),
        "chain": lambda: args.s(1) | args.s(2),
        "group": lambda: group(args.s(1), args.s(2)),
        "group of chains": lambda: group(args.s(1) | args.s(2), args.s(3)),
        "chord": lambda: chord([args.s(1), args.s(2)], args.s(3)),
        "chord with args": lambda: chord([args.s(1)], args.s(3), args=(7,)),
        "immutable": lambda: args.si(1),
        "chain to a group": lambda: args.s(1) | group(args.s(2), args.s(3)),
    }
    return sent({name: lambda make=make: make().apply_async((9,)) for name, make in made.items()})


def with_errbacks(table, link):
    def start(name, make):
        made = make()
        link(made, name)
        return made.apply_async()

    return waited({name: lambda key, make=make: start(key, make) for name, make in table.items()})


def keyed(prefix, table):
    return {f"{prefix}: {name}": make for name, make in table.items()}


@question
def errbacks_of_the_old_kind():
    return with_errbacks(keyed("old", FAILING), lambda made, key: made.link_error(old.s(key=key)))


@question
def errbacks_of_the_new_kind():
    return with_errbacks(keyed("new", FAILING), lambda made, key: made.link_error(new.s(key=key)))


@question
def errbacks_of_bound_tasks():
    return with_errbacks(
        keyed("bound", {"task": FAILING["task"]}), lambda made, key: made.link_error(bound.s(key=key))
    )


@question
def immutable_errbacks():
    return with_errbacks(
        keyed("fixed", {name: FAILING[name] for name in ("task", "in a chain", "in a header")}),
        lambda made, key: made.link_error(seen.si(1, key=key)),
    )


@question
def errbacks_of_replaced_tasks():
    return with_errbacks(
        keyed("replaced", {name: make for name, make in REPLACED.items() if "failure" in name}),
        lambda made, key: made.link_error(new.s(key=key)),
    )


@question
def no_errbacks_without_failures():
    table = {
        name: PLAIN[name] for name in ("chain", "chord", "group", "chain through a group and on", "retried")
    }
    return with_errbacks(keyed("none", table), lambda made, key: made.link_error(new.s(key=key)))


@question
def callbacks():
    names = (
        *("task", "chain", "chord", "group", "chord with a chain", "chain of one"),
        *("retried", "chord of chords", "group of chains"),
    )
    return with_errbacks(
        keyed("link", {name: PLAIN[name] for name in names}), lambda made, key: made.link(seen.s(key=key))
    )


@question
def callbacks_of_replaced_tasks():
    names = ("by a task", "by a group", "by a chord", "twice", "in a chain")
    return with_errbacks(
        keyed("link replaced", {name: REPLACED[name] for name in names}),
        lambda made, key: made.link(seen.s(key=key)),
    )


@question
def cured_callbacks():
    table = {"in a chain": PLAIN["chain through a group"], "replaced": REPLACED["by a chain"]}
    return with_errbacks(keyed("cured link", table), lambda made, key: made.link(seen.s(key=key)))


@question
def several_callbacks():
    def link(made, key):
        made.link(seen.s(key=key))
        made.link(seen.s(1, key=key))
        made.link(seen.si(2, key=key))
        made.link(group(seen.s(3, key=key), seen.s(4, key=key)))
        made.link(seen.s(5, key=key) | seen.si(6, key=key))

    return with_errbacks(keyed("several", {"task": PLAIN["task"]}), link)


# --- where a task comes from --------------------------------------------------------------------------------


def told(key, count):
    deadline = time.monotonic() + WAIT
    while store().llen(f"seen-{key}") < count and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.1)
    items = [json.loads(item)[0] for item in store().lrange(f"seen-{key}", 0, -1)]
    names = {}
    found = []
    for item in items:
        for field in ("id", "root_id", "parent_id", "group"):
            if item.get(field) is not None:
                item[field] = names.setdefault(item[field], len(names))
        found.append(item)
    return found


@question
def lineage():
    found = {}
    made = {
        "task": (lambda t: t(), 1),
        "chain": (lambda t: t() | t() | t(), 3),
        "chord": (lambda t: chord([t()], t()), 2),
        "chain to a group of one": (lambda t: t() | group(t()), 2),
        "chain through a chord": (lambda t: t() | chord([t()], t()) | t(), 4),
        "chord of a chain": (lambda t: chord([t() | t()], t()), 3),
        "chord with a chain": (lambda t: chord([t()], t() | t()), 3),
        "chord of a chord": (lambda t: chord([chord([t()], t())], t()), 3),
        "retry in a chain": (lambda t: t() | t(again=1) | t(), 4),
        "retry in a chord": (lambda t: chord([t(again=1)], t(again=1)), 4),
        "replace in a group": (lambda t: group(delegate.s(t(again=1))), 2),
        "replace in a chord": (lambda t: chord([delegate.s(t())], t()), 2),
    }
    for name, (make, count) in made.items():
        key = f"lineage {name}"
        workflow = make(lambda key=key, **more: tell.s(key=key, **more))
        workflow.stamp(one="1")
        workflow.apply_async(priority=3)
        found[name] = told(key, count)
    tell.s(key="lineage link").apply_async(link=tell.s(key="lineage link"))
    found["link"] = told("lineage link", 2)
    fail.s().apply_async(link_error=tell.si(key="lineage error"))
    found["link_error"] = told("lineage error", 1)
    delegate.s(tell.si(key="lineage replace")).apply_async()
    found["replace"] = told("lineage replace", 1)
    delegate.s(tell.si(key="lineage replace chain") | tell.si(key="lineage replace chain")).apply_async()
    found["replace by a chain"] = told("lineage replace chain", 2)
    tell.s(key="lineage prio").apply_async(priority=3, link=tell.s(key="lineage prio"))
    found["priority"] = told("lineage prio", 2)
    tell_child.s(key="lineage child").apply_async()
    found["child"] = told("lineage child", 1)
    return found


@question
def stamps():
    found = {}

    def run(name, made, count):
        key = f"stamps {name}"
        it = made(key)
        it.stamp(one="1", many=["a", "b"])
        it.apply_async()
        found[name] = [
            {field: item.get(field) for field in ("stamps", "stamped")} for item in told(key, count)
        ]

    run("task", lambda key: tell.s(key=key), 1)
    run("chain", lambda key: tell.s(key=key) | tell.s(key=key), 2)
    run("group", lambda key: group(tell.s(key=key), tell.s(key=key)), 2)
    run("chord", lambda key: chord([tell.s(key=key)], tell.s(key=key)), 2)
    run("retry", lambda key: tell_again.s(key=key), 2)
    run("replace", lambda key: tell_replaced.s(key=key), 2)
    run("child", lambda key: tell_child.s(key=key), 1)
    run("link", lambda key: tell.s(key=key).set(link=[tell.s(key=key)]), 2)
    run("link_error", lambda key: fail.s().set(link_error=[tell.si(key=key)]), 1)
    tell.s(key="stamps options").apply_async(stamped_headers=["zz"], zz="v")
    found["options"] = [it["stamps"] for it in told("stamps options", 1)]
    result = add.s(1, 2)
    result.stamp(one="1")
    result = result.apply_async()
    result.get(timeout=WAIT)
    meta = json.loads(store().get(f"celery-task-meta-{result.id}"))
    found["meta"] = {key: meta.get(key) for key in ("one", "stamped_headers", "stamps")}
    return found
