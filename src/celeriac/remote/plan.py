"""What the lines of a timetable say: plans, which people change, and runs, which the leader writes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final, Literal, TypeVar

import msgspec

from celeriac.errors import DecodeError, ScheduleError
from celeriac.schedules.missed import MissedPolicy
from celeriac.schedules.written import Written
from celeriac.timetable import Line

Kind = Literal["plan", "run"]
T = TypeVar("T", bound="Plan | Run")

_LONGEST_NAME: Final = 140  # as it is; keys of databases have an end


class Described(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What an entry is; of one that is in the code only what differs from that."""

    task: str | None = None
    schedule: Written | None = None
    args: list[Any] | None = None  # Any: the user's values
    kwargs: dict[str, Any] | None = None
    options: dict[str, Any] | None = None
    missed: MissedPolicy | None = None


class Plan(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What somebody wants of an entry."""

    name: str
    added: bool = False  # it is not in the code
    entry: Described = msgspec.field(default_factory=Described)
    paused: bool = False
    since: float = 0.0  # slots before this do not count; epoch seconds, as all times here
    asked: list[float] = []  # when it was asked to be run at once


class Run(msgspec.Struct, kw_only=True, omit_defaults=True):
    """When an entry was sent, and when it is next."""

    name: str
    since: float  # when it was first seen: what its intervals are counted from
    slot: float | None = None  # the last one that was dealt with
    at: float | None = None  # when that was
    times: int = 0
    passed_over: int = 0  # how often slots were missed and left out
    next: float | None = None
    answered: float = 0.0  # the last of the plan's `asked` that was
    task: str = ""
    schedule: str = ""  # for people
    missed: MissedPolicy = "once"

    @property
    def base(self) -> float:
        """The slot that the next one follows."""
        return self.since if self.slot is None else self.slot


_encode = msgspec.json.Encoder(enc_hook=str).encode


def key_of(kind: Kind, name: str) -> str:
    """Return the key of an entry's line."""
    if len(name) <= _LONGEST_NAME:
        return f"{kind}/{name}"
    return f"{kind}/#{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()}"


def encode(line: Plan | Run) -> bytes:
    """Return the value of a line.

    Raises:
        ScheduleError: An argument or option has no form in JSON.
    """
    try:
        return _encode(line) if isinstance(line, Run) else msgspec.json.encode(line)
    except (TypeError, ValueError) as exc:
        raise ScheduleError(
            f"the entry {line.name!r} cannot be kept in a store: its arguments and options have to be such "
            f"as JSON knows ({exc})"
        ) from exc


def decode(key: str, line: Line) -> Plan | Run | None:
    """Return what a line says; None for one that was removed, or is of another kind.

    Raises:
        DecodeError: It cannot be read.
    """
    kind: Any = {"plan": Plan, "run": Run}.get(key.partition("/")[0])
    if line.value is None or kind is None:
        return None
    try:
        return msgspec.json.decode(line.value, type=kind)  # type: ignore[no-any-return]  # one of the two
    except msgspec.MsgspecError as exc:
        raise DecodeError(f"the line {key!r} of the timetable cannot be read: {exc}") from exc


def plans_and_runs(lines: Mapping[str, Line]) -> tuple[dict[str, Plan], dict[str, Run]]:
    """Return all that lines say, by the names of entries; what cannot be read is left out."""
    plans: dict[str, Plan] = {}
    runs: dict[str, Run] = {}
    for key, line in lines.items():
        try:
            found = decode(key, line)
        except DecodeError:
            continue
        if isinstance(found, Plan):
            plans[found.name] = found
        elif isinstance(found, Run):
            runs[found.name] = found
    return plans, runs
