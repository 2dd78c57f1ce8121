"""Tasks that run right here."""

from celery import Task, chain, group, signals
from celery.exceptions import Ignore, Reject, Retry
from celery.result import EagerResult, allow_join_result
from quiz.asking import error, error_text, new_app, one, question, told

FIELDS = (
    *("args", "kwargs", "callbacks", "called_directly", "chain", "chord", "correlation_id", "delivery_info"),
    *("errbacks", "eta", "expires", "group", "group_index", "headers", "id", "ignore_result", "is_eager"),
    *("logfile", "loglevel", "parent_id", "properties", "replaced_task_nesting", "reply_to", "retries"),
    *("root_id", "shadow", "stamped_headers", "stamps", "taskset", "timelimit", "utc", "task"),
)


def told_request(app):
    @app.task(name="t", bind=True)
    def tell(self, *args, **kwargs):
        return {name: getattr(self.request, name, "missing") for name in FIELDS}

    return tell


@question
def the_request_of_apply():
    return told_request(new_app()).apply((1,), {"a": 2}, task_id="i").get()


@question
def the_request_of_apply_with_options():
    return told_request(new_app()).apply(
        (1,), task_id="i", retries=2, headers={"mine": 1}, priority=3, routing_key="k", exchange="e",
        loglevel=10, logfile="f", ignore_result=True,
    ).get()  # fmt: skip


@question
def the_request_of_an_eager_delay():
    app = new_app(task_always_eager=True)
    return (
        told_request(app)
        .apply_async((1,), {"a": 2}, task_id="i", headers={"mine": 1}, queue="q", countdown=5)
        .get()
    )


@question
def custom_headers_are_attributes():
    @new_app().task(name="t", bind=True)
    def tell(self):
        return self.request.headers

    return tell.apply(headers={"mine": 1}).get()


def failing(app, *errors, **options):
    """Return a task that raises one error after the other, then returns how often it was run."""
    state = {"n": 0, "retries": []}

    @app.task(name="t", bind=True, **options)
    def work(self):
        state["retries"].append(self.request.retries)
        if state["n"] < len(errors):
            state["n"] += 1
            raise errors[state["n"] - 1]
        return state["n"]

    return work, state


def outcome(result):
    return result.state, told(result.result) if isinstance(result.result, BaseException) else result.result


@question
def a_success_and_a_failure():
    app = new_app()
    good, _ = failing(app)
    bad, _ = failing(new_app(), KeyError("x"))
    one, two = good.apply(task_id="g"), bad.apply(task_id="b")
    return {
        "good": [
            one.state,
            one.status,
            one.result,
            one.get(),
            one.ready(),
            one.successful(),
            one.failed(),
            one.traceback,
        ],
        "bad": [
            two.state,
            repr(two.result),
            two.successful(),
            two.failed(),
            two.ready(),
            error_text(two.get),
            bool(two.traceback),
        ],
        "quiet": repr(two.get(propagate=False)),
        "last line": two.traceback.strip().splitlines()[-1],
        "frames": sum("in work" in line for line in two.traceback.splitlines()),
        "first line": two.traceback.splitlines()[0],
        "misc": [
            repr(one),
            str(one),
            one.id,
            one.children,
            one.supports_native_join,
            one.name,
            one.as_tuple(),
        ],
    }


@question
def propagation():
    bad, _ = failing(new_app(), KeyError("x"), KeyError("x"))
    throws, _ = failing(new_app(task_eager_propagates=True), KeyError("x"))
    eager, _ = failing(new_app(task_always_eager=True, task_eager_propagates=True), KeyError("x"))
    return error_text(bad.apply, throw=True), error_text(throws.apply), error_text(eager.delay)


@question
def autoretry():
    work, state = failing(new_app(), KeyError(1), KeyError(2), autoretry_for=(KeyError,), retry_backoff=True)
    lost, lost_state = failing(
        new_app(), *[KeyError(n) for n in range(9)], autoretry_for=(KeyError,), max_retries=2
    )
    kwargs, kwargs_state = failing(
        new_app(),
        *[KeyError(n) for n in range(9)],
        autoretry_for=(KeyError,),
        retry_kwargs={"max_retries": 1, "countdown": 7},
    )
    spared, spared_state = failing(
        new_app(), KeyError(1), autoretry_for=(LookupError,), dont_autoretry_for=(KeyError,)
    )
    other, other_state = failing(new_app(), ValueError(1), autoretry_for=(KeyError,))
    return [
        (outcome(task.apply()), found["retries"])
        for task, found in (
            (work, state),
            (lost, lost_state),
            (kwargs, kwargs_state),
            (spared, spared_state),
            (other, other_state),
        )
    ]


