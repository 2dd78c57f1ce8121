"""Sending: what a call becomes, as the receivers of before_task_publish see it."""

from kombu import Exchange, Queue

from celery.signals import after_task_publish, before_task_publish
from quiz.asking import error, new_app, question

# What kombu adds after the receivers were told, and ours before; the address of replies, which ours has for rpc;
# when a message was sent, which only ours says (decision 142).
LATER = {"timestamp", "delivery_mode", "compression", "reply_to", "argsrepr", "kwargsrepr", "origin"}


HEARD = []


@before_task_publish.connect(weak=False)
def before(
    sender=None,
    body=None,
    exchange=None,
    routing_key=None,
    headers=None,
    properties=None,
    declare=None,
    retry_policy=None,
    **kw,
):
    HEARD.append(
        {
            "sender": sender,
            "body": body,
            "exchange": exchange if isinstance(exchange, str) else getattr(exchange, "name", exchange),
            "routing_key": routing_key,
            "headers": dict(headers),
            "properties": {k: v for k, v in properties.items() if k not in LATER and v},
            "declare": [item.name for item in declare],
            "retry_policy": retry_policy,
            "more": sorted(set(kw) - {"signal"}),
        }
    )


@after_task_publish.connect(weak=False)
def after(sender=None, body=None, exchange=None, routing_key=None, headers=None, **kw):
    HEARD.append(["after", sender, exchange, routing_key, headers.get("id"), sorted(set(kw) - {"signal"})])


def sent(call):
    """Return the message that a call sends."""
    HEARD.clear()
    call()
    return HEARD.copy()


def declared(app, **options):
    @app.task(name="t", **options)
    def add(*args, **kwargs):
        return args

    return add


@question
def a_plain_call():
    add = declared(new_app())
    return sent(lambda: add.apply_async((1, 2), {"a": "b"}, task_id="i"))


@question
def options_of_every_kind():
    app = new_app()
    add = declared(app)
    options = {
        "headers": {"headers": {"mine": 1}},
        "priority": {"priority": 3},
        "shadow": {"shadow": "shade"},
        "limits": {"time_limit": 5, "soft_time_limit": 3},
        "ignored": {"ignore_result": True},
        "ids": {"root_id": "r", "parent_id": "p", "group_id": "g", "group_index": 2},
        "retries": {"retries": 2},
        "links": {"link": add.s(1), "link_error": [add.s(2)]},
        "chain and chord": {"chain": [add.s(1)], "chord": add.s(2)},
        "reprs": {"argsrepr": "(secret)", "kwargsrepr": "{secret}"},
        "origin": {"origin": "me"},
        "stamps": {"stamped_headers": ["one"], "one": 1},
        "nesting": {"replaced_task_nesting": 3},
        "compression": {"compression": "zlib"},
        "serializer": {"serializer": "pickle"},
        "transient": {"delivery_mode": 1},
        "retry policy": {"retry_policy": {"max_retries": 9}},
        "no retry": {"retry": False},
        "unknown": {"once": {"a": 1}},
    }
    return {
        name: sent(lambda given=given: add.apply_async((1,), task_id="i", **given))[0]
        for name, given in options.items()
    }


@question
def options_of_the_task():
    app = new_app()
    add = declared(app, priority=4, ignore_result=True, time_limit=9, serializer="pickle", compression="zlib")
    return sent(lambda: add.apply_async((1,), task_id="i"))[0], sent(
        lambda: add.apply_async((1,), task_id="i", priority=1)
    )[0]


@question
def shadow_names_are_computed():
    add = declared(new_app(), shadow_name=lambda task, args, kwargs, options: f"{task.name}-{args[0]}")
    return sent(lambda: add.apply_async((7,), task_id="i"))[0]["headers"]["shadow"]


@question
def protocol_1():
    add = declared(new_app(task_protocol=1))
    return sent(lambda: add.apply_async((1,), {"a": 1}, task_id="i", headers={"mine": 1}))


@question
def by_name():
    app = new_app()
    return sent(lambda: app.send_task("some.task", [1], {"a": 1}, task_id="i", ignore_result=True, mine=3))


