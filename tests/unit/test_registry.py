"""The tasks of an app, by name."""

from __future__ import annotations

import pytest

from celeriac.errors import InvalidTaskError, NotRegistered
from celeriac.registry import Registry
from celeriac.task import Task


class Mine(Task[[], None]):
    name = "mine"


def test_a_missing_name_is_not_registered_and_a_key_error() -> None:
    with pytest.raises(NotRegistered):
        Registry()["missing"]
    with pytest.raises(KeyError):
        Registry()["missing"]


def test_tasks_are_registered_by_instance_or_class_and_removed_by_name_or_task() -> None:
    registry = Registry()
    registry.register(Mine)
    assert isinstance(registry["mine"], Mine)

    registry.unregister("mine")
    task = Mine()
    registry.register(task)
    assert registry.regular() == {"mine": task}
    assert registry.periodic() == {}

    registry.unregister(task)
    with pytest.raises(NotRegistered):
        registry.unregister("mine")


def test_a_task_without_a_name_is_refused() -> None:
    class Nameless(Task[[], None]):
        pass

    with pytest.raises(InvalidTaskError, match=r"must specify \.name"):
        Registry().register(Nameless())
