"""Routing: where a message goes, as real Celery was seen to send it, and what a worker consumes from."""

from __future__ import annotations

import re
import types
from typing import Any

import kombu
import kombu.common
import pytest

from celeriac.errors import ConfigError, QueueNotFound
from celeriac.queues import Binding, Exchange, Queue, direct_queue
from celeriac.routing import Router, broadcast_queue, queue_from
from celeriac.settings import Settings

NAME = "proj.tasks.add"


def router(**conf: Any) -> Router:
    return Router(Settings(conf, environ={}))


def address(given: Router, name: str = NAME, **options: Any) -> tuple[str, str]:
    """Return exchange and routing key of a task."""
    route = given.route(name, (1,), {}, options)
    return route.exchange, route.routing_key


def asked_for_queue(name: str, args: Any, kwargs: Any, options: Any, task: Any = None, **_: Any) -> Any:
    """Route by a function: the dotted name of this one is used below."""
    return {"queue": f"{name}-{args[0]}-{options.get('priority')}", "priority": 3}


class ByMethod:
    """Route by an object."""

    def route_for_task(self, task: str, args: Any = None, kwargs: Any = None) -> str:
        return f"method-{task}-{args}"


CONFIGURED = [
    kombu.Queue("default", kombu.Exchange("default"), routing_key="default"),
    kombu.Queue("feeds", kombu.Exchange("media", type="topic"), routing_key="feed.#"),
    kombu.Queue("bare"),
]


# --- addresses (each one observed with Celery 5.7) -----------------------------------------


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ("", "celery")),
        ({"queue": "q1"}, ("", "q1")),
        ({"queue": ""}, ("", "celery")),
        ({"routing_key": "rk"}, ("", "celery")),
        ({"exchange": "ex"}, ("", "celery")),
        ({"exchange": "ex", "routing_key": "rk"}, ("ex", "rk")),
        ({"queue": "q1", "routing_key": "rk"}, ("", "q1")),
        ({"queue": "q1", "exchange": "ex"}, ("", "q1")),
        ({"queue": "q1", "exchange": "ex", "routing_key": "rk"}, ("ex", "rk")),
        ({"exchange": "ex", "exchange_type": "fanout"}, ("ex", "")),
        ({"queue": kombu.Queue("a", kombu.Exchange("ae", type="topic"), routing_key="ark")}, ("ae", "ark")),
        ({"queue": direct_queue("ours")}, ("", "ours")),
        ({"exchange": kombu.Exchange("eo", type="topic"), "routing_key": "k"}, ("eo", "k")),
    ],
)
def test_direct_exchanges_are_bypassed_unless_exchange_and_key_are_given(
    options: dict[str, Any], expected: tuple[str, str]
) -> None:
    assert address(router(), **options) == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ("", "default")),
        ({"queue": "feeds"}, ("media", "feed.#")),
        ({"queue": "feeds", "routing_key": "feed.import"}, ("media", "feed.import")),
        ({"exchange": "media", "routing_key": "feed.x"}, ("media", "feed.x")),
        ({"queue": "bare"}, ("", "bare")),
        ({"queue": "made"}, ("", "made")),
    ],
)
def test_declared_queues_are_reached_through_their_exchange(
    options: dict[str, Any], expected: tuple[str, str]
) -> None:
    assert address(router(task_queues=CONFIGURED, task_default_queue="default"), **options) == expected


@pytest.mark.parametrize(
    ("conf", "options", "expected"),
    [
        ({}, {}, ("celery", "celery")),
        ({}, {"routing_key": "a.b"}, ("celery", "a.b")),
        ({}, {"exchange": "e1"}, ("e1", "")),
        ({}, {"queue": "zz"}, ("", "zz")),
        ({"task_create_missing_queue_exchange_type": "topic"}, {"queue": "zz"}, ("zz", "zz")),
    ],
)
def test_a_topic_exchange_is_used(
    conf: dict[str, Any], options: dict[str, Any], expected: tuple[str, str]
) -> None:
    assert address(router(task_default_exchange_type="topic", **conf), **options) == expected


