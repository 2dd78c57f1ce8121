"""``celeriac doctor``: is everything as it has to be, and if not, what to do."""

from __future__ import annotations

import json
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Final, Literal

import click
import msgspec

from celeriac import addresses
from celeriac.app import Celeriac
from celeriac.cli.context import CLIContext
from celeriac.errors import CeleriacError
from celeriac.ports import TellsVitals

_MOST_SKEW_SECONDS: Final = 2.0
_SLOW_SECONDS: Final = 0.25
_COLOURS: Final = {"ok": "green", "warning": "yellow", "error": "red"}


class Finding(msgspec.Struct, frozen=True):
    """What was looked at, how it is, and what to do about it."""

    about: str
    state: Literal["ok", "warning", "error"]
    text: str
    advice: str = ""


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, for machines.")
@click.pass_obj
def command(obj: CLIContext, as_json: bool) -> None:
    """Look at settings, broker, result store and clocks, and say what to do; exit code 1 on an error."""
    app = obj.app
    failed = False
    for about, look in _LOOKS.items():
        try:
            findings = list(look(app))
        except CeleriacError as exc:
            findings = [Finding(about, "error", str(exc))]
        for finding in findings:
            failed = failed or finding.state == "error"
            _show(obj, finding, as_json)
        if about == "settings" and failed:
            break  # nothing else can be looked at
    if failed:
        sys.exit(1)


def _show(obj: CLIContext, finding: Finding, as_json: bool) -> None:
    if as_json:
        obj.echo(json.dumps(msgspec.to_builtins(finding)))
        return
    state = obj.style(f"{finding.state:>7}", fg=_COLOURS[finding.state])
    obj.echo(f"{state}  {finding.about}: {finding.text}")
    if finding.advice:
        obj.echo(f"{'':9}{finding.advice}")


def _settings(app: Celeriac) -> Iterator[Finding]:
    app.finalize()
    conf = app.conf
    old = sorted(conf.deprecated_settings)
    idle = conf.without_effect()
    if old:
        yield Finding(
            "settings",
            "warning",
            f"old names: {', '.join(old)}.",
            "Rename them; Celery 6 will not know them.",
        )
    if idle:
        yield Finding(
            "settings",
            "warning",
            f"known, but without effect in this version: {', '.join(idle)}.",
            "Do not rely on them.",
        )
    if not (old or idle):
        yield Finding("settings", "ok", f"{len(conf.table())} set, all of them understood.")


def _broker(app: Celeriac) -> Iterator[Finding]:
    queue = app.router.default_queue.name
    transport = app.transport
    transport.size(queue)  # connects
    begun = time.perf_counter()
    waiting = transport.size(queue)
    seconds = time.perf_counter() - begun
    text = f"{transport.address} answers in {seconds * 1000:.1f} ms; {waiting} waiting in {queue}."
    if seconds > _SLOW_SECONDS:
        advice = "Every call of a task waits that long. Bring the broker nearer, or look at its load."
        yield Finding("broker", "warning", text, advice)
    else:
        yield Finding("broker", "ok", text)
    if not transport.caps.across_processes:
        yield Finding(
            "broker",
            "warning",
            "it does not reach other processes.",
            "It is for tests; set broker_url to sqlite://, redis:// or amqp://.",
        )
    if isinstance(transport, TellsVitals):
        yield from _vitals(transport)


def _vitals(transport: TellsVitals) -> Iterator[Finding]:
    vitals = transport.vitals()
    skew = vitals.clock - time.time()
    if abs(skew) > _MOST_SKEW_SECONDS:
        yield Finding(
            "clock",
            "warning",
            f"the broker's is {abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'} ours.",
            "Tasks with eta, countdown or expires run at the wrong time: have NTP on both machines.",
        )
    else:
        yield Finding("clock", "ok", "the broker's and ours agree.")
    if vitals.evicts:
        yield Finding(
            "memory",
            "error",
            f"{vitals.server} throws away data when its memory is full ({vitals.evicts}): tasks get lost.",
            "Set maxmemory-policy to noeviction.",
        )
    else:
        yield Finding("memory", "ok", f"{vitals.server} keeps what it has when its memory is full.")


def _results(app: Celeriac) -> Iterator[Finding]:
    backend = app.backend
    if backend is None:
        yield Finding("results", "ok", "there is no result store, so nobody can ask for results.")
        return
    begun = time.perf_counter()
    backend.fetch([str(uuid.uuid4())])
    seconds = time.perf_counter() - begun
    yield Finding("results", "ok", f"{addresses.of_results(app)} answers in {seconds * 1000:.1f} ms.")


def _workers(app: Celeriac) -> Iterator[Finding]:
    if not app.transport.caps.across_processes:
        return
    replies = app.control.ping(timeout=1.0)
    count = sum(map(len, replies))
    if count:
        yield Finding("workers", "ok", f"{count} of them answered.")
    else:
        advice = "Start one: celeriac -A … worker. Those without remote control do not answer."
        yield Finding("workers", "warning", "none answered.", advice)


_LOOKS: Final[dict[str, Callable[[Celeriac], Iterator[Finding]]]] = {
    "settings": _settings,
    "broker": _broker,
    "results": _results,
    "workers": _workers,
}
