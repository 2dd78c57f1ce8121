"""Real workers and ours on the same queues."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from fleet import ANSWER_SECONDS, LOOK_SECONDS, MARKS, SIDES, Side, Site, wait_until_ready
from processes import Program

pytestmark = pytest.mark.timeout(400)  # the first test waits for real Celery to be installed


AHEAD = ("--prefetch-multiplier", "4")


class Fleet:
    """A site with one worker of each side; both consume the queue ``celery``, each also one of its own."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.workers: dict[Side, Program] = {}

    def start(self, *sides: Side) -> None:
        """Start these workers, at the same time."""
        for side in sides:
            self.workers[side] = self.site.start(side, "-Q", f"celery,{side}", *AHEAD)
        for side in sides:
            wait_until_ready(self.workers[side])

    def ask(self, side: Side, expression: str) -> Any:
        """Evaluate an expression in a client."""
        return self.site.console(side)(expression)

    def gate(self, queue: str) -> Gate:
        """Send a task to a queue that waits until it is told to go on."""
        gate = Gate(self.site)
        self.ask("real", f"keep({gate.name!r}, gate.apply_async(({gate.name!r},), queue={queue!r})).id")
        return gate


class Gate:
    """A task that tells when it has begun, and ends when it is told to."""

    def __init__(self, site: Site) -> None:
        self.name = site.name()
        self.begun = site.pipe(f"{self.name}.begun")
        self.go = site.pipe(f"{self.name}.open")

    def wait(self) -> str:
        """Wait until it has begun, and return whether it has for the first time, or again."""
        return self.begun.read_text()

    def open(self) -> None:
        """Let it end."""
        self.go.write_text("")


def on(broker: str, *more: Side) -> Any:
    """Return a parameter for a test with the fleet on this broker, which is made once."""
    return pytest.param(broker, *more, marks=[*MARKS[broker], pytest.mark.together(f"fleet on {broker}")])


@pytest.fixture(params=[on("redis"), on("rabbitmq")])
def fleet(
    request: pytest.FixtureRequest,
    make_site: Callable[[str], Site],
    sites: dict[tuple[str, ...], Site],
    fleets: dict[str, Fleet],
) -> Fleet:
    """Return a running fleet."""
    broker = request.param
    if broker not in fleets:
        site = sites[(broker,)] = make_site(broker)
        fleets[broker] = Fleet(site)
        fleets[broker].start(*SIDES)
    return fleets[broker]


@pytest.fixture(scope="module")
def fleets() -> dict[str, Fleet]:
    return {}


@pytest.fixture
def new_fleet(make_site: Callable[[str], Site]) -> Iterator[Callable[[str], Fleet]]:
    """Return a function that makes a fleet of this test's own, with no worker in it yet."""
    made: list[Fleet] = []

    def make(broker: str) -> Fleet:
        made.append(Fleet(make_site(broker)))
        return made[-1]

    yield make
    for fleet in made:
        fleet.site.close()


def ran(site: Site, name: str, count: int) -> Counter[str]:
    """Return how many of the tasks numbered below ``count`` each side has run; each has to be run once."""
    lines = [line.split() for line in site.lines(name, count)]
    assert sorted(int(number) for number, _ in lines) == list(range(count))
    return Counter(side for _, side in lines)


def left(url: str) -> list[bytes]:
    """Return the keys of all messages that anybody holds, or that wait."""
    names = ("celery", *SIDES, "unacked", "unacked_index", "celeriac.lease:*", "celeriac.parked:*")
    with redis.Redis.from_url(url) as server:
        return [key for name in names for key in server.scan_iter(name)]


def held(server: Any) -> list[bytes]:  # Any: a client whose answers are bytes
    """Return what our workers hold: the fields of all leases, and what the server has just handed over."""
    leased = [field for key in server.scan_iter("celeriac.lease:*") for field in server.hkeys(key)]
    return leased + [one for key in server.scan_iter("celeriac.catch:*") for one in server.lrange(key, 0, -1)]


def until(condition: Callable[[], bool]) -> None:
    """Wait for what a foreign server has no signal for."""
    deadline = time.monotonic() + ANSWER_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(LOOK_SECONDS)


@pytest.mark.parametrize("client", SIDES)
def test_each_task_runs_once_and_all_take_part(fleet: Fleet, client: Side) -> None:
    name = fleet.site.name()

    sides = fleet.ask(client, f"get(group(where.s(number, {name!r}, 0.01) for number in range(200)).delay())")

    by_side = ran(fleet.site, name, 200)
    assert Counter(sides) == by_side
    assert by_side["real"] > 20
    assert by_side["ours"] > 20


@pytest.mark.parametrize("client", SIDES)
def test_parts_of_a_chord_run_on_both_sides(fleet: Fleet, client: Side) -> None:
    for _ in range(5):
        name, body = fleet.site.name(), fleet.site.name()
        parts = f"[where.s(number, {name!r}, 0.02) for number in range(20)]"

        sides = fleet.ask(client, f"get(chord({parts}, where_all.s({body!r})).delay())")

        by_side = ran(fleet.site, name, 20)
        assert Counter(sides) == by_side
        assert set(by_side) == set(SIDES)
        assert len(fleet.site.lines(body)) == 1


