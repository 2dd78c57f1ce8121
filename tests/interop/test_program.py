"""One program, two implementations: real clients with our worker, and our client with real workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fleet import MARKS, Console, Side, Site
from processes import Program

pytestmark = pytest.mark.timeout(400)  # the first test waits for real Celery to be installed

SIDES: list[tuple[Side, Side]] = [("real", "ours"), ("ours", "real")]
FORMATS = ["json", "yaml", "msgpack", "pickle"]
COMPRESSIONS = [None, "zlib", "bzip2", "xz", "brotli", "zstd"]


class Pair:
    """A client of one side and a worker of the other."""

    def __init__(self, site: Site, client: Side, worker: Side, broker: str) -> None:
        self.site = site
        self.client_side = client
        self.worker_side = worker
        self.broker = broker
        self.worker: Program = site.worker(worker)
        self.ask: Console = site.console(client)

    def __call__(self, expression: str) -> Any:
        """Evaluate an expression in the client."""
        return self.ask(expression)


def on(*brokers: str) -> pytest.MarkDecorator:
    """Run a test with these brokers, in both directions."""
    return pytest.mark.parametrize(
        "pair",
        [
            pytest.param(
                (client, worker, broker),
                id=f"{client} to {worker} on {broker}",
                marks=[*MARKS[broker], pytest.mark.together(f"{client} to {worker} on {broker}")],
            )
            for client, worker in SIDES
            for broker in brokers
        ],
        indirect=True,
    )


everywhere = on("redis", "rabbitmq", "rpc")
with_stored_results = on("redis", "rabbitmq")


@pytest.fixture
def pair(
    request: pytest.FixtureRequest,
    make_site: Callable[[str], Site],
    sites: dict[tuple[str, ...], Site],
    pairs: dict[tuple[str, ...], Pair],
) -> Pair:
    key = request.param
    if key not in pairs:
        client, worker, broker = key
        sites[key] = make_site(broker)
        pairs[key] = Pair(sites[key], client, worker, broker)
    return pairs[key]


@pytest.fixture(scope="module")
def pairs() -> dict[tuple[str, ...], Pair]:
    return {}


# --- one call --------------------------------------------------------------------------------------------


@everywhere
def test_a_call_returns(pair: Pair) -> None:
    assert pair("get(add.delay(1, y=2))") == 3
    assert pair("get(give.delay({'é': [1.5, None, True, '\U0001f600']}))") == {
        "é": [1.5, None, True, "\U0001f600"]
    }
    assert pair("get(app.send_task('program.add', (2, 3), queue='celery'))") == 5


@everywhere
def test_many_calls_return(pair: Pair) -> None:
    assert pair("[get(result) for result in [add.delay(i, 1) for i in range(100)]]") == list(range(1, 101))


@everywhere
def test_a_large_argument_and_result(pair: Pair) -> None:
    assert pair("len(get(give.delay('x' * 1_000_000)))") == 1_000_000


@everywhere
def test_the_values_that_json_is_extended_by(pair: Pair) -> None:
    values = (
        "[datetime.datetime(2030, 1, 2, 3, 4, 5, 6, datetime.UTC), datetime.date(2030, 1, 2), "
        "Decimal('1.50'), uuid.UUID('12345678123456781234567812345678'), b'\\xff', float('inf')]"
    )

    assert pair(f"get(give.delay({values})) == {values}")
    assert pair(f"get(kind.delay({values})) == repr({values})")


@everywhere
def test_every_serializer_with_every_compression(pair: Pair) -> None:
    value = "{'numbers': [1, -2.5, None], 'text': 'é' * 1000}"

    ran = pair(
        f"[get(result) for result in [kind.apply_async(({value},), serializer=serializer, compression=name)"
        f" for serializer in {FORMATS} for name in {COMPRESSIONS}]]"
    )

    assert ran == [repr(eval(value))] * len(FORMATS) * len(COMPRESSIONS)


@everywhere
def test_a_task_sees_its_own_call(pair: Pair) -> None:
    seen = pair(
        "get(echo.apply_async((1,), {'a': 2}, task_id='my-id-' + str(time.time()), headers={'mine': 5}, "
        "shadow='other', priority=3, time_limit=100, soft_time_limit=50, stamped_headers=['tag'], tag='red'))"
    )

    assert seen["id"].startswith("my-id-")
    assert (seen["root_id"], seen["parent_id"], seen["correlation_id"]) == (seen["id"], None, seen["id"])
    assert (seen["args"], seen["kwargs"]) == ([1], {"a": 2})
    assert (seen["argsrepr"], seen["kwargsrepr"]) == ("(1,)", "{'a': 2}")
    assert seen["mine"] == 5
    assert seen["headers"] == {"mine": 5}
    assert seen["shadow"] == "other"
    assert seen["timelimit"] == [100, 50]
    assert (seen["stamped_headers"], seen["stamps"]) == (["tag"], {"tag": "red"})
    assert seen["delivery_info"] == {
        "exchange": "", "routing_key": "celery", "priority": 3, "redelivered": False,
    }  # fmt: skip
    assert (seen["retries"], seen["eta"], seen["expires"]) == (0, None, None)
    assert seen["hostname"].startswith(f"{pair.worker_side}@")
    assert (seen["is_eager"], seen["called_directly"]) == (False, False)


@with_stored_results
def test_what_is_stored_of_a_task(pair: Pair) -> None:
    told = pair("told(add.delay(1, y=2))")

    assert told["worker"].startswith(f"{pair.worker_side}@")
    assert {**told, "worker": ""} == {
        "state": "SUCCESS", "traceback": None, "name": "program.add", "args": [1], "kwargs": {"y": 2},
        "worker": "", "retries": 0, "queue": "celery", "children": [], "done": True,
    }  # fmt: skip


@with_stored_results
def test_a_result_is_read_by_other_clients(pair: Pair) -> None:
    task_id = pair("keep('sent', add.delay(1, 2)).id")
    saved = pair("save(group(add.s(i, i) for i in range(3)).delay())")

    for side in ("real", "ours"):
        other = pair.site.console(side)
        assert other(f"get(AsyncResult({task_id!r}))") == 3
        assert other(f"get(GroupResult.restore({saved!r}))") == [0, 2, 4]


@with_stored_results
def test_an_ignored_result_is_not_stored(pair: Pair) -> None:
    first, second = pair.site.name(), pair.site.name()

    ids = pair(
        f"[quiet.delay({first!r}).id, note.apply_async((1,), {{'to': {second!r}}}, ignore_result=True).id]"
    )

    pair.site.lines(first)
    pair.site.lines(second)
    assert pair("[get(result) for result in [add.delay(1, 1) for _ in range(8)]]") == [2] * 8
    assert pair(f"[AsyncResult(id).state for id in {ids}]") == ["PENDING", "PENDING"]


@everywhere
def test_a_countdown_is_kept(pair: Pair) -> None:
    eta = "datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=0.4)"

    late = pair(
        f"(lambda now, *results: [get(result) - now for result in results])"
        f"(time.time(), clock.apply_async(countdown=0.4), clock.apply_async(eta={eta}))"
    )

    assert all(0.4 <= seconds < 5 for seconds in late)


@on("redis")
def test_a_longer_countdown_is_kept(pair: Pair) -> None:
    # Long enough for our worker to put the message away, and for our client to say how long.
    assert 2.2 <= pair("-time.time() + get(clock.apply_async(countdown=2.2))") < 6


@everywhere
def test_a_task_that_expires_while_it_waits_is_revoked(pair: Pair) -> None:
    assert pair("error(add.apply_async((1, 1), countdown=0.2, expires=0.15))") == [
        "TaskRevokedError",
        "expired",
    ]


@with_stored_results
def test_a_state_of_ones_own_is_seen(pair: Pair) -> None:
    name = pair.site.name()
    pipe = pair.site.pipe(name)

    pair(f"keep('half', half_way.delay({name!r})) and None")
    with pipe.open("w"):  # as soon as the task reads
        state = pair("[kept['half'].state, kept['half'].info]")

    assert state == ["HALF", {"done": 50}]
    assert pair("get(kept['half'])") == "done"


@everywhere
def test_priorities(pair: Pair) -> None:
    """The worker's two slots are taken, then one is freed; what waits runs by priority, in order."""
    names = [pair.site.name(), pair.site.name()]
    order = pair.site.name()
    pipes = {name: (pair.site.pipe(f"{name}.begun"), pair.site.pipe(f"{name}.open")) for name in names}
    pair(f"[gate.apply_async((name,), ignore_result=True).id for name in {names}]")
    for begun, _ in pipes.values():
        assert begun.read_text() == "first"

    pair(
        f"[note.apply_async((priority,), {{'to': {order!r}}}, priority=priority, queue='ranked').id"
        " for priority in (0, 9, 3, 6, 9, 0)]"
    )
    pair.site.wait_for_waiting("ranked", 6)
    pipes[names[0]][1].write_text("")
    ran = pair.site.lines(order, 6)
    pipes[names[1]][1].write_text("")

    ascending = ["0", "0", "3", "6", "9", "9"]
    # Redis serves 0 first in Celery, RabbitMQ 9.
    assert ran == (ascending if pair.broker == "redis" else ascending[::-1])


