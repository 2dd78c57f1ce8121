"""Children that begin as a program of their own instead of as a copy of the worker.

For what does not survive a fork, such as threads that were started or devices that were opened while modules
were loaded. The same command line is run again for each child, so that it loads the same app with the same
settings and logs; where it would become a worker it finds an invitation and becomes a child.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import NoReturn

import msgspec

from celeriac.pools.base import PoolOptions, Runner
from celeriac.pools.prefork.board import Board
from celeriac.pools.prefork.child import child_main
from celeriac.pools.prefork.forker import ChildMain, name_process, quietly_end

VARIABLE = "CELERIAC_CHILD"  # in the environment


class Invitation(msgspec.Struct, frozen=True):
    """What a new program has to know to be a child."""

    slot: int
    slots: int
    name: str
    board: int  # descriptor
    far: int  # descriptor of its end of the inbox


def invitation() -> Invitation | None:
    """Return the invitation of this process, if any; only once, for programs of tasks are no children."""
    text = os.environ.pop(VARIABLE, None)
    return None if text is None else msgspec.json.decode(text, type=Invitation)


def spawn_main(board: Board, program: Sequence[str]) -> ChildMain:
    """Return what the forker runs in a new process, which becomes another program by it.

    Args:
        board: To be shared; it has a descriptor.
        program: The command line, with the interpreter.
    """

    def main(slot: int, name: str, far: socket.socket) -> int:
        assert board.descriptor is not None
        invited = Invitation(slot, board.slots, name, board.descriptor, far.fileno())
        for descriptor in (invited.board, invited.far):
            os.set_inheritable(descriptor, True)
        environment = {**os.environ, VARIABLE: msgspec.json.encode(invited).decode()}
        os.execve(program[0], list(program), environment)  # noqa: S606 - our own command line

    return main


def serve(invited: Invitation, runner: Runner, options: PoolOptions) -> NoReturn:
    """Be a child until told to stop; the process ends with it.

    Args:
        invited: Whose child.
        runner: Runs its jobs.
        options: The pool's.
    """

    def run() -> int:
        for descriptor in (invited.board, invited.far):
            os.set_inheritable(descriptor, False)  # not for the programs of tasks
        name_process(invited.name)
        board, far = Board(invited.slots, invited.board), socket.socket(fileno=invited.far)
        return child_main(board, lambda: runner, options)(invited.slot, invited.name, far)

    quietly_end(run)