@question
def autoretry_backoff():
    waits = []

    def run(**options):
        app = new_app()

        @app.task(name="t", bind=True, autoretry_for=(KeyError,), max_retries=None, **options)
        def work(self):
            raise KeyError("x")

        def retry(exc=None, countdown=None, **kw):
            waits[-1].append(countdown)
            raise Ignore

        work.retry = retry
        waits.append([])
        for retries in (0, 1, 2, 5, 12):
            work.apply(retries=retries)

    for options in (
        {"retry_backoff": True, "retry_jitter": False},
        {"retry_backoff": 3, "retry_jitter": False},
        {"retry_backoff": 1.5, "retry_jitter": False},
        {"retry_backoff": 0.2, "retry_jitter": False},
        {"retry_backoff": True, "retry_backoff_max": 10, "retry_jitter": False},
        {"retry_backoff": False},
        {},
    ):
        run(**options)
    return waits


@question
def retries():
    app = new_app()
    runs = []

    @app.task(name="t", bind=True, max_retries=2)
    def again(self, how):
        runs.append([how, self.request.retries])
        exc = KeyError("mine") if "exc" in how else None
        if "kwargs" in how and self.request.retries == 0:
            raise self.retry(args=("done",), kwargs={})
        if how == "done":
            return "other arguments"
        if "three" in how and self.request.retries == 3:
            return "three"
        raise self.retry(exc=exc, max_retries=3 if "three" in how else None, countdown=100)

    found = {how: outcome(again.apply((how,))) for how in ("exc", "none", "kwargs", "three")}
    return found, runs, error_text(again.apply(("none",), task_id="i").get)


@question
def a_retry_that_is_not_thrown():
    @new_app().task(name="t", bind=True)
    def again(self):
        made = self.retry(exc=KeyError("x"), countdown=3, throw=False)
        return [
            type(made).__name__,
            made.when,
            repr(made.exc),
            made.is_eager,
            made.humanize(),
            str(made),
            made.sig.options.get("retries"),
        ]

    return again.apply(task_id="i").get()


@question
def retries_without_end():
    @new_app().task(name="t", bind=True, max_retries=None, default_retry_delay=0)
    def again(self):
        if self.request.retries == 20:
            return "twenty"
        raise self.retry()

    return again.apply().get()


@question
def what_a_retry_takes_along():
    seen = []

    @new_app().task(name="t", bind=True)
    def again(self, *args, **kwargs):
        request = self.request
        seen.append([list(args), kwargs, request.id, request.root_id, request.parent_id, request.headers])
        if request.retries == 0:
            raise self.retry(countdown=1)

    again.apply((1,), {"a": 2}, task_id="i", headers={"mine": 1})
    return seen


def hooked(app, name="t", **options):
    heard = []

    class Base(Task):
        def before_start(self, task_id, args, kwargs):
            heard.append(["before_start", task_id, list(args), kwargs])

        def on_success(self, retval, task_id, args, kwargs):
            heard.append(["on_success", retval, task_id, list(args), kwargs])

        def on_failure(self, exc, task_id, args, kwargs, einfo):
            heard.append(
                [
                    "on_failure",
                    repr(exc),
                    task_id,
                    list(args),
                    kwargs,
                    type(einfo).__name__,
                    repr(einfo.exception),
                ]
            )

        def on_retry(self, exc, task_id, args, kwargs, einfo):
            heard.append(["on_retry", repr(exc), task_id, list(args), kwargs, type(einfo).__name__])

        def after_return(self, status, retval, task_id, args, kwargs, einfo):
            heard.append(["after_return", status, repr(retval), task_id, list(args), kwargs, einfo])

    @app.task(name=name, base=Base, bind=True, max_retries=1, **options)
    def work(self, how):
        heard.append(["run", how])
        if how == "retry":
            raise self.retry(exc=KeyError("again"), countdown=0)
        if how != "good":
            raise {
                "fail": KeyError("x"),
                "ignore": Ignore("why"),
                "reject": Reject("why"),
                "requeue": Reject("why", requeue=True),
            }[how]
        return 42

    return work, heard


@question
def hooks_and_signals():
    found = {}
    work, heard = hooked(new_app())

    def tell(name):
        def receiver(sender=None, signal=None, **kw):
            told = {
                k: (
                    repr(v)
                    if isinstance(v, BaseException)
                    else type(v).__name__
                    if k in {"einfo", "traceback", "task", "request"}
                    else v
                )
                for k, v in kw.items()
            }
            heard.append([name, getattr(sender, "name", sender), told])

        return receiver

    names = (
        "task_prerun",
        "task_postrun",
        "task_success",
        "task_failure",
        "task_retry",
        "task_internal_error",
    )
    receivers = {name: tell(name) for name in names}
    for name, receiver in receivers.items():
        getattr(signals, name).connect(receiver)
    try:
        for how in ("good", "fail", "retry", "ignore", "reject", "requeue"):
            result = work.apply((how,), task_id="i")
            found[how] = [list(heard), result.state, repr(result.result)]
            heard.clear()
    finally:
        for name, receiver in receivers.items():
            getattr(signals, name).disconnect(receiver)
    return found


@question
def an_error_in_before_start_is_a_failure():
    class Base(Task):
        def before_start(self, *args):
            raise ValueError("too early")

    return outcome(new_app().task(name="t", base=Base)(one).apply())