# --- what goes wrong -------------------------------------------------------------------------------------


@everywhere
def test_a_failure_keeps_its_class_and_arguments(pair: Pair) -> None:
    assert pair("error(fail.delay('why', 7))") == ["CustomError", "why", 7]
    told = pair("told(fail.delay('why'))")
    assert told["state"] == "FAILURE"
    assert told["traceback"].startswith("Traceback (most recent call last):\n")
    assert told["traceback"].rstrip().endswith("CustomError: why")


@everywhere
def test_retries(pair: Pair) -> None:
    assert pair("get(flaky.delay(2))") == 2
    assert pair("error(hopeless.delay())") == ["CustomError", "never"]
    name, text = pair("error(impatient.delay())")
    assert name == "MaxRetriesExceededError"
    assert text.startswith("Can't retry program.impatient[")


@on("redis", "rpc")
def test_time_limits(pair: Pair) -> None:
    hard, soft = pair("[error(result) for result in [too_slow.delay(), slow.delay()]]")

    assert hard == ["TimeLimitExceeded", 1]
    assert soft[0] == "SoftTimeLimitExceeded"


@everywhere
def test_an_unknown_task_is_told(pair: Pair) -> None:
    assert pair("error(app.send_task('no.such.task'))") == ["NotRegistered", "no.such.task"]


