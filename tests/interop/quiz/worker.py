"""What a worker makes of tasks. The module is also the worker's app: ``celery -A quiz.worker worker``."""

import io
import json
import os
import time
from datetime import datetime, timezone
from decimal import Decimal
from uuid import UUID

from celery import Celery, Task, group, signals
from celery.exceptions import Ignore, Reject
from celery.result import allow_join_result
from quiz.asking import error, question, shown

BROKER = os.environ["QUIZ_BROKER"]
PREFIX = os.environ.get("QUIZ_PREFIX", "")
WAIT = 30  # seconds; a task that does not answer is a wrong answer, not a test that hangs

app = Celery("worker", broker=BROKER, backend=BROKER, include=["quiz.workflows", "quiz.heard"])
app.conf.update(
    accept_content=["json", "yaml", "pickle"],
    broker_connection_retry_on_startup=True,
    result_extended=True,
    task_annotations={"annotated": {"max_retries": 1, "my_own": 7}},
)


class Mine(Exception):
    class Inner(Exception):
        pass


class Hooked(Task):
    """Notes its hooks in a list on Redis."""

    def before_start(self, task_id, args, kwargs):
        note(self, "before_start", list(args))

    def on_success(self, retval, task_id, args, kwargs):
        note(self, "on_success", retval)

    def on_failure(self, exc, task_id, args, kwargs, einfo):
        note(self, "on_failure", repr(exc), "Traceback" in str(einfo), "Traceback" in einfo.traceback)

    def on_retry(self, exc, task_id, args, kwargs, einfo):
        note(self, "on_retry", repr(exc), "Traceback" in str(einfo))

    def after_return(self, status, retval, task_id, args, kwargs, einfo):
        note(self, "after_return", status, repr(retval), einfo is None)


def store():
    import redis

    return redis.Redis.from_url(BROKER)


def note(task, *what):
    store().rpush(f"notes-{task.request.id}", json.dumps([task.request.retries, *what]))


def notes(task_id, count):
    deadline = time.monotonic() + WAIT
    while store().llen(f"notes-{task_id}") < count and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.2)  # one too many would be wrong too
    found = [json.loads(item) for item in store().lrange(f"notes-{task_id}", 0, -1)]
    return sorted(found, key=lambda item: item[0])  # two runs may overlap


@signals.task_prerun.connect
def prerun(sender=None, task_id=None, task=None, args=None, kwargs=None, **kw):
    if sender.name == "hooked":
        note(task, "task_prerun", task_id == task.request.id, list(args), kwargs)


@signals.task_postrun.connect
def postrun(sender=None, task_id=None, task=None, retval=None, state=None, **kw):
    if sender.name == "hooked":
        note(task, "task_postrun", repr(retval).partition("(")[0], state, sorted(set(kw) - {"signal"}))


@signals.task_success.connect
def success(sender=None, result=None, **kw):
    if sender.name == "hooked":
        note(sender, "task_success", result)


@signals.task_failure.connect
def failure(sender=None, task_id=None, exception=None, traceback=None, einfo=None, **kw):
    if sender.name == "hooked":
        note(sender, "task_failure", repr(exception), traceback is not None, sorted(set(kw) - {"signal"}))


@signals.task_retry.connect
def retry(sender=None, request=None, reason=None, einfo=None, **kw):
    if sender.name == "hooked":
        note(sender, "task_retry", str(reason), request.id == sender.request.id)


@app.task(name="hooked", base=Hooked, bind=True, max_retries=1)
def hooked(self, how):
    note(self, "run", how)
    if how == "retry":
        raise self.retry(exc=KeyError("again"), countdown=0)
    if how == "success after retry" and not self.request.retries:
        raise self.retry(countdown=0)
    if how == "fail":
        raise KeyError("x")
    if how == "ignore":
        raise Ignore("why")
    if how == "reject":
        raise Reject("why")
    if how == "unserializable":
        return {1}
    return 42