@question
def callbacks_and_errbacks():
    app, heard = new_app(task_always_eager=True), []

    @app.task(name="good")
    def good():
        return 42

    @app.task(name="bad")
    def bad():
        raise KeyError("x")

    @app.task(name="note")
    def note(*args):
        heard.append(["note", [getattr(arg, "id", None) or repr(arg) for arg in args][:2], len(args)])

    @app.task(name="old")
    def old(task_id):
        heard.append(["old", task_id])

    @app.task(name="new")
    def new(request, exc, traceback):
        heard.append(["new", request.id, repr(exc), type(traceback).__name__])

    @app.task(name="bound", bind=True)
    def bound(self, task_id):
        heard.append(["bound", task_id])

    good.apply(link=[note.s(), note.s(1), note.si(7)], task_id="g")
    good.apply(link=note.s(), task_id="g")
    for errback in (old.s(), new.s(), bound.s(), note.si(8)):
        bad.apply(link_error=errback, task_id="b")
    bad.apply(link_error=[old.s(), new.s(), bound.s(), note.si(8)], task_id="b")
    return heard[:8], sorted(heard[8:])


@question
def inside_an_eager_task():
    app = new_app(task_always_eager=True)

    @app.task(name="inner")
    def inner(x):
        return x

    @app.task(name="outer")
    def outer(how):
        result = inner.delay(3)
        if how == "allowed":
            with allow_join_result():
                return result.get()
        if how == "argument":
            return result.get(disable_sync_subtasks=False)
        return result.get()

    return {
        how: error(lambda how=how: outer.delay(how).get()) for how in ("plain", "allowed", "argument")
    }, outer.apply(("plain",)).get()


@question
def arguments_go_through_the_serializer():
    app = new_app(task_always_eager=True)

    @app.task(name="t")
    def kind(*args, **kwargs):
        return repr(args), repr(kwargs)

    return (
        kind.delay((1, 2), {"a": (3,)}, k={1: 2}).get(),
        error(kind.delay, object()),
        kind.apply_async(((1, 2),), serializer="pickle").get(),
    )


@question
def eager_workflows():
    app = new_app(task_always_eager=True)

    @app.task(name="add")
    def add(x, y):
        return x + y

    @app.task(name="total")
    def total(numbers):
        return sum(numbers)

    return [
        chain(add.s(1, 2), add.s(3)).delay().get(),
        (add.s(1, 2) | add.s(3)).apply().get(),
        group(add.s(1, 1), add.s(2, 2)).delay().get(),
        (group(add.s(1, 1), add.s(2, 2)) | total.s()).delay().get(),
    ]


@question
def replace():
    app = new_app()

    @app.task(name="add")
    def add(x, y):
        return x + y

    @app.task(name="becomes", bind=True)
    def becomes(self, x):
        raise self.replace(add.s(x, 1))

    eager = new_app(task_always_eager=True)

    @eager.task(name="becomes2", bind=True)
    def becomes2(self, x):
        return self.replace(eager.signature("add", (x, 1)))

    @eager.task(name="add")
    def add2(x, y):
        return x + y

    return error(lambda: becomes.apply((1,)).get()), error(lambda: becomes2.delay(1).get())


@question
def stored_where_the_settings_say_so():
    app = new_app(task_store_eager_result=True, task_always_eager=True)

    @app.task(name="t")
    def add(x, y):
        return x + y

    @app.task(name="u")
    def fail():
        raise KeyError("x")

    add.apply_async((1, 2), task_id="eager-stored")
    fail.apply_async(task_id="eager-failed")
    add.apply_async((1, 2), task_id="eager-ignored", ignore_result=True)
    results = [app.AsyncResult(one) for one in ("eager-stored", "eager-failed", "eager-ignored")]
    return [(result.state, repr(result.result)) for result in results]


@question
def eager_results_by_hand():
    good = EagerResult("i", 42, "SUCCESS")
    bad = EagerResult("i", KeyError("x"), "FAILURE", traceback="tb", name="n")
    good.revoke()
    singleton = EagerResult(None, None, "REVOKED")
    return [
        good.state,
        error_text(bad.get),
        bad.traceback,
        bad.name,
        bad.forget(),
        singleton.id,
        singleton.state,
        EagerResult("i", 1, "SUCCESS").get(timeout=1, propagate=False, disable_sync_subtasks=False),
    ]


@question
def a_task_that_is_a_retry_signal_itself():
    @new_app().task(name="t")
    def raises():
        raise Retry("by hand", exc=KeyError("x"), when=3)

    result = raises.apply()
    return result.state, repr(result.result)


@question
def trail():
    app = new_app(task_always_eager=True)

    @app.task(name="inner")
    def inner():
        return 1

    @app.task(name="outer", bind=True)
    def outer(self):
        inner.delay()
        inner.apply_async(add_to_parent=False)
        return [type(child).__name__ for child in self.request.children]

    @app.task(name="no trail", bind=True, trail=False)
    def quiet(self):
        inner.delay()
        return len(self.request.children)

    return outer.apply().get(), quiet.apply().get()
