"""Celery's keys and JSON documents, as the key/value stores keep them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from celeriac.backends.spec import BackendSpec
from celeriac.message import Outcome, Record
from celeriac.states import SUCCESS
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

    def decode(self, task_id: str, document: bytes) -> Outcome:
        """Return the outcome in a document."""
        spec = self._spec
        return unpack(document, spec.codecs, spec.accept, serializer=spec.serializer, task_id=task_id)

    def encode_group(self, result: Any) -> bytes:  # Any: nested result tuples
        """Return the document of a group's shape."""
        return pack_group(result, self._spec.codecs, self._spec.serializer)

    def decode_group(self, document: bytes) -> Any:  # Any: nested result tuples
        """Return the shape in a group's document."""
        return unpack_group(document, self._spec.codecs, self._spec.accept, serializer=self._spec.serializer)


def latest(batch: Iterable[Record]) -> Mapping[str, Record]:
    """Return what is left to write of a batch, by id: the last record of each, or its SUCCESS."""
    found: dict[str, Record] = {}
    for record in batch:
        if (earlier := found.get(record.id)) is None or earlier.state != SUCCESS:
            found[record.id] = record
    return found
