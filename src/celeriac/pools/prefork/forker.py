"""The forker: a small process with one thread that makes the children, buries them and kills them.

It is forked when the app is loaded and before there is any loop, thread or connection. So the children share
the app's memory and inherit nothing that would have to be mended after a fork.

::

    node ── (fork, slot, name) + socket ──▶ forker ── fork ──▶ child
    node ── (kill, slot, pid, signal) ────▶ forker
    node ◀── (forked, slot, pid) ───────── forker
    node ◀── (died, slot, pid, status) ─── forker

When the node dies, the forker reads the end of its socket, kills its children and ends; each child also asks
the kernel to be killed with the forker.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import NoReturn

import msgspec

from celeriac.errors import CeleriacError
from celeriac.pools import heap
from celeriac.pools.base import exit_code

_PR_SET_PDEATHSIG = 1
_FD_SPACE = socket.CMSG_SPACE(4)
_MESSAGE_BYTES = 4096


class ForkerGone(CeleriacError):
    """Raised when the forker has died: the pool cannot make or bury children any more."""


class Fork(msgspec.Struct, array_like=True, tag="fork"):
    """Make a child for a slot; its socket comes along."""

    slot: int
    name: str


class Kill(msgspec.Struct, array_like=True, tag="kill"):
    """Signal a child, if it still is that slot's."""

    slot: int
    pid: int
    signal: int


class Forked(msgspec.Struct, array_like=True, tag="forked"):
    """A child was made; pid 0: the system would not, and ``error`` says why."""

    slot: int
    pid: int
    error: str = ""


class Died(msgspec.Struct, array_like=True, tag="died"):
    """A child has ended and was reaped."""

    slot: int
    pid: int
    status: int  # negative: the signal that killed it


_Request = Fork | Kill
Notice = Forked | Died
_encode = msgspec.msgpack.Encoder().encode
_decode_request: msgspec.msgpack.Decoder[_Request] = msgspec.msgpack.Decoder(_Request)
_decode_notice: msgspec.msgpack.Decoder[Notice] = msgspec.msgpack.Decoder(Notice)

ChildMain = Callable[[int, str, socket.socket], int]  # (slot, name, its end of the inbox) -> exit code