@on("redis", "rpc")
def test_a_result_without_a_form_is_a_failure(pair: Pair) -> None:
    name, text = pair("error(unserializable.delay())")

    assert name == "EncodeError"
    assert "is not JSON serializable" in text


# --- protocol 1 ------------------------------------------------------------------------------------------


@everywhere
def test_protocol_1(pair: Pair) -> None:
    name = pair.site.name()

    assert pair("get(old.send_task('program.add', (1, 2)))") == 3
    assert pair("error(old.send_task('program.fail', ('why',)))") == ["CustomError", "why"]
    assert pair("get(old.send_task('program.flaky', (1,)))") == 1
    assert 0.1 <= pair("-time.time() + get(old.send_task('program.clock', countdown=0.1))") < 5
    pair(f"get(old.send_task('program.add', (1, 2), link=[note.s(to={name!r})]))")
    assert pair.site.lines(name) == ["3"]
    steps = "[signature('program.add', args, app=old) for args in [(1, 2), (3,), (4,)]]"
    assert pair(f"get(chain({steps}, app=old).apply_async())") == 10


@with_stored_results
def test_a_chord_in_protocol_1(pair: Pair) -> None:
    parts = "[signature('program.add', (i, i), app=old) for i in range(4)]"

    assert pair(f"get(chord({parts}, app=old)(signature('program.total', app=old)))") == 12


# --- workflows -------------------------------------------------------------------------------------------


@everywhere
def test_chains_and_groups(pair: Pair) -> None:
    assert pair("get(chain(add.s(1, 2), add.s(3), mul.s(4)).delay())") == 24
    assert pair("get((add.s(1, 2) | add.si(5, 5) | add.s(1)).delay())") == 11
    assert pair("get(group(add.s(i, i) for i in range(5)).delay())") == [0, 2, 4, 6, 8]
    assert pair("get(group(add.s(1, 1) | mul.s(i) for i in range(3)).delay())") == [0, 2, 4]
    assert pair("get(add.map([1, 2]).type.app.tasks['celery.map'].s(give.s(), [3, 4]).delay())") == [3, 4]
    assert pair("get(add.starmap([(1, 2), (3, 4)]).delay())") == [3, 7]
    assert pair("get(add.chunks([(i, i) for i in range(5)], 2).delay())") == [[0, 2], [4, 6], [8]]


