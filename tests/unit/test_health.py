"""How a worker's figures are written, and which addresses it can be asked at."""

from __future__ import annotations

import pytest

from celeriac.errors import ConfigError
from celeriac.node.health.address import HttpAddress, http_address
from celeriac.node.health.exposition import Family, Sample, histogram, render, single
from celeriac.node.policy import Policies
from celeriac.node.tally import BOUNDS_SECONDS, MOST_TALLIES, OTHERS, Histogram, Tally
from job_factory import memory_app


@pytest.mark.parametrize(
    ("text", "address", "shown"),
    [
        ("127.0.0.1:9808", HttpAddress("127.0.0.1", 9808), "http://127.0.0.1:9808"),
        ("localhost:0", HttpAddress("localhost", 0), "http://localhost:0"),
        ("[::1]:80", HttpAddress("::1", 80), "http://[::1]:80"),
        ("unix:/run/w.sock", HttpAddress(path="/run/w.sock"), "unix:/run/w.sock"),
    ],
)
def test_an_address_is_read_and_shown(text: str, address: HttpAddress, shown: str) -> None:
    assert http_address(text) == address
    assert str(address) == shown


@pytest.mark.parametrize("text", [None, ""])
def test_no_address_asks_for_nothing(text: str | None) -> None:
    assert http_address(text) is None


@pytest.mark.parametrize(
    "text", ["9808", ":9808", "host", "host:", "host:http", "host:65536", "::1:80", "[host]:80", "unix:"]
)
def test_what_is_no_address_is_refused_with_what_one_looks_like(text: str) -> None:
    with pytest.raises(ConfigError, match=r"is no address: it takes host:port, such as 127\.0\.0\.1:9808"):
        http_address(text)


def test_figures_are_written_as_prometheus_reads_them() -> None:
    named = Family(
        "c_total", "counter", "Some.", [Sample(3, {"queue": 'a"b\\c\nd'}), Sample(0.25, {"queue": "e"})]
    )

    text = render([single("up", "gauge", "Whether.", 1), named])

    assert text == (
        "# HELP up Whether.\n# TYPE up gauge\nup 1\n"
        '# HELP c_total Some.\n# TYPE c_total counter\nc_total{queue="a\\"b\\\\c\\nd"} 3\n'
        'c_total{queue="e"} 0.25\n'
    )


def test_the_buckets_of_a_histogram_add_up() -> None:
    figures = Histogram()
    for seconds in (0.0, 0.001, 0.3, 7200.0):
        figures.observe(seconds)

    lines = render([histogram("run_seconds", "Time.", [({"task": "t"}, figures)])]).splitlines()

    assert 'run_seconds_bucket{task="t",le="0.001"} 2' in lines
    assert 'run_seconds_bucket{task="t",le="0.5"} 3' in lines
    assert 'run_seconds_bucket{task="t",le="3600"} 3' in lines
    assert 'run_seconds_bucket{task="t",le="+Inf"} 4' in lines
    assert lines[-2:] == ['run_seconds_sum{task="t"} 7200.301', 'run_seconds_count{task="t"} 4']
    assert list(BOUNDS_SECONDS) == sorted(BOUNDS_SECONDS)


def test_a_task_that_began_by_another_clock_has_not_waited_less_than_nothing() -> None:
    tally = Tally()

    tally.ran("success", -3.0, 0.1)

    assert tally.waits.seconds == 0.0


def test_a_worker_with_many_tasks_tells_the_last_ones_together() -> None:
    app = memory_app()
    for number in range(MOST_TALLIES + 2):
        app.task(name=f"task{number}")(lambda: None)
    app.finalize()
    policies = Policies(app, None, None, tallies=True)

    made = [policies.get(f"task{number}") for number in range(MOST_TALLIES + 2)]

    assert len(policies.tallies) == MOST_TALLIES + 1
    assert made[-1] is not None
    assert made[-1].tally is policies.tallies[OTHERS]


def test_nothing_is_counted_for_nobody() -> None:
    app = memory_app()
    app.task(name="task")(lambda: None)
    app.finalize()
    policies = Policies(app, None, None)

    policy = policies.get("task")

    assert policy is not None
    assert policy.tally is None
    assert policies.tallies == {}
