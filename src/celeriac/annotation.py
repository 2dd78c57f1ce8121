"""Attributes of tasks that the settings change: ``task_annotations``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from celeriac.settings.load import import_by_name


class Annotations(Protocol):
    """Says which attributes a task shall have."""

    def annotate_any(self) -> Mapping[str, Any] | None:
        """Return the attributes that every task shall have."""
        ...

    def annotate(self, task: Any) -> Mapping[str, Any] | None:
        """Return the attributes that one task shall have."""
        ...


class MapAnnotation(dict[str, Any]):
    """Annotations from a dict of task names; ``*`` stands for every task."""

    def annotate_any(self) -> Mapping[str, Any] | None:
        """Return what ``*`` has."""
        found = self.get("*")
        return None if found is None else dict(found)

    def annotate(self, task: Any) -> Mapping[str, Any] | None:
        """Return what the task's name has."""
        found = self.get(task.name)
        return None if found is None else dict(found)


class _Partial:
    """An object of the user's that has one of the two methods."""

    def __init__(self, wrapped: Any) -> None:
        self._wrapped = wrapped

    def annotate_any(self) -> Mapping[str, Any] | None:
        method = getattr(self._wrapped, "annotate_any", None)
        return method() if method is not None else None

    def annotate(self, task: Any) -> Mapping[str, Any] | None:
        method = getattr(self._wrapped, "annotate", None)
        return method(task) if method is not None else None


def first_of(sources: Iterable[Annotations], method: str, *args: Any) -> Mapping[str, Any]:
    """Return what the first of the sources says that says anything; nothing when none does."""
    answers = (getattr(source, method)(*args) for source in sources)
    return next((found for found in answers if found), {})


def prepare(annotations: Any) -> tuple[Annotations, ...]:  # Any: the setting's value
    """Return the annotations in a setting: a dict, an object, a dotted name, or a list of these."""
    if annotations is None:
        return ()
    if not isinstance(annotations, (list, tuple)):
        annotations = (annotations,)
    return tuple(_expand(item) for item in annotations)


def _expand(item: Any) -> Annotations:
    if isinstance(item, dict):
        return MapAnnotation(item)
    if isinstance(item, str):
        item = import_by_name(item)
        if callable(item):
            item = item()
    return _Partial(item)
