"""Real workers and ours that know of each other: revoked tasks, logical clocks, and elections."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from fleet import ANSWER_SECONDS, MARKS, Site

pytestmark = pytest.mark.timeout(400)  # the first test waits for real Celery to be installed


def on(broker: str) -> Any:
    return pytest.param(broker, marks=[*MARKS[broker], pytest.mark.together(f"company on {broker}")])


class Company:
    """One worker of ours, then a real one, then one more of ours; each is told of a revoked task."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.known: dict[str, list[str]] = {}  # by node: what it knows to be revoked right after its start
        options = ("--heartbeat-interval", "1", "-l", "DEBUG")
        self.first = site.start("ours", "-n", "ours@box", "-Q", "ours", *options, quiet=False)
        self.first.wait_for(r" ready\.$")
        self.revoke("by-ours", "ours@box")
        self.real = site.start("real", "-n", "real@box", "-Q", "real", *options, quiet=False)
        self.real.wait_for(r"mingle: sync complete")
        self.real.wait_for(r" ready\.$")
        self.look("real@box")
        self.revoke("by-real", "real@box")
        self.second = site.start("ours", "-n", "more@box", "-Q", "celery", *options, quiet=False)
        self.second.wait_for(r" ready\.$")
        self.look("more@box")

    def ask(self, expression: str) -> Any:
        """Evaluate an expression in a client of ours."""
        return self.site.console("ours")(expression)

    def revoke(self, task_id: str, node: str) -> None:
        """Have only one worker know that a task is revoked."""
        self.ask(f"app.control.revoke({task_id!r}, destination=[{node!r}], reply=True, timeout=60)")

    def look(self, node: str) -> None:
        """Note what a worker knows to be revoked, once it answers."""
        deadline = time.monotonic() + ANSWER_SECONDS  # real Celery says "ready" some moments too early
        while not (answer := self.ask(f"app.control.inspect([{node!r}], timeout=1).revoked()")):
            assert time.monotonic() < deadline, f"{node} does not answer"
        self.known[node] = sorted(answer[node])


@pytest.fixture(scope="module")
def companies() -> dict[str, Company]:
    return {}


@pytest.fixture(params=[on("redis"), on("rabbitmq")])
def company(
    request: pytest.FixtureRequest,
    make_site: Callable[[str], Site],
    sites: dict[tuple[str, ...], Site],
    companies: dict[str, Company],
) -> Company:
    broker = request.param
    if broker not in companies:
        site = sites[(broker,)] = make_site(broker)
        companies[broker] = Company(site)
    return companies[broker]


def test_who_starts_takes_over_what_others_have_revoked(company: Company) -> None:
    assert company.known == {"real@box": ["by-ours"], "more@box": ["by-ours", "by-real"]}


def test_they_elect_one_together_and_all_live_on(company: Company) -> None:
    for worker in (company.first, company.second):
        worker.wait_for(r"real@box has joined")
    company.first.wait_for(r"more@box has joined")
    company.second.wait_for(r"ours@box has joined")
    for ours in ("ours", "more"):
        company.real.wait_for(rf"{ours}@box joined the party")
    name = company.site.name()

    company.ask(f"note.s('once', to={name!r}).set(queue='celery').election()")

    for worker in (company.first, company.second, company.real):
        worker.wait_for(r"won the election|elected")
    company.site.lines(name)
    company.ask(f"get(note.apply_async(('after',), {{'to': {name!r}}}, queue='celery'))")
    assert company.site.lines(name, 2) == ["once", "after"]
    assert len(company.ask("app.control.inspect(timeout=60, limit=3).ping()")) == 3
