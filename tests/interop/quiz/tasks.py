"""Tasks: their attributes and defaults, signatures, what is not sent."""

import datetime
import pickle

from celery import Task
from celery.app.task import Context, extract_exec_options
from quiz.asking import error, error_text, new_app, one, one_of, question

ATTRIBUTES = (
    *("typing", "max_retries", "default_retry_delay", "rate_limit", "ignore_result", "trail", "send_events"),
    *("store_errors_even_if_ignored", "store_eager_result", "serializer", "time_limit", "soft_time_limit"),
    *("track_started", "acks_late", "acks_on_failure_or_timeout", "reject_on_worker_lost", "priority"),
    *("expires", "throws", "resultrepr_maxsize", "abstract"),
)


@question
def attributes_of_the_class():
    return {name: getattr(Task, name, None) for name in ATTRIBUTES}


@question
def attributes_of_a_bound_task():
    app = new_app()
    app.finalize()
    task = app.task(name="t")(one)
    return {name: getattr(task, name, "missing") for name in ATTRIBUTES if name != "abstract"}


@question
def attributes_from_the_settings():
    app = new_app(
        task_serializer="yaml",
        task_default_rate_limit="3/s",
        task_default_priority=4,
        task_track_started=True,
        task_acks_late=True,
        task_acks_on_failure_or_timeout=False,
        task_reject_on_worker_lost=True,
        task_ignore_result=True,
        task_store_eager_result=True,
        task_store_errors_even_if_ignored=True,
    )
    app.finalize()
    task, own = (
        app.task(name="t")(one),
        app.task(name="u", serializer="json", priority=0, acks_late=False)(one),
    )
    return (
        {name: getattr(task, name) for name in ATTRIBUTES if name != "abstract"},
        [own.serializer, own.priority, own.acks_late],
    )


@question
def what_binding_takes_from_the_settings():
    ours = {"acks_on_failure", "acks_on_timeout", "dead_letter", "lock_seconds"}
    return sorted(list(pair) for pair in Task.from_config if pair[0] not in ours)


@question
def publish_options_of_a_task():
    task = new_app().task(name="t", queue="q", priority=3, expires=5, time_limit=7, delivery_mode=1)(one)
    return {k: v for k, v in extract_exec_options(task).items() if v is not None and k != "serializer"}


@question
def a_task_can_be_pickled():
    app = new_app()
    task = app.tasks["celery.chain"]
    return pickle.loads(pickle.dumps(task)).name


@question
def signatures_of_a_task():
    app = new_app()

    @app.task(name="t")
    def add(x, y):
        return x + y

    return [
        dict(add.s(1, y=2)),
        dict(add.si(1)),
        dict(add.signature((1,), {"y": 2}, countdown=3)),
        dict(add.subtask((1,))),
        repr(add.s(1, 2)),
        add.s(1)(2),
        add.starmap([(1, 2), (3, 4)]).apply().get(),
        app.tasks["t"].map([1]).task,
    ]


@question
def arguments_are_checked_when_it_is_sent():
    app = new_app()

    @app.task(name="t")
    def add(x, y, *, z=1):
        return x + y

    @app.task(name="u", bind=True)
    def me(self, x):
        return x

    @app.task(name="v", typing=False)
    def loose(x):
        return x

    @app.task(name="w")
    def many(*args, **kwargs):
        return args

    return {
        "missing": error_text(add.delay, 1),
        "both missing": error_text(add.delay),
        "too many": error_text(add.delay, 1, 2, 3),
        "unknown": error_text(add.delay, 1, 2, a=1),
        "twice": error_text(add.delay, 1, x=1),
        "bound": error_text(me.delay),
        "bound too many": error_text(me.delay, 1, 2),
        "loose": error(lambda: loose.apply_async((1, 2), task_id="i").id),
        "many": error(lambda: many.apply_async((1, 2), {"a": 1}, task_id="i").id),
        "apply": error_text(lambda: add.apply((1,)).get()),
        "called": error_text(add, 1),
    }


@question
def limits_are_checked_when_it_is_sent():
    app = new_app()
    task = app.task(name="t")(one)
    return (
        error(lambda: task.apply_async(time_limit=2, soft_time_limit=1, task_id="i").id),
        error(lambda: task.apply_async(soft_time_limit=1, task_id="i").id),
    )


@question
def what_cannot_be_sent():
    app = new_app()
    task = app.task(name="t")(one_of)
    return {
        "object": error(task.delay, object()),
        "set": error_text(task.delay, {1}),
        "str args": error(task.apply_async, "abc"),
        "kwargs list": error(task.apply_async, (1,), [1]),
    }


