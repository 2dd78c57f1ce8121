"""What a node makes of what a task and the settings say."""

from __future__ import annotations

from typing import Any

import pytest

from celeriac.execute.verdict import Terms
from celeriac.node.policy import Policies
from desk import new_app


def terms_of(settings: dict[str, Any], options: dict[str, Any]) -> Terms:
    app = new_app(**settings)
    app.task(name="task", **options)(lambda: None)
    app.finalize()
    policy = Policies(app, None, None).get("task")
    assert policy is not None
    return policy.terms


@pytest.mark.parametrize(
    ("settings", "options", "on_failure", "on_timeout"),
    [
        ({}, {}, True, True),
        ({"task_acks_on_failure_or_timeout": False}, {}, False, False),
        ({"task_acks_on_failure": False}, {}, False, True),
        ({"task_acks_on_timeout": False}, {}, True, False),
        ({"task_acks_on_failure_or_timeout": False, "task_acks_on_failure": True}, {}, True, False),
        ({"task_acks_on_failure_or_timeout": False, "task_acks_on_timeout": True}, {}, False, True),
        ({"task_acks_on_failure": False}, {"acks_on_failure": True}, True, True),
        ({"task_acks_on_timeout": True}, {"acks_on_timeout": False}, True, False),
        ({}, {"acks_on_failure_or_timeout": False, "acks_on_timeout": True}, False, True),
    ],
)
def test_failures_and_timeouts_are_acknowledged_as_the_nearest_word_says(
    settings: dict[str, Any], options: dict[str, Any], on_failure: bool, on_timeout: bool
) -> None:
    terms = terms_of(settings, options)

    assert (terms.acks_on_failure, terms.acks_on_timeout) == (on_failure, on_timeout)
