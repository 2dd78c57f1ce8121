"""Commands that revoke and end tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Final

from celeriac.control.panel import ControlCommand
from celeriac.control.state import State, ok
from celeriac.errors import BackendError, TaskRevokedError
from celeriac.message import Outcome
from celeriac.node.revoked import Revoked
from celeriac.revocations import Revocation, of_stamps, of_tasks
from celeriac.signum import signal_name, signal_number
from celeriac.states import REVOKED
from celeriac.wire.control import stamps_in


async def revoke(
    state: State,
    task_id: Iterable[str] | str,
    terminate: bool = False,
    signal: str | int | None = None,
    **kwargs: Any,
) -> Any:
    """Have tasks ignored; with ``terminate``, end those that run."""
    ids = [task_id] if isinstance(task_id, str) else [str(each) for each in task_id]
    ends_by = signal_name(signal) if terminate else ""
    signum = signal_number(ends_by) if ends_by else None
    wanted = set(ids)
    these = of_tasks(ids, ends_by)
    state.node.revoked.add(these)
    ended = state.node.revoker.revoke(lambda headers: headers.id in wanted, signum)
    await _note(state, these)
    await _store(state, ids, ended)
    if not terminate:
        return ok(f"tasks {wanted} flagged as revoked")
    return ok(f"terminate: {', '.join(ended)}" if ended else "terminate: tasks unknown")


async def terminate(state: State, signal: str | int, task_id: Iterable[str] | str, **kwargs: Any) -> Any:
    """End tasks that run, by a signal."""
    return await revoke(state, task_id, terminate=True, signal=signal)


async def revoke_by_stamped_headers(
    state: State,
    headers: Mapping[str, Any] | Iterable[str],
    terminate: bool = False,
    signal: str | int | None = None,
    **kwargs: Any,
) -> Any:
    """Have tasks with one of these stamps ignored; with ``terminate``, end those that run."""
    stamps = stamps_in(headers)
    ends_by = signal_name(signal) if terminate else ""
    signum = signal_number(ends_by) if ends_by else None
    those, these = of_stamps(stamps, ends_by), Revoked()
    these.add(those)
    state.node.revoked.add(those)
    ended = state.node.revoker.revoke(these.covers, signum)
    await _note(state, those)
    await _store(state, (), ended)
    if not terminate:
        return ok(f"headers {stamps} flagged as revoked, but not terminated")
    return ok(f"headers {stamps} revoked" if ended else f"headers {stamps} were not terminated")


async def _note(state: State, revoked: list[Revocation]) -> None:
    """Have the broker remember what a client has only broadcast, to all workers."""
    command, reminder = state.command, state.node.reminder
    if reminder is not None and command is not None and command.for_all and not command.noted:
        await reminder.note(revoked)


async def _store(state: State, ids: Iterable[str], ended: list[str]) -> None:
    """Tell those who wait for the tasks, as every worker does that hears of it; a result stays."""
    backend = state.app.backend
    if backend is None:
        return
    told = dict.fromkeys(ids, "revoked") | dict.fromkeys(ended, "terminated")
    records = [
        backend.encode(
            Outcome(
                id=task_id,
                state=REVOKED,
                result=TaskRevokedError(reason),
                date_done=state.app.now().isoformat(),
            )
        )
        for task_id, reason in told.items()
    ]
    if not records:
        return
    try:
        async with asyncio.timeout(5.0):
            await backend.astore(records)
    except (BackendError, TimeoutError) as exc:
        raise RuntimeError(f"The tasks are revoked, but the result store was not told: {exc}") from exc


def _steers(name: str, run: Any, **more: Any) -> ControlCommand:
    text = (run.__doc__ or "").strip()
    return ControlCommand(name=name, run=run, kind="control", help=text, **more)


COMMANDS: Final = (
    _steers("revoke", revoke, variadic="task_id", signature="[id1 [id2 [... [idN]]]]"),
    _steers(
        "terminate",
        terminate,
        variadic="task_id",
        args=(("signal", str),),
        signature="<signal> [id1 [id2 [... [idN]]]]",
    ),
    _steers(
        "revoke_by_stamped_headers",
        revoke_by_stamped_headers,
        variadic="headers",
        signature="[key1=value1 [key2=value2 [... [keyN=valueN]]]]",
    ),
)
