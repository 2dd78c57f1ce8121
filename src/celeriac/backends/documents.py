"""Celery's keys and JSON documents, as the key/value stores keep them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from celeriac.backends.spec import BackendSpec
from celeriac.errors import DecodeError
from celeriac.message import Outcome, Record
from celeriac.states import FAILURE, stays
from celeriac.wire.result import pack, pack_group, unpack, unpack_group

TASK_KEY: Final = "celery-task-meta-"
GROUP_KEY: Final = "celery-taskset-meta-"


class Documents:
    """Turns outcomes and groups into the documents of a store and back.

    Args:
        spec: Says which serializer, what is accepted, and whether to compress.
    """

    def __init__(self, spec: BackendSpec) -> None:
        self._spec = spec
        self._prefix = str(spec.options.get("global_keyprefix") or "")

    def task_key(self, task_id: str) -> str:
        """Return the key of a task's result."""
        return f"{self._prefix}{TASK_KEY}{task_id}"

    def group_key(self, group_id: str) -> str:
        """Return the key of a group's shape."""
        return f"{self._prefix}{GROUP_KEY}{group_id}"

    def encode(self, outcome: Outcome) -> Record:
        """Return the record of an outcome."""
        spec = self._spec
        payload = pack(outcome, spec.codecs, spec.serializer, spec.compression)
        return Record(id=outcome.id, state=outcome.state, payload=payload)

    def read(self, task_id: str, document: bytes) -> Outcome:
        """Return the outcome in a document; one that cannot be read is a failure that says so."""
        try:
            return self.decode(task_id, document)
        except DecodeError as exc:
            return Outcome(id=task_id, state=FAILURE, result=exc)

    def decode(self, task_id: str, document: bytes) -> Outcome:
        """Return the outcome in a document.

        Raises:
            DecodeError: It cannot be read; names the key.
        """
        spec = self._spec
        with _named(f"The result of task {task_id} at key {self.task_key(task_id)}"):
            found = unpack(document, spec.codecs, spec.accept, serializer=spec.serializer, task_id=task_id)
        found.id = task_id  # the key is what was asked for, whatever the document says
        return found

    def encode_group(self, result: Any) -> bytes:  # Any: nested result tuples
        """Return the document of a group's shape."""
        return pack_group(result, self._spec.codecs, self._spec.serializer)

    def decode_group(self, group_id: str, document: bytes) -> Any:  # Any: nested result tuples
        """Return the shape in a group's document.

        Raises:
            DecodeError: It cannot be read; names the key.
        """
        spec = self._spec
        with _named(f"The group {group_id} at key {self.group_key(group_id)}"):
            return unpack_group(document, spec.codecs, spec.accept, serializer=spec.serializer)


@contextmanager
def _named(what: str) -> Iterator[None]:
    try:
        yield
    except DecodeError as exc:
        raise type(exc)(
            f"{what} cannot be read: {exc}. Is result_serializer the same everywhere, and listed in "
            "result_accept_content?"
        ) from exc


def latest(batch: Iterable[Record]) -> Mapping[str, Record]:
    """Return what is left to write of a batch, by id: the last record of each, or what stays before it."""
    found: dict[str, Record] = {}
    for record in batch:
        if (earlier := found.get(record.id)) is None or not stays(earlier.state, record.state):
            found[record.id] = record
    return found
