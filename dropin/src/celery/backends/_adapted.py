"""A result backend of another package, as our apps and workers ask it."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, NoReturn

import msgspec

from celeriac import context
from celeriac.backends.documents import Documents, latest
from celeriac.backends.polling import PollingListener
from celeriac.backends.spec import BackendSpec
from celeriac.backends.waiter import Awaited, Waiter
from celeriac.errors import BackendError, BackendUnreachable, ChordsUnsupported
from celeriac.message import Outcome, Record
from celeriac.net.lane import Lane
from celeriac.tries import tries_from
from celery import states
from celery.result import result_from_tuple

__all__ = ("AdaptedBackend",)

_CLAIMED = "CLAIMED"  # the state of a result that is none: whose turn a task is
_EXTENDED = ("name", "args", "kwargs", "worker", "retries", "queue")


class AdaptedBackend(Awaited):
    """Stores and reads through a backend of another package.

    What else programs ask of a backend is answered by the other one.

    Args:
        inner: The other package's, with Celery's methods.
        spec: What the settings say.
    """

    persistent = True
    joins_chords = False  # Celery's methods count parts in the process that ran them; we look for them

    def __init__(self, inner: Any, spec: BackendSpec) -> None:
        self.inner = inner
        self._documents = Documents(spec)
        self._lane = Lane("celeriac-results")
        self._pid = os.getpid()
        self._waiter = Waiter(lambda: PollingListener(self.fetch), tries_from(spec.options))

    def __getattr__(self, name: str) -> Any:
        if name == "inner":  # while it is being copied
            raise AttributeError(name)
        return getattr(self.inner, name)

    @property
    def _tries_itself(self) -> bool:
        """Whether what may pass was tried again where it happened, and what arrives here is the end of it."""
        return bool(getattr(self.inner, "always_retry", False))

    def store_result(self, *args: Any, **kwargs: Any) -> Any:  # Any: as the other one has it
        """Store what became of a call, see `celery.backends.base.Backend.store_result`."""
        return self.inner.store_result(*args, **kwargs)

    @contextmanager
    def _translated(self, what: str, *, final: bool = False) -> Iterator[None]:
        """Have what goes wrong be one of our errors; ``final`` when trying again was tried already."""
        try:
            yield
        except BackendError:
            raise
        except Exception as exc:
            kind = BackendError if final else BackendUnreachable
            whose = type(self.inner).__name__
            raise kind(f"{whose} could not {what}: {type(exc).__name__}: {exc}") from exc

    def encode(
        self, outcome: Outcome, *, reply_to: str | None = None, correlation_id: str | None = None
    ) -> Record:
        """Return the record of an outcome, as it goes to the process that stores it."""
        frame = context.worker_frame()
        if outcome.extended and frame is not None and frame.request.id == outcome.id:
            # What the sender wants to have shown of the arguments, which may hide some of them.
            shown = {name: frame.request.__dict__.get(name) for name in ("argsrepr", "kwargsrepr")}
            outcome = msgspec.structs.replace(outcome, extended={**outcome.extended, **shown})
        return self._documents.encode(outcome)

    def reply_address(self) -> str | None:
        """Return None: results are fetched, not sent."""
        return None

    def store(self, batch: Sequence[Record]) -> None:
        """Write the records."""
        self._store(batch, final=self._tries_itself)

    def _store(self, batch: Sequence[Record], *, final: bool = False) -> None:
        for record in latest(batch).values():
            outcome = self._documents.read(record.id, record.payload)
            with self._translated(f"store the result of task {record.id}", final=final):
                self.inner.store_result(
                    outcome.id,
                    outcome.result,
                    outcome.state,
                    outcome.traceback,
                    request=_request_of(outcome),
                )

    async def astore(self, batch: Sequence[Record]) -> None:
        """Do the same on a thread of its own, which has connections of its own; whatever fails may pass."""
        if self._pid != os.getpid():
            self._lane, self._pid = Lane("celeriac-results"), os.getpid()
        await self._lane.run(self._store, batch)

    def fetch(self, ids: Sequence[str]) -> dict[str, Outcome]:
        """Return what is known of the ids now."""
        found = {}
        for task_id in ids:
            with self._translated(f"read the result of task {task_id}", final=self._tries_itself):
                meta = self.inner.get_task_meta(task_id, cache=False)
            if meta.get("status", states.PENDING) != states.PENDING:
                found[task_id] = _outcome_of(task_id, meta)
        return found

    def forget(self, ids: Any) -> None:  # Any: ids, or one as Celery's programs give it
        """Remove what is stored of the ids."""
        for task_id in [ids] if isinstance(ids, str) else ids:
            with self._translated(f"forget the result of task {task_id}"):
                self.inner.forget(task_id)

    def save_group(self, group_id: str, result: Any) -> None:  # Any: nested result tuples
        """Keep the shape of a group's results."""
        with self._translated(f"save group {group_id}"):
            self.inner.save_group(group_id, result_from_tuple(result, app=self.inner.app))

    def restore_group(self, group_id: str) -> Any:  # Any: nested result tuples
        """Return the shape kept by `save_group`, or None."""
        with self._translated(f"restore group {group_id}"):
            shape = self.inner.restore_group(group_id)
        return None if shape is None else shape.as_tuple()

    def delete_group(self, group_id: str) -> None:
        """Remove it."""
        with self._translated(f"delete group {group_id}"):
            self.inner.delete_group(group_id)

    def start_chord(self, chord_id: str, size: int, members: Any) -> NoReturn:
        """Refuse: parts are looked for instead."""
        raise ChordsUnsupported(f"{type(self.inner).__name__} counts no parts of chords")

    def chord_part(self, chord_id: str, index: int | None, outcome: Outcome) -> NoReturn:
        """Refuse: parts are looked for instead."""
        raise ChordsUnsupported(f"{type(self.inner).__name__} counts no parts of chords")

    def end_chord(self, chord_id: str) -> None:
        """Do nothing: nothing was kept."""

    def claim(self, task_id: str, copy: str) -> bool:
        """Return whether no other copy of a task's message has begun, as far as such a store can tell.

        It has nothing that decides between two that begin in the same moment; the second copy of a message is
        sent when the worker that sent the first one has died, and is told.
        """
        key = f"{uuid.uuid5(uuid.NAMESPACE_OID, f'claim {task_id}')}"
        known = self.fetch([key]).get(key)
        if known is None:
            self.store([self.encode(Outcome(id=key, state=_CLAIMED, result=copy))])
        return known is None or bool(known.result == copy)

    def cleanup(self) -> None:
        """Remove expired results."""
        with self._translated("remove expired results"):
            self.inner.cleanup()

    def close(self) -> None:
        """End the thread that stores."""
        self._lane.close()