@question
def a_broker_that_is_away():
    app = new_app(broker="redis://127.0.0.1:1/0", backend="disabled", broker_connection_timeout=0.2)
    task = app.task(name="t")(one)
    return error(task.apply_async, retry=False)


@question
def outside_of_a_task_the_request_is_empty():
    task = new_app().task(name="t")(one)
    request = task.request
    ours = {"attempt"}
    names = sorted(
        name
        for name in dir(Context)
        if not name.startswith("_") and name not in ours and not callable(getattr(Context, name))
    )
    return {name: getattr(request, name) for name in names}, request.get("nope", 3), request.called_directly


@question
def a_request_of_ones_own():
    context = Context({"a": 1}, id="i", retries=2, timelimit=[5, 3], callbacks=["c"], headers={"x": 1})
    context.update(b=2)
    options = context.as_execution_options()
    return context.a, context.b, context.get("id"), options


@question
def requests_can_be_pushed_for_tests():
    @new_app().task(name="t", bind=True)
    def me(self):
        return self.request.id, self.request.called_directly

    me.push_request(id="pushed", args=(1,))
    found = me.request.id, me.request.args
    me.pop_request()
    return found, me.request.id, me()


@question
def request_stack():
    task = new_app().task(name="t")(one)
    task.request_stack.push(Context(id="i"))
    found = task.request_stack.top.id, task.request.id
    task.request_stack.pop()
    return found, task.request_stack.top


@question
def called_as_a_function():
    @new_app().task(name="t", bind=True)
    def me(self, *args, **kwargs):
        request = self.request
        return [request.called_directly, request.id, list(request.args), request.kwargs, request.is_eager]

    return me(1, a=2)


@question
def retry_outside_of_a_worker():
    @new_app().task(name="t", bind=True)
    def again(self, how):
        if how == "exc":
            raise self.retry(exc=KeyError("mine"))
        try:
            raise ValueError("handled")
        except ValueError:
            raise self.retry()

    @new_app().task(name="u", bind=True)
    def plain(self):
        raise self.retry()

    return error_text(again, "exc"), error_text(again, "handled"), error(plain)


@question
def attributes_can_be_overridden_by_a_class():
    class Base(Task):
        autoretry_for = (KeyError,)
        max_retries = 2
        queue = "q"
        shadow_name = staticmethod(lambda args, kwargs, options: "shade")

    task = new_app().task(name="t", base=Base)(one)
    return (
        task.max_retries,
        task.queue,
        [cls.__name__ for cls in task.autoretry_for],
        hasattr(task, "_orig_run"),
    )


@question
def update_state_of_any_task():
    app = new_app(backend="cache+memory://")
    task = app.task(name="t")(one)
    task.update_state(task_id="update-state", state="PROGRESS", meta={"n": 1})
    found = app.AsyncResult("update-state")
    return found.state, found.info, found.ready(), found.children


@question
def results_of_a_task():
    task = new_app().task(name="t")(one)
    result = task.AsyncResult("i")
    return result.id, type(result).__name__, result.app is task.app


@question
def etas_of_every_kind():
    from celery.signals import before_task_publish

    heard = []

    def hear(headers, properties, **kw):
        eta = headers["eta"]
        heard.append(
            [
                eta if eta and eta.startswith("2030") else bool(eta),
                headers["expires"] is not None,
                "expiration" in properties and properties["expiration"] is not None,
            ]
        )

    before_task_publish.connect(hear)
    try:
        task = new_app().task(name="t")(one)
        utc = datetime.UTC
        task.apply_async(eta=datetime.datetime(2030, 1, 2, 3, 4, 5))
        task.apply_async(eta=datetime.datetime(2030, 1, 2, 3, 4, 5, tzinfo=utc))
        task.apply_async(
            eta=datetime.datetime(2030, 1, 2, tzinfo=datetime.timezone(datetime.timedelta(hours=2)))
        )
        task.apply_async(eta="2030-01-02T03:04:05")
        task.apply_async(countdown=3)
        task.apply_async(countdown=0)
        task.apply_async(expires=5)
        task.apply_async(expires=datetime.datetime(2030, 1, 1, tzinfo=utc))
        task.apply_async(expires="2030-01-02T03:04:05+00:00")
        task.apply_async(expires=-5)
    finally:
        before_task_publish.disconnect(hear)
    return heard