@pytest.mark.parametrize("client", SIDES)
def test_a_chord_that_parts_on_both_sides_add_to(fleet: Fleet, client: Side) -> None:
    parts = "[grows.s(number, number + 1).set(queue=('real', 'ours')[number % 2]) for number in range(4)]"

    for queue in SIDES:
        # 0 + 1, 1 + 2, 2 + 3, 3 + 4
        assert fleet.ask(client, f"get(chord({parts}, total.s().set(queue={queue!r})).delay())") == 16


@pytest.mark.parametrize("client", SIDES)
def test_workflows_that_cross_sides(fleet: Fleet, client: Side) -> None:
    name = fleet.site.name()
    crossing = "chain(give.s(0), *(add.s(1).set(queue=('real', 'ours')[number % 2]) for number in range(10)))"
    parts = "[add.s(number, number).set(queue=('real', 'ours')[number % 2]) for number in range(6)]"

    assert fleet.ask(client, f"get({crossing}.delay())") == 10
    for queue in SIDES:
        body = f"total.s().set(queue={queue!r})"
        assert fleet.ask(client, f"get((chord({parts}, {body}) | add.s(1).set(queue='real')).delay())") == 31
        failing = (
            f"chord([*{parts}, fail.s('why').set(queue={queue!r})], {body}.on_error(told_id.s(to={name!r})))"
        )
        assert fleet.ask(client, f"error({failing}.delay())")[0] == "ChordError"
    assert len(fleet.site.lines(name, 2)) == 2
    assert fleet.ask(client, "get(group(flaky.s(2) for _ in range(10)).delay())") == [2] * 10


@pytest.mark.parametrize(
    ("fleet", "leaving"),
    [
        on("redis", "real"),
        on("redis", "ours"),
        on("rabbitmq", "ours"),
    ],
    indirect=["fleet"],
)
def test_what_one_side_hands_back_the_other_runs(fleet: Fleet, leaving: Side) -> None:
    """A third worker stops warmly in the middle of its work: every task has run once, no message is left."""
    site = fleet.site
    staying: Side = "ours" if leaving == "real" else "real"
    # Solo, as prefork of Celery 5.6 may run a task that it hands back (decision 051), or not end at all.
    pool = ("-P", "solo") if leaving == "real" else ()
    third = site.start(leaving, "-n", "third@%h", "-Q", staying, *AHEAD, *pool)
    wait_until_ready(third)
    name = site.name()
    many = f"group(where.s(number, {name!r}, 0.02) for number in range(100)).apply_async(queue={staying!r})"
    fleet.ask("ours", f"keep('many', {many}).id")
    site.lines(name, 10)

    assert third.stop() == 0

    assert fleet.ask("ours", "get(kept['many'])")[-1] == staying
    assert ran(site, name, 100)[leaving] > 0
    if site.broker.startswith("redis"):
        until(lambda: not left(site.broker))


@pytest.mark.redis
def test_a_worker_of_ours_is_killed_beside_a_real_one_on_redis(new_fleet: Callable[[str], Fleet]) -> None:
    """Nothing that it held is lost, and nothing of the real worker's is touched; not even when that dies."""
    fleet = new_fleet("redis")
    fleet.start("real", "ours")
    name = fleet.site.name()
    theirs, late = fleet.gate("real"), fleet.gate("ours")
    early = fleet.site.name()
    pipe = fleet.site.pipe(early)
    fleet.ask("real", f"keep({early!r}, half_way.apply_async(({early!r},), queue='ours')).id")
    assert (theirs.wait(), late.wait()) == ("first", "first")
    with pipe.open("w"), redis.Redis.from_url(fleet.site.broker) as server:
        many = f"group(where.s(number, {name!r}) for number in range(30)).apply_async(queue='ours')"
        fleet.ask("ours", f"{many}.id")
        until(lambda: len(held(server)) == 9)  # two that run, one of them acknowledged, and six fetched ahead
        before = server.hgetall("unacked")
        assert len(before) == 1

        fleet.workers["ours"].end()

        fleet.start("ours")
        assert late.wait() == "again"
        late.open()
        ran(fleet.site, name, 30)
        assert fleet.ask("real", f"error(kept[{early!r}])")[0] == "WorkerLostError"
        assert fleet.ask("real", f"get(kept[{late.name!r}])") == "ours"
        fleet.workers["real"].end()
        assert fleet.ask("ours", "[get(result) for result in [add.delay(i, i) for i in range(20)]][-1]") == 38
        assert server.hgetall("unacked") == before
        until(lambda: not held(server))


@pytest.mark.rabbitmq
@pytest.mark.redis
def test_what_a_killed_worker_of_ours_held_a_real_one_runs_on_rabbitmq(
    new_fleet: Callable[[str], Fleet],
) -> None:
    fleet = new_fleet("rabbitmq")
    fleet.start("ours")
    name = fleet.site.name()
    late = fleet.gate("celery")
    assert late.wait() == "first"
    fleet.ask("ours", f"group(where.s(number, {name!r}, 0.01) for number in range(30)).delay().id")
    fleet.site.lines(name, 5)

    fleet.workers["ours"].end()

    fleet.start("real")
    assert late.wait() == "again"
    late.open()
    assert fleet.ask("real", f"get(kept[{late.name!r}])") == "real"
    # At most once is what a task is promised that is acknowledged early: the one that ran is gone.
    assert len({line.split()[0] for line in fleet.site.lines(name, 29)}) >= 29