@question
def reprs_are_cut():
    add = declared(new_app())
    headers = sent(lambda: add.apply_async(("x" * 5000, [1] * 3), {"k": {"n": None}}, task_id="i"))[0][
        "headers"
    ]
    return len(headers["argsrepr"]) < 1100, "..." in headers["argsrepr"], headers["kwargsrepr"]


@question
def inside_of_a_task():
    app = new_app(task_inherit_parent_priority=True)
    add = declared(app)
    heard = []

    @app.task(name="outer", bind=True)
    def outer(self):
        heard.extend(sent(lambda: add.apply_async((1,), task_id="i")))
        return [child.id for child in self.request.children]

    children = outer.apply(task_id="outer-id", priority=5, headers={"a": 1}).get()
    headers = heard[0]["headers"]
    return children, headers["root_id"], headers["parent_id"], heard[0]["properties"]


@question
def receivers_may_edit():
    add = declared(new_app())
    seen = []

    def edit(headers, properties, body, **kw):
        headers["mine"] = 1
        properties["priority"] = 7

    def look(headers, **kw):
        seen.append([headers.get("mine")])

    before_task_publish.connect(edit)
    after_task_publish.connect(look)
    try:
        add.delay()
    finally:
        before_task_publish.disconnect(edit)
        after_task_publish.disconnect(look)
    return seen


@question
def senders_are_told_apart_by_name():
    add, heard = declared(new_app()), []

    def hear(sender, **kw):
        heard.append(sender)

    before_task_publish.connect(hear, sender="other")
    add.delay()
    before_task_publish.disconnect(hear, sender="other")
    before_task_publish.connect(hear, sender="t")
    add.delay()
    before_task_publish.disconnect(hear, sender="t")
    return heard


def address(app, name="t", **options):
    message = sent(lambda: app.send_task(name, task_id="i", **options))[0]
    return (
        message["exchange"],
        message["routing_key"],
        message["declare"],
        message["properties"].get("priority"),
    )


@question
def addresses():
    app = new_app(
        task_queues=[
            Queue("celery"),
            Queue("media", Exchange("media", "topic"), routing_key="media.#"),
            Queue("direct", Exchange("direct"), routing_key="d"),
            Queue("fan", Exchange("fan", "fanout")),
        ]
    )
    return {
        "default": address(app),
        "queue": address(app, queue="direct"),
        "missing": address(app, queue="new"),
        "topic": address(app, queue="media"),
        "topic with key": address(app, queue="media", routing_key="media.video"),
        "fanout": address(app, queue="fan"),
        "exchange": address(app, exchange="direct", routing_key="d")[:2],
        "key": address(app, routing_key="d"),
        "queue object": address(app, queue=Queue("mine", Exchange("mine"), routing_key="m")),
        "exchange object": address(app, exchange=Exchange("direct"), routing_key="d")[:2],
    }


@question
def routes_of_every_kind():
    import re

    class Router:
        def route_for_task(self, name, *args, **kwargs):
            return {"queue": "by-object"} if name == "object" else None

    def route(name, args, kwargs, options, task=None, **kw):
        return {"queue": "by-function", "priority": 2} if name == "function" else None

    app = new_app(
        task_routes=(
            route,
            Router(),
            [("pair", {"queue": "by-pair"})],
            {"name": "by-name", "glob.*": {"queue": "by-glob"}, re.compile(r"re\d"): {"queue": "by-re"}},
        )
    )
    names = ["function", "object", "pair", "name", "glob.x", "re1", "other"]
    return (
        {name: address(app, name) for name in names},
        address(app, "name", queue="explicit"),
        address(app, "function", priority=9),
    )


@question
def routing_settings():
    app = new_app(
        task_default_queue="dq",
        task_default_exchange="de",
        task_default_exchange_type="topic",
        task_default_routing_key="dk",
    )
    return address(app), address(app, queue="new"), address(new_app(task_default_queue="only"))


@question
def queues_that_may_not_be_made():
    app = new_app(task_create_missing_queues=False, task_queues=[Queue("celery")])
    return error(app.send_task, "t", queue="nope"), address(app)


@question
def queues_as_a_dict():
    app = new_app(
        task_queues={
            "celery": {"exchange": "celery"},
            "two": {"exchange": "e", "exchange_type": "topic", "routing_key": "k.#"},
        }
    )
    return address(app, queue="two"), address(app, queue="two", routing_key="k.1")