@with_stored_results
def test_chords(pair: Pair) -> None:
    assert pair("get(chord([add.s(i, i) for i in range(5)], total.s()).delay())") == 20
    assert pair("get(chord([add.s(1, 1)])(total.s()))") == 2
    assert pair("get(chord([], give.s()).delay())") == []
    assert pair("get((group(add.s(i, i) for i in range(3)) | total.s() | add.s(1)).delay())") == 7
    assert pair("get((give.s(5) | group(add.s(1), add.s(2)) | total.s() | mul.s(2)).delay())") == 26
    assert pair("get(chord([add.s(1, 1) | mul.s(3), add.s(2, 2)], total.s()).delay())") == 10
    assert (
        pair("get(chord([chord([add.s(1, 1), add.s(2, 2)], total.s()), add.s(3, 3)], total.s()).delay())")
        == 12
    )
    assert pair("get(chord([flaky.s(1), flaky.s(0), flaky.s(2)], total.s()).delay())") == 3
    assert pair("get(chord([give.s(i) for i in range(12)], give.s()).delay())") == list(range(12))


@with_stored_results
def test_a_chord_counts_parts_whose_results_are_ignored(pair: Pair) -> None:
    name = pair.site.name()

    got = pair(f"get(chord([quiet.s({name!r}), quiet.s({name!r})], give.s()).delay())")

    assert got == ["nobody hears this"] * 2


@everywhere
def test_the_family_of_a_task(pair: Pair) -> None:
    first, second, third = pair(
        "(lambda last: [get(last.parent.parent), get(last.parent), get(last)])"
        "(chain(echo.s(), echo.si(), echo.si()).delay())"
    )

    assert [seen["root_id"] for seen in (first, second, third)] == [first["id"]] * 3
    assert [seen["parent_id"] for seen in (first, second, third)] == [None, first["id"], second["id"]]
    grouped = pair("get(group(echo.si(), echo.si()).delay())")
    assert len({seen["group"] for seen in grouped}) == 1
    assert [seen["group_index"] for seen in grouped] == [0, 1]
    pair("keep('parent', starts_another.delay(5)) and None")
    child = pair("get(kept['parent'])")
    assert pair("told(kept['parent'])")["children"] == [child]


@with_stored_results
def test_a_task_that_a_task_has_sent_can_be_found(pair: Pair) -> None:
    assert pair("get(AsyncResult(get(starts_another.delay(5))))") == 6


@everywhere
def test_what_is_linked_to_a_success(pair: Pair) -> None:
    name = pair.site.name()

    assert pair(f"get(add.apply_async((1, 2), link=[note.s(to={name!r}), note.s('also', to={name!r})]))") == 3

    assert sorted(pair.site.lines(name, 2)) == ["3", "3 also"]


@everywhere
def test_what_is_linked_to_a_failure(pair: Pair) -> None:
    name = pair.site.name()

    errbacks = f"[told_id.s(to={name!r}), told_error.s(to={name!r})]"

    failed = pair(f"keep('failed', fail.apply_async(('why',), link_error={errbacks})).id")

    assert pair("error(kept['failed'])") == ["CustomError", "why"]
    assert sorted(pair.site.lines(name, 2)) == [failed, f"{failed} CustomError why"]


@everywhere
def test_a_chain_that_fails(pair: Pair) -> None:
    name = pair.site.name()

    error = pair(f"error((fail.s('why') | add.s(1) | add.s(2)).on_error(told_id.s(to={name!r})).delay())")

    assert error == ["CustomError", "why"]
    assert len(pair.site.lines(name)) == 1


@with_stored_results
def test_a_chord_that_fails(pair: Pair) -> None:
    name = pair.site.name()
    chord = f"chord([add.s(1, 1), fail.s('why')], total.s().on_error(told_id.s(to={name!r})))"

    error = pair(f"error(keep('chord', {chord}.delay()))")

    part = pair("kept['chord'].parent[1].id")
    assert error == ["ChordError", f"Dependency {part} raised CustomError('why')"]
    assert pair.site.lines(name) == [pair("kept['chord'].id")]


@with_stored_results
def test_a_task_that_is_replaced(pair: Pair) -> None:
    assert pair("get(becomes.delay(1, 2))") == 3
    assert pair("get(becomes_a_chain.delay(1, 2))") == 6
    assert pair("get(becomes_a_group.delay(1, 2, 3))") == [2, 3, 4]
    assert pair("get((give.s(1) | becomes.s(2) | mul.s(3)).delay())") == 9
    assert pair("get(chord([becomes.s(1, 1), becomes_a_chain.s(2, 2)], total.s()).delay())") == 10