@question
def hooks_and_signals():
    counts = {
        "good": 7,
        "fail": 7,
        "retry": 13,
        "success after retry": 13,
        "ignore": 4,
        "reject": 4,
        "unserializable": 7,
    }
    found = {}
    for how, count in counts.items():
        result = hooked.delay(how)
        found[how] = [without_what_json_refused(notes(result.id, count)), result.state]
    return found


def without_what_json_refused(value):
    """Cut texts about it: Celery's names neither the task nor the type."""
    if isinstance(value, dict):
        return {key: without_what_json_refused(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_what_json_refused(item) for item in value]
    if isinstance(value, str) and "is not JSON serializable" in value:
        return value.partition("(")[0]
    return value


FIELDS = (
    *(
        "args",
        "kwargs",
        "callbacks",
        "called_directly",
        "chain",
        "chord",
        "delivery_info",
        "errbacks",
        "expires",
    ),
    *("group", "group_index", "headers", "ignore_result", "is_eager", "logfile", "loglevel", "parent_id"),
    *(
        "replaced_task_nesting",
        "retries",
        "shadow",
        "stamped_headers",
        "stamps",
        "taskset",
        "timelimit",
        "utc",
    ),
    *("task", "lang", "argsrepr", "kwargsrepr", "root_id", "id", "correlation_id", "eta"),
)


@app.task(name="tell", bind=True)
def tell(self, *args, **kwargs):
    request = self.request
    return {
        **{name: getattr(request, name, "missing") for name in FIELDS},
        "hostname": request.hostname.partition("@")[0],
        "mine": getattr(request, "mine", "missing"),
        "reply_to": type(request.reply_to).__name__,
        "properties": sorted(set(request.properties or ()) & {"correlation_id", "delivery_info", "priority"}),
        "children": len(request.children),
        "current": [app.current_task.name, app.current_worker_task.name],
    }


@question
def the_request():
    return tell.apply_async((1,), {"a": 2}, task_id=f"tell-1{PREFIX}").get(timeout=WAIT)


@question
def the_request_with_options():
    return tell.apply_async(
        (1,), headers={"mine": 1}, priority=3, shadow="shade", time_limit=50, soft_time_limit=40, retries=2,
        root_id="r", parent_id="p", group_id="g", group_index=1, task_id=f"tell-2{PREFIX}", expires=datetime(2090, 1, 1, tzinfo=timezone.utc),
    ).get(timeout=WAIT)  # fmt: skip


@question
def the_request_by_pickle_and_compressed():
    found = tell.apply_async(((1, 2),), serializer="pickle", compression="zlib").get(timeout=WAIT)
    return found["argsrepr"], found["args"]


@question
def the_request_with_an_eta():
    return bool(tell.apply_async(countdown=0.1).get(timeout=WAIT)["eta"]), tell.apply_async(countdown=0).get(
        timeout=WAIT
    )["eta"]


@app.task(name="give")
def give(value):
    return value


@app.task(name="given")
def given(kind):
    return {
        "tuple": (1, (2,)), "none": None, "nan": float("nan"), "big": 2**70, "text": "grüß 🌱 \x00", "bytes": b"\xff", "decimal": Decimal("1.5"),
        "uuid": UUID("12345678123456781234567812345678"), "datetime": datetime(2030, 1, 2, tzinfo=timezone.utc), "int keys": {1: 2}, "surrogate": "\ud800",
    }[kind]  # fmt: skip


@question
def values():
    kinds = (
        "tuple",
        "none",
        "nan",
        "big",
        "text",
        "bytes",
        "decimal",
        "uuid",
        "datetime",
        "int keys",
        "surrogate",
    )
    return {kind: error(lambda kind=kind: repr(given.delay(kind).get(timeout=WAIT))) for kind in kinds}


@question
def arguments():
    values = [
        1,
        1.5,
        None,
        "grüß",
        [1],
        {"a": b"x"},
        Decimal("1.5"),
        datetime(2030, 1, 2, tzinfo=timezone.utc),
        UUID(int=5),
    ]
    return [repr(give.delay(value).get(timeout=WAIT)) for value in values]


@app.task(name="raises")
def raises(kind):
    if kind == "chained":
        try:
            raise KeyError("cause")
        except KeyError as exc:
            raise ValueError("effect") from exc
    if kind == "exit":
        raise SystemExit(3)
    raise {
        "built in": KeyError("x", 1), "own": Mine("x", {"a": [1]}), "inner": Mine.Inner("x"), "unserializable": ValueError("a", {1}),
        "os": OSError(2, "No such file", "name"), "unicode": ValueError("grüß 🌱 \ud800"), "nul": ValueError("a\x00b"), "empty": ValueError(),
        "base": ArithmeticError("x"), "timeout": TimeoutError("x"),
    }[kind]  # fmt: skip


@question
def failures():
    kinds = (
        "built in",
        "own",
        "inner",
        "unserializable",
        "os",
        "unicode",
        "nul",
        "empty",
        "base",
        "timeout",
        "chained",
    )
    found = {}
    for kind in kinds:
        result = raises.delay(kind)
        exc = result.get(timeout=WAIT, propagate=False)
        lines = (result.traceback or "").strip().splitlines()
        found[kind] = [
            result.state,
            repr(exc),
            type(exc).__module__,
            lines[:1],
            lines[-1:],
            sum("in raises" in line for line in lines),
        ]
    return found


def document(result):
    """Return what is stored of a result, in its order."""
    result.get(timeout=WAIT, propagate=False)
    found = json.loads(store().get(f"celery-task-meta-{result.id}"))
    return {
        key: bool(value)
        if key in {"traceback", "date_done"}
        else value.partition("@")[0]
        if key == "worker"
        else value
        for key, value in found.items()
    }, list(found)


@question
def documents():
    return {
        "good": document(give.apply_async((1,), task_id=f"doc-1{PREFIX}")),
        "bad": document(raises.apply_async(("own",), task_id=f"doc-2{PREFIX}")),
        "related": document(
            give.apply_async((1,), task_id=f"doc-3{PREFIX}", group_id="g", parent_id="p", root_id="r")
        ),
        "retries": document(give.apply_async((1,), task_id=f"doc-4{PREFIX}", retries=2)),
        "expires": round(store().ttl(f"celery-task-meta-doc-1{PREFIX}"), -3),
    }


@question
def extended_results():
    result = give.delay(value=[1])
    result.get(timeout=WAIT)
    return [
        result.name,
        result.args,
        result.kwargs,
        result.retries,
        result.queue,
        result.worker.partition("@")[0],
        type(result.date_done).__name__,
    ]


@app.task(name="quiet", ignore_result=True)
def quiet():
    return 1


@app.task(name="quiet failing", ignore_result=True, store_errors_even_if_ignored=True)
def quiet_failing():
    raise KeyError("x")


@question
def ignored_results():
    one, two, three, four = (
        quiet.delay(),
        give.apply_async((1,), ignore_result=True),
        quiet.apply_async(ignore_result=False),
        quiet_failing.delay(),
    )
    found = [one.get(), one.ignored, two.get(), two.ignored, three.get(timeout=WAIT), three.ignored]
    give.delay(1).get(timeout=WAIT)
    deadline = time.monotonic() + WAIT
    while app.AsyncResult(four.id).state == "PENDING" and time.monotonic() < deadline:
        time.sleep(0.02)
    return found, [app.AsyncResult(result.id).state for result in (one, two, four)]


@app.task(name="annotated", bind=True)
def annotated(self):
    return [self.max_retries, self.my_own]


@question
def annotations():
    return annotated.delay().get(timeout=WAIT)


@app.task(name="retrying", bind=True, max_retries=3)
def retrying(self, how, seen=()):
    request = self.request
    seen = [
        *seen,
        [
            request.retries,
            request.headers,
            request.shadow,
            request.delivery_info["routing_key"],
            request.expires is not None,
        ],
    ]
    if request.retries < 2:
        exc = {"exc": Mine("why")}.get(how)
        raise self.retry(args=(how, seen), exc=exc, countdown=0)
    return seen


@app.task(name="hopeless", bind=True, max_retries=1, default_retry_delay=0)
def hopeless(self, how):
    raise self.retry(exc=Mine("why") if how == "exc" else None)


@app.task(name="automatic", bind=True, autoretry_for=(Mine,), max_retries=2, default_retry_delay=0)
def automatic(self, until):
    if self.request.retries < until:
        raise Mine(self.request.retries)
    return self.request.retries


@question
def retries():
    return {
        "plain": retrying.apply_async(("plain",), headers={"mine": 1}, shadow="s", expires=500).get(
            timeout=WAIT
        ),
        "exc": len(retrying.delay("exc").get(timeout=WAIT)),
        "hopeless": outcome(hopeless.apply_async(("exc",), task_id=f"hopeless-1{PREFIX}")),
        "hopeless without": outcome(hopeless.apply_async(("none",), task_id=f"hopeless-2{PREFIX}")),
        "automatic": automatic.delay(2).get(timeout=WAIT),
        "automatic hopeless": outcome(automatic.delay(9)),
    }


def outcome(result):
    exc = result.get(timeout=WAIT, propagate=False)
    return result.state, type(exc).__name__, shown(str(exc))


def shortened(args):
    """Return arguments as they can be compared: of a traceback only what it is."""
    return [
        arg.splitlines()[-1] if isinstance(arg, str) else arg if isinstance(arg, int) else type(arg).__name__
        for arg in args
    ]


@app.task(name="linked")
def linked(*args, to):
    store().rpush(
        f"linked-{to}",
        json.dumps(shortened(args)),
    )


@app.task(name="told")
def told(request, exc, traceback, to):
    store().rpush(f"linked-{to}", json.dumps([request.id, repr(exc), "Traceback" in traceback]))


def linked_to(name, count):
    deadline = time.monotonic() + WAIT
    while store().llen(f"linked-{name}") < count and time.monotonic() < deadline:
        time.sleep(0.02)
    return sorted((json.loads(item) for item in store().lrange(f"linked-{name}", 0, -1)), key=repr)


@question
def links():
    give.apply_async((1,), link=linked.s(to="a"))
    give.apply_async((1,), link=[linked.s(2, to="b"), linked.si(3, to="b")])
    raises.apply_async(("own",), task_id=f"links{PREFIX}", link_error=[told.s(to="c"), linked.si(4, to="c")])
    raises.apply_async(("own",), task_id=f"links-2{PREFIX}", link_error=linked.s(to="d"))
    return linked_to("a", 1), linked_to("b", 2), linked_to("c", 2), linked_to("d", 1)


@app.task(name="stateful", bind=True)
def stateful(self):
    self.update_state(state="HALF", meta={"n": 1})
    seen = app.AsyncResult(self.request.id)
    return [seen.state, seen.info]


@app.task(name="parent", bind=True)
def parent(self):
    result = give.delay(1)
    return [result.id, [child.id == result.id for child in self.request.children], error(result.get)]


@question
def states_and_children():
    result = parent.delay()
    child_id, seen, refused = result.get(timeout=WAIT)
    child = app.AsyncResult(child_id)
    child.get(timeout=WAIT)
    return (
        stateful.delay().get(timeout=WAIT), seen, refused, [c.id == child_id for c in result.children],
        json.loads(store().get(f"celery-task-meta-{child_id}"))["parent_id"] == result.id,
    )  # fmt: skip


@app.task(name="family", bind=True)
def family(self, name, depth):
    """Send two tasks on each level."""
    if depth:
        for number in range(2):
            family.delay(f"{name}.{number}", depth - 1)
    return name


def complete(result):
    """Return a result once all below it are ready."""
    until = time.monotonic() + WAIT
    while error(list, result.iterdeps()) == "IncompleteStream" and time.monotonic() < until:
        time.sleep(0.02)
    return result


@question
def what_is_below_a_result():
    top = complete(family.delay("top", 2))
    graph, drawing = top.graph, io.StringIO()
    graph.to_dot(drawing)
    by_name = {node.get(timeout=WAIT): node for node in graph}
    mixed = complete((give.s(1) | group([give.s(), give.s()])).delay())
    return {
        "collect": [value for _, value in top.collect(timeout=WAIT)],
        "iterdeps": [[parent and parent.get(), node.get()] for parent, node in top.iterdeps()],
        "graph": {name: sorted(child.get() for child in graph[node]) for name, node in by_name.items()},
        "top": [len(list(graph)), top.get_leaf(), sorted(node.get() for node in graph.edges()), graph.valency_of(top)],
        "drawn": [drawing.getvalue().count("->"), drawing.getvalue().count("{")],
        "of a group": [sorted(map(repr, (value for _, value in mixed.parent.collect()))), len(mixed.parent.children)],
        "not ready": [error(list, app.AsyncResult("unknown").iterdeps()), error(list, app.AsyncResult("unknown").collect())],
        "not ready, seen": [[parent, node.id] for parent, node in app.AsyncResult("unknown").iterdeps(intermediate=True)],
        "built": sorted(node.get() for node in top.build_graph(intermediate=True)),
    }  # fmt: skip


@app.task(name="progressing", bind=True)
def progressing(self, steps):
    for step in range(steps):
        self.update_state(state="PROGRESS", meta={"current": step, "total": steps})
        time.sleep(0.05)
    return "end"


@question
def news_while_waiting():
    """The countdown gives who waits the time to begin. Real Celery also tells of what others have waited for."""
    heard = []
    one = progressing.apply_async((3,), countdown=0.7)
    values = [one.get(timeout=WAIT, on_message=heard.append)]
    many = group(progressing.s(1), progressing.s(2)).apply_async(countdown=0.7)
    values.append(many.get(timeout=WAIT, on_message=heard.append))
    of = {
        name: [news for news in heard if news["task_id"] in ids]
        for name, ids in (("one", [one.id]), ("many", list(map(str, many))))
    }
    return [
        values, [[news["status"], news["result"]] for news in of["one"]], sorted(of["one"][-1]),
        sorted([news["status"], str(news["result"])] for news in of["many"]),
    ]  # fmt: skip


@question
def joining():
    many = group(give.s(number) for number in range(4)).apply_async()
    called = []
    values = many.join(timeout=WAIT, callback=lambda *what: called.append(what))
    failing = group(give.s(1), raises.s("own"), raises.s("built in")).apply_async()
    again = app.GroupResult(many.id, [app.AsyncResult(result.id) for result in many])
    return [
        values, [value for _, value in called] == list(range(4)), [id for id, _ in called] == [result.id for result in many],
        again.join_native(timeout=WAIT), sorted(meta["result"] for _, meta in again.iter_native(timeout=WAIT)), again.completed_count(),
        error(failing.join, timeout=WAIT), [type(value).__name__ for value in failing.join(timeout=WAIT, propagate=False)],
        failing.completed_count(), failing.failed(), failing.ready(), failing.waiting(),
    ]  # fmt: skip


@question
def following_parents():
    failed = (raises.s("built in") | give.s() | give.s()).delay()
    first = failed.parent.parent
    return [
        error(failed.get, timeout=WAIT), error(failed.get, timeout=0.3, follow_parents=False), first.state, failed.parent.state, failed.state,
        error(failed.get, timeout=WAIT, propagate=False) if failed.ready() else None, failed.as_list() == [failed.id, failed.parent.id, first.id],
    ]  # fmt: skip


@app.task(name="patient")
def patient(task_id, how):
    """Wait for another task inside a task, in one way or the other."""
    result = app.AsyncResult(task_id)
    if how == "allowed":
        with allow_join_result():
            return error(result.get, timeout=WAIT)
    return error(result.get, timeout=WAIT, disable_sync_subtasks=how == "refused")


@question
def waiting_inside_a_task():
    done = give.delay(7)
    done.get(timeout=WAIT)
    return [patient.delay(done.id, how).get(timeout=WAIT) for how in ("refused", "open", "allowed")]


@question
def expired_and_unknown():
    expired = give.apply_async((1,), expires=-5)
    unknown = app.send_task("no.such.task")
    return outcome(expired), outcome(unknown)


@app.task(name="typed")
def typed(x: int, y: int = 2) -> int:
    return x + y


@question
def wrong_arguments_that_only_the_worker_sees():
    return outcome(app.send_task("typed", ()))
