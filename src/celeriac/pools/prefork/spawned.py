"""Children that begin as a program of their own instead of as a copy of the worker.

For what does not survive a fork, such as threads that were started or devices that were opened while modules
were loaded. The same command line is run again for each child, so that it loads the same app with the same
settings and logs; where it would become a worker it finds an invitation and becomes a child.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from typing import NoReturn

import msgspec

from celeriac.pools.base import PoolOptions, Runner
from celeriac.pools.prefork.board import Board
from celeriac.pools.prefork.child import child_main
from celeriac.pools.prefork.forker import ChildMain, name_process, quietly_end

VARIABLE = "CELERIAC_CHILD"  # in the environment


class Invitation(msgspec.Struct, frozen=True):
    """What a new program has to know to be a child."""

    pool: str
    slot: int
    name: str
    far: int  # descriptor of its end of the socket
    slots: int = 0  # of the board
    board: int | None = None  # its descriptor, where the pool has one


def invitation() -> Invitation | None:
    """Return the invitation of this process, if any; only once, for programs of tasks are no children."""
    text = os.environ.pop(VARIABLE, None)
    return None if text is None else msgspec.json.decode(text, type=Invitation)


def spawn_main(board: Board | None, program: Sequence[str], pool: str) -> ChildMain:
    """Return what the forker runs in a new process, which becomes another program by it.

    Args:
        board: To be shared, if any; it has a descriptor.
        program: The command line, with the interpreter.
        pool: Whose process it is.
    """

    def main(slot: int, name: str, far: socket.socket) -> int:
        invited = Invitation(pool, slot, name, far.fileno())
        if board is not None:
            invited = msgspec.structs.replace(invited, slots=board.slots, board=board.descriptor)
        for descriptor in _descriptors(invited):
            os.set_inheritable(descriptor, True)
        environment = {**os.environ, VARIABLE: msgspec.json.encode(invited).decode()}
        os.execve(program[0], list(program), environment)  # noqa: S606 - our own command line

    return main


def serve(invited: Invitation, main: ChildMain) -> NoReturn:
    """Be a process of a pool until told to stop; the process ends with it.

    Args:
        invited: Whose.
        main: What it does.
    """

    def run() -> int:
        for descriptor in _descriptors(invited):
            os.set_inheritable(descriptor, False)  # not for the programs of tasks
        name_process(invited.name)
        return main(invited.slot, invited.name, socket.socket(fileno=invited.far))

    quietly_end(run)


def main_in(invited: Invitation, make_runner: Callable[[], Runner], options: PoolOptions) -> ChildMain:
    """Return what a child of the prefork pool does."""
    return child_main(Board(invited.slots, invited.board), make_runner, options)


def _descriptors(invited: Invitation) -> list[int]:
    return [fd for fd in (invited.board, invited.far) if fd is not None]