def test_the_queue_to_declare_comes_with_the_route() -> None:
    given = router(task_queues=CONFIGURED)

    assert given.route(NAME).queue == direct_queue("celery")
    assert given.route(NAME, options={"queue": "q1"}).queue == direct_queue("q1")
    feeds = given.route(NAME, options={"exchange": "media", "routing_key": "feed.x"}).queue
    assert feeds is not None
    assert feeds.name == "feeds"
    assert given.route(NAME, options={"exchange": "unknown", "routing_key": "rk"}).queue is None


def test_a_broadcast_goes_to_its_fanout_exchange_and_declares_nothing() -> None:
    for queue in (kombu.common.Broadcast("bc"), broadcast_queue("bc")):
        for route in ({"queue": "bc"}, {"queue": "bc", "exchange": "bc"}, {"exchange": "bc"}):
            given = router(task_queues=[queue], task_routes={"proj.*": route})

            found = given.route(NAME)

            assert (found.exchange, found.routing_key, found.queue) == ("bc", "celery", None)
            assert [one.exchange for one in given.consume_from()] == [Exchange(name="bc", type="fanout")]


@pytest.mark.parametrize(
    ("conf", "options", "mode"),
    [
        ({}, {}, 2),
        ({"task_default_delivery_mode": "transient"}, {}, 1),
        ({"task_default_delivery_mode": "transient"}, {"delivery_mode": "persistent"}, 2),
        ({"task_routes": {"proj.*": {"delivery_mode": 1}}}, {}, 1),
        ({"task_queues": [kombu.Queue("celery", kombu.Exchange("c", delivery_mode=1))]}, {}, 1),
    ],
)
def test_the_delivery_mode_is_that_of_the_call_the_route_the_queue_or_the_default(
    conf: dict[str, Any], options: dict[str, Any], mode: int
) -> None:
    assert router(**conf).route(NAME, options=options).delivery_mode == mode


def test_an_unknown_delivery_mode_is_refused() -> None:
    with pytest.raises(ConfigError, match="3 is no delivery mode"):
        router().route(NAME, options={"delivery_mode": 3})


# --- routes ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "hit"),
    [
        ("proj.*", True),
        ("*.add", True),
        ("*", True),
        ("pr*d", True),
        ("proj.*.ad", True),  # the end is not anchored
        ("proj.tasks.add*", False),  # a star stands for one character at least
        ("roj.*", False),
        ("proj.tasks.a?d*", False),
        ("proj.tasks.[ab]dd*", False),
        (re.compile(r"(proj|x)\.tasks"), True),
        (re.compile(r"tasks"), False),
    ],
)
def test_patterns_match_from_the_beginning_of_the_name(pattern: Any, hit: bool) -> None:
    assert address(router(task_routes={pattern: "hit"})) == ("", "hit" if hit else "celery")


@pytest.mark.parametrize(
    "routes",
    [
        {"proj.*": "other", NAME: "wanted"},
        {"proj.tasks.*": "wanted", "proj.*": "other"},
        {NAME: {"queue": "wanted"}},
        [("proj.*", "wanted"), ("*", "other")],
        ([("proj.*", "wanted"), ("*", "other")],),
        [{"nope": "x"}, {"proj.*": {"queue": "wanted"}}],
        [lambda *a, **k: None, lambda *a, **k: "wanted"],
        (lambda *a, **k: {"queue": "wanted"}, {"*": "other"}),
    ],
)
def test_the_first_route_that_fits_is_taken(routes: Any) -> None:
    assert address(router(task_routes=routes)) == ("", "wanted")