class Forker:
    """The node's handle on the forker.

    Args:
        child_main: Runs in each new child, whose exit code it returns.
    """

    def __init__(self, child_main: ChildMain) -> None:
        self._child_main = child_main
        self._control: socket.socket | None = None
        self.pid: int = 0

    def launch(self) -> None:
        """Fork the forker. Call it before there are threads, loops and connections."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sys.stdout.flush()  # what is buffered now would be written by every child too
        sys.stderr.flush()
        # Collected now and never looked at again: the collector would copy every shared page it marks.
        gc.collect()
        heap.trim()
        gc.freeze()
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            quietly_end(lambda: _Service(parent, theirs, ours, self._child_main).run())
        gc.unfreeze()
        theirs.close()
        ours.setblocking(False)
        self._control = ours

    def fileno(self) -> int:
        """Return the descriptor to watch for notices."""
        return self._socket().fileno()

    def fork(self, slot: int, name: str, far: socket.socket) -> None:
        """Ask for a child; `Forked` answers.

        Raises:
            ForkerGone: The forker has died.
        """
        try:
            socket.send_fds(self._socket(), [_encode(Fork(slot, name))], [far.fileno()])
        except OSError as exc:
            raise ForkerGone("The process that forks the pool's children is gone.") from exc

    def kill(self, slot: int, pid: int, signum: int) -> None:
        """Ask for a child to be signalled; nothing happens when it is dead by then."""
        with suppress(OSError):  # the forker's death has killed it already
            self._socket().send(_encode(Kill(slot, pid, signum)))

    def notices(self) -> list[Notice]:
        """Return what the forker has said since.

        Raises:
            ForkerGone: The forker has died.
        """
        found: list[Notice] = []
        while True:
            try:
                data = self._socket().recv(_MESSAGE_BYTES)
            except BlockingIOError:
                return found
            except OSError:
                data = b""
            if not data:
                if found:
                    return found
                raise ForkerGone("The process that forks the pool's children is gone.")
            found.append(_decode_notice.decode(data))

    def close(self) -> None:
        """End the forker, and with it whatever children are left; tolerates being called twice."""
        if self._control is not None:
            self._control.close()
            self._control = None
            with suppress(ChildProcessError):  # somebody who ignores SIGCHLD has no zombies to reap
                os.waitpid(self.pid, 0)

    def _socket(self) -> socket.socket:
        if self._control is None:
            raise ForkerGone("The process that forks the pool's children was never started or is closed.")
        return self._control


class _Service:
    """What runs in the forker's process."""

    def __init__(
        self, parent: int, control: socket.socket, other_end: socket.socket, child_main: ChildMain
    ) -> None:
        other_end.close()
        self._parent = parent
        self._control = control
        self._child_main = child_main
        self._children: dict[int, int] = {}  # pid -> slot
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def run(self) -> int:
        _die_with(self._parent)
        name_process("celeriac-forker")
        for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(ignored, signal.SIG_IGN)  # sent to the group, they are the node's to handle
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll()}
            if self._wake_read in ready:
                with suppress(BlockingIOError):
                    os.read(self._wake_read, 4096)
                self._bury()
            if self._control.fileno() in ready and not self._obey():
                self._kill_all()
                return 0

    def _obey(self) -> bool:
        data, ancillary, _, _ = self._control.recvmsg(_MESSAGE_BYTES, _FD_SPACE)
        if not data:
            return False
        request = _decode_request.decode(data)
        match request:
            case Fork():
                (fd,) = memoryview(ancillary[0][2]).cast("i")
                os.set_inheritable(fd, False)  # what arrives this way would reach the programs of tasks
                self._fork(request, socket.socket(fileno=fd))
            case Kill():
                if self._children.get(request.pid) == request.slot:
                    os.kill(request.pid, request.signal)
        return True

    def _fork(self, request: Fork, far: socket.socket) -> None:
        forker = os.getpid()
        try:
            pid = os.fork()
        except OSError as exc:
            self._tell(Forked(request.slot, 0, str(exc)))
            far.close()
            return
        if pid == 0:
            quietly_end(lambda: self._become_child(forker, request, far))
        far.close()
        self._children[pid] = request.slot
        self._tell(Forked(request.slot, pid))

    def _become_child(self, forker: int, request: Fork, far: socket.socket) -> int:
        _die_with(forker)
        name_process(request.name)
        signal.set_wakeup_fd(-1)
        for handled in (
            signal.SIGTERM,
            signal.SIGQUIT,
            signal.SIGHUP,
            signal.SIGTTIN,
            signal.SIGTTOU,
            signal.SIGCHLD,
        ):
            signal.signal(handled, signal.SIG_DFL)
        self._control.close()
        os.close(self._wake_read)
        os.close(self._wake_write)
        return self._child_main(request.slot, request.name, far)

    def _bury(self) -> None:
        for pid, slot in list(self._children.items()):
            reaped, status = os.waitpid(pid, os.WNOHANG)
            if reaped:
                del self._children[pid]
                self._tell(Died(slot, pid, os.waitstatus_to_exitcode(status)))

    def _tell(self, notice: Notice) -> None:
        with suppress(BrokenPipeError):  # the node is gone; the next read says so
            self._control.send(_encode(notice))

    def _kill_all(self) -> None:
        for pid in self._children:
            os.kill(pid, signal.SIGKILL)
        for pid in self._children:
            os.waitpid(pid, 0)


def await_ends(pids: Iterable[int], seconds: float) -> None:
    """Wait until processes that are being killed have ended; not for those that never end.

    Args:
        pids: The processes; they need not be children of this one.
        seconds: How long to wait at most.
    """
    poll, alive, end = select.poll(), set[int](), time.monotonic() + seconds
    for pid in pids:
        with suppress(OSError):  # it has ended
            alive.add(os.pidfd_open(pid))
    for fd in alive:
        poll.register(fd, select.POLLIN)
    running = set(alive)
    while running and (left := end - time.monotonic()) > 0:
        for fd, _ in poll.poll(left * 1000):
            poll.unregister(fd)
            running.discard(fd)
    for fd in alive:
        os.close(fd)


def quietly_end(run: Callable[[], int]) -> NoReturn:
    """Run a forked process to its end; it must never return into the frames of its parent."""
    code = 1
    try:
        code = run()
    except SystemExit as exc:
        code = exit_code(exc)
    except BaseException:  # noqa: BLE001 - the last wall of a process
        traceback.print_exc()
    finally:
        with suppress(Exception):
            logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()
        os._exit(code)


def _die_with(parent: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)  # it died before we could ask to be told


def name_process(name: str) -> None:
    """Let ``ps`` and the like show a name for this process."""
    with suppress(OSError), open("/proc/self/comm", "w") as comm:
        comm.write(name[:15])
