"""Exchanges choose queues as RabbitMQ does."""

from __future__ import annotations

import pytest

from celeriac.queues import Binding, Exchange, Queue
from celeriac.transports.exchanges import Bound, bindings_of, route, topic_matches


@pytest.mark.parametrize(
    ("pattern", "key", "matches"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.c", False),
        ("a.*", "a.b", True),
        ("a.*", "a", False),
        ("a.*", "a.b.c", False),
        ("a.#", "a", True),
        ("a.#", "a.b.c", True),
        ("a.#", "ab", False),
        ("#", "", True),
        ("#", "a.b", True),
        ("#.b", "b", True),
        ("#.b", "a.a.b", True),
        ("#.b", "a.b.c", False),
        ("a.#.d", "a.d", True),
        ("a.#.d", "a.b.c.d", True),
        ("#.#.x", "x", True),
        ("*", "", False),
        ("a.+", "a.b", False),
        ("", "", True),
        ("", "a", False),
    ],
)
def test_topics(pattern: str, key: str, matches: bool) -> None:
    assert topic_matches(pattern, key) is matches


def bound(queue: str, key: str = "", **arguments: object) -> Bound:
    return Bound(exchange="x", queue=queue, routing_key=key, arguments=arguments)


def test_direct_needs_the_equal_key() -> None:
    assert route("direct", [bound("a", "1"), bound("b", "2"), bound("c", "1")], "1", {}) == ["a", "c"]


def test_fanout_goes_everywhere_once() -> None:
    assert route("fanout", [bound("a", "1"), bound("b"), bound("a", "2")], "", {}) == ["a", "b"]


def test_a_queue_bound_twice_gets_a_message_once() -> None:
    assert route("topic", [bound("a", "#"), bound("a", "x.*")], "x.y", {}) == ["a"]


def test_headers_match_all_unless_any_is_asked_for() -> None:
    everything = bound("all", color="red", size=1)
    anything = Bound(exchange="x", queue="any", arguments={"x-match": "any", "color": "red", "size": 1})

    assert route("headers", [everything, anything], "", {"color": "red", "size": 2}) == ["any"]
    assert route("headers", [everything, anything], "", {"color": "red", "size": 1}) == ["all", "any"]
    assert route("headers", [everything, anything], "", {}) == []


def test_a_queue_says_all_its_bindings_but_the_anonymous_one() -> None:
    queue = Queue(
        name="q",
        exchange=Exchange(name="main", type="topic"),
        routing_key="a.#",
        bindings=(
            Binding(exchange=Exchange(name="more"), routing_key="b"),
            Binding(exchange=Exchange(), routing_key="c"),
        ),
    )

    assert bindings_of(queue) == [
        ("topic", Bound(exchange="main", queue="q", routing_key="a.#")),
        ("direct", Bound(exchange="more", queue="q", routing_key="b")),
    ]