def _request_of(outcome: Outcome) -> Any:
    """Return what a backend wants to know of the request whose outcome it stores."""
    known = outcome.extended or {}
    args, kwargs = known.get("args"), known.get("kwargs")
    return SimpleNamespace(
        id=outcome.id,
        task=known.get("name"),
        args=args,
        kwargs=kwargs,
        argsrepr=known.get("argsrepr") or (None if args is None else repr(tuple(args))),
        kwargsrepr=known.get("kwargsrepr") or (None if kwargs is None else repr(kwargs)),
        hostname=known.get("worker"),
        retries=known.get("retries"),
        delivery_info={"routing_key": known.get("queue")},
        periodic_task_name=known.get("periodic_task_name"),
        group=outcome.group_id,
        parent_id=outcome.parent_id,
        children=outcome.children or [],
        date_done=outcome.date_done,
    )


def _outcome_of(task_id: str, meta: dict[str, Any]) -> Outcome:
    """Return what a backend knows of a task in our form."""
    date_done: Any = meta.get("date_done")
    return Outcome(
        id=task_id,
        state=meta["status"],
        result=meta.get("result"),
        traceback=meta.get("traceback"),
        children=meta.get("children"),
        date_done=date_done.isoformat() if hasattr(date_done, "isoformat") else date_done,
        group_id=meta.get("group_id"),
        parent_id=meta.get("parent_id"),
        extended={name: meta[name] for name in _EXTENDED if meta.get(name) is not None} or None,
    )