@pytest.mark.parametrize("form", ["object", "class", "dotted", "dotted in a list"])
def test_routers_are_objects_classes_and_dotted_names(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("routers_of_a_test")
    module.ByMethod = ByMethod  # type: ignore[attr-defined]
    monkeypatch.setitem(__import__("sys").modules, "routers_of_a_test", module)
    routes = {
        "object": ByMethod(),
        "class": ByMethod,
        "dotted": "routers_of_a_test.ByMethod",
        "dotted in a list": ("routers_of_a_test:ByMethod",),
    }[form]

    assert address(router(task_routes=routes)) == ("", f"method-{NAME}-(1,)")


def test_a_function_sees_the_call_and_is_asked_every_time() -> None:
    given = router(task_routes=asked_for_queue)

    assert given.route(NAME, (1,), {}, {"priority": 9}).routing_key == f"{NAME}-1-9"
    assert given.route(NAME, (2,), {}, {}).routing_key == f"{NAME}-2-None"
    assert given.route(NAME, (2,), {}, {}).options == {"priority": 3}


def test_options_of_the_call_are_stronger_than_those_of_the_route() -> None:
    given = router(
        task_routes={NAME: {"queue": "r1", "exchange": "e", "routing_key": "rk", "priority": 5}},
    )

    mine = given.route(NAME, options={"queue": "mine", "priority": None})
    direct = given.route(NAME, options={"exchange": "mine", "routing_key": "key"})

    assert (mine.exchange, mine.routing_key, mine.queue) == ("e", "rk", direct_queue("mine"))
    assert (direct.exchange, direct.routing_key, direct.queue) == ("mine", "key", direct_queue("r1"))
    assert mine.options == {"priority": 5}


def test_a_route_may_only_add_options() -> None:
    route = router(task_routes={"proj.*": {"priority": 1, "serializer": "yaml"}}).route(NAME)

    assert (route.routing_key, route.options) == ("celery", {"priority": 1, "serializer": "yaml"})


@pytest.mark.parametrize("routes", [5, [5], {"a": 5}, {5: "a"}, lambda *a, **k: 5])
def test_what_is_no_route_is_refused(routes: Any) -> None:
    with pytest.raises(ConfigError, match=r"task_routes|route of"):
        router(task_routes=routes).route(NAME)


def test_static_routes_are_found_once() -> None:
    given = router(task_routes={"proj.*": "hit"})

    assert given.route(NAME) is given.route(NAME, (5,), {}, {"priority": 3})
    assert given.route(NAME, options={"queue": "q"}) is given.route(NAME, options={"queue": "q"})
    assert given.route(NAME) is not given.route(NAME, options={"queue": "q"})


def test_a_change_of_the_settings_changes_the_routes() -> None:
    conf = Settings({}, environ={})
    given = Router(conf)
    before = address(given)

    conf.task_routes = {"proj.*": "hit"}

    assert (before, address(given)) == (("", "celery"), ("", "hit"))


# --- queues ------------------------------------------------------------------------------


def test_without_task_queues_there_is_the_default_queue() -> None:
    assert router().consume_from() == (direct_queue("celery"),)
    assert router(task_default_queue="jobs").consume_from() == (direct_queue("jobs"),)
    assert router(
        task_default_exchange="DX", task_default_exchange_type="topic", task_default_routing_key="drk"
    ).consume_from() == (Queue(name="celery", exchange=Exchange(name="DX", type="topic"), routing_key="drk"),)
    assert router(task_default_queue_type="quorum").default_queue.arguments == {"x-queue-type": "quorum"}


def test_queues_without_exchange_or_key_get_the_default_ones() -> None:
    given = router(
        task_queues=[
            kombu.Queue("bare"),
            kombu.Queue("rk", routing_key="RK"),
            kombu.Queue("ex", kombu.Exchange("EE")),
            kombu.Queue(
                "bound",
                [kombu.binding(kombu.Exchange("E2"), "k2"), kombu.binding(kombu.Exchange("E1"), "k1")],
            ),
        ]
    )

    assert {name: (queue.exchange.name, queue.routing_key) for name, queue in given.queues.items()} == {
        "bare": ("celery", "celery"),
        "rk": ("celery", "RK"),
        "ex": ("EE", "celery"),
        "bound": ("celery", "celery"),
    }
    assert given.queues["bound"].bindings == (
        Binding(exchange=Exchange(name="E1"), routing_key="k1"),
        Binding(exchange=Exchange(name="E2"), routing_key="k2"),
    )


def test_queues_may_be_given_as_a_dict() -> None:
    given = router(
        task_queues={
            "full": {
                "exchange": "dex",
                "exchange_type": "topic",
                "binding_key": "bk",
                "queue_arguments": {"x-a": 1},
                "message_ttl": 5,
                "durable": False,
                "auto_delete": True,
                "delivery_mode": "transient",
                "binding_arguments": {"x": 1},
            },
            "empty": {},
            "none": None,
            "keyed": {"routing_key": "RR", "exchange": kombu.Exchange("ke", type="fanout")},
            "object": kombu.Queue("object"),
        }
    )

    full = Exchange(name="dex", type="topic", delivery_mode=1)
    assert given.queues == {
        "full": Queue(
            name="full",
            exchange=full,
            routing_key="bk",
            durable=False,
            auto_delete=True,
            arguments={"x-a": 1, "x-message-ttl": 5000},
            bindings=(Binding(exchange=full, routing_key="bk", arguments={"x": 1}),),
        ),
        "empty": direct_queue("empty", exchange="celery"),
        "none": direct_queue("none", exchange="celery"),
        "keyed": Queue(name="keyed", exchange=Exchange(name="ke", type="fanout"), routing_key="RR"),
        "object": direct_queue("object", exchange="celery", routing_key="celery"),
    }


def test_names_alone_are_queues_too() -> None:
    assert router(task_queues=["a", "b"]).consume_from() == (direct_queue("a"), direct_queue("b"))


def test_durations_and_limits_of_kombus_queues_become_arguments() -> None:
    queue = queue_from(
        kombu.Queue("t", message_ttl=5, expires=10, max_length=3, max_length_bytes=9, max_priority=2)
    )

    assert queue.arguments == {
        "x-message-ttl": 5000,
        "x-expires": 10000,
        "x-max-length": 3,
        "x-max-length-bytes": 9,
        "x-max-priority": 2,
    }


def test_the_highest_priority_is_set_where_a_queue_has_none() -> None:
    given = router(
        task_queue_max_priority=10, task_queues=[kombu.Queue("a", max_priority=5), kombu.Queue("b")]
    )

    priorities = {name: given.find(name).arguments["x-max-priority"] for name in ("a", "b", "made")}

    assert priorities == {"a": 5, "b": 10, "made": 10}


def test_missing_queues_are_made_as_the_settings_say() -> None:
    given = router(task_create_missing_queue_type="quorum", task_create_missing_queue_exchange_type="topic")

    assert given.find("m") == Queue(
        name="m",
        exchange=Exchange(name="m", type="topic"),
        routing_key="m",
        arguments={"x-queue-type": "quorum"},
    )


def test_missing_queues_are_refused_where_they_may_not_be_made() -> None:
    given = router(task_create_missing_queues=False, task_routes={"proj.*": "zz"})

    with pytest.raises(QueueNotFound, match="Queue 'zz' missing from task_queues"):
        given.route(NAME)
    with pytest.raises(QueueNotFound, match="Queue 'zz' missing from task_queues"):
        given.select("zz")


@pytest.mark.parametrize("queues", [5, "celery", [5], {"a": {"exchnge": "x"}}, {"a": {"colour": "red"}}])
def test_what_is_no_queue_is_refused(queues: Any) -> None:
    with pytest.raises(ConfigError, match=r"task_queues|no queue"):
        router(task_queues=queues).consume_from()


def test_a_worker_may_consume_from_some_queues_only() -> None:
    given = router(task_queues=[kombu.Queue("a"), kombu.Queue("b"), kombu.common.Broadcast("bc")])
    everything = [queue.name.split(".")[0] for queue in given.consume_from()]

    given.select("bc, b ,new,b")
    selected = [queue.alias or queue.name for queue in given.consume_from()]
    unknown = given.deselect("bc,never")

    assert everything == ["a", "b", "bcast"]
    assert selected == ["bc", "b", "new"]
    assert unknown == ["never"]
    assert [queue.name for queue in given.consume_from()] == ["b", "new"]


def test_excluding_leaves_the_other_queues() -> None:
    given = router(task_queues=["a", "b"])

    given.deselect(["b"])

    assert [queue.name for queue in given.consume_from()] == ["a"]


def test_queues_added_and_removed_while_running_are_kept_when_settings_change() -> None:
    conf = Settings({"task_queues": ["a"]}, environ={})
    given = Router(conf)
    given.select("a")

    given.add("b")
    given.add(Queue(name="c"))
    given.remove("a")
    conf.task_default_priority = 3

    assert [queue.name for queue in given.consume_from()] == ["b", "c"]
    assert given.queues["c"] == direct_queue("c", exchange="celery", routing_key="celery")
    assert address(given, queue="a") == ("", "a")


def test_our_own_broadcast_queue_is_a_new_one_each_time_unless_named() -> None:
    assert broadcast_queue("all").name != broadcast_queue("all").name
    assert broadcast_queue("all", queue="mine") == Queue(
        name="mine", exchange=Exchange(name="all", type="fanout"), alias="mine", auto_delete=True
    )
