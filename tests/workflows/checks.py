"""Whether a workflow that was run has become what it was to become."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from celeriac.result import GroupResult
from workflows.model import Verdict

_LABEL = re.compile(r"Fault\(\W*(c\d+)\W*\)")


def differences(
    verdict: Verdict, told: tuple[Any, BaseException | None], seen: Mapping[str, Counter[str]], *, exact: bool
) -> list[str]:
    """Return what is not as it was to be.

    Args:
        verdict: What was to become of the workflow.
        told: Its value, or what it has failed with.
        seen: What was noted, as "ran" and "called", by label.
        exact: Whether each call has run exactly as often as it was to; otherwise at least as often.
    """
    value, error = told
    found = []
    if verdict.failures:
        if error is None:
            found.append(f"has the value {value!r}, not a failure of {sorted(verdict.failures)}")
        elif not verdict.failures.intersection(labels := failed_calls(error)):
            found.append(f"failed with {error!r} ({labels}), not with {sorted(verdict.failures)}")
    elif error is not None:
        found.append(f"failed with {error!r}, not the value {verdict.value!r}")
    elif value != verdict.value:
        found.append(f"has the value {value!r}, not {verdict.value!r}")
    for what, expected in (("ran", verdict.ran), ("called", verdict.called)):
        if exact:
            if seen[what] != expected:
                found.append(f"{what} too often {seen[what] - expected}, too seldom {expected - seen[what]}")
        elif set(seen[what]) != set(expected) or any(seen[what][it] < expected[it] for it in expected):
            found.append(f"{what} {dict(seen[what])}, not {dict(expected)}")
    return found


def failed_calls(error: BaseException) -> list[str]:
    """Return the labels of the calls that an error tells of."""
    return _LABEL.findall(repr(error))


def unready(result: Any) -> list[str]:
    """Return the ids of results that nobody will ever write, in a result, its members and parents."""
    found = []
    while result is not None:
        if isinstance(result, GroupResult):
            found += [id for member in result.results for id in unready(member)]
        elif not result.ready():
            found.append(result.id)
        result = result.parent
    return found
