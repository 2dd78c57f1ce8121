"""A scheduler in a process of its own beside a worker: ``worker -B``."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from typing import Final

from celeriac.app import Celeriac
from celeriac.beat.service import Service, address_of
from celeriac.errors import ConfigError
from celeriac.node.health.address import HttpAddress

__all__ = ["embedded_beat"]

logger: logging.Logger = logging.getLogger("celery.beat")

_LOOK_SECONDS: Final = 1.0  # for whether the worker is still there
_LET_GO_SECONDS: Final = 5.0
_AGAIN_SECONDS: Final = 0.05


@contextlib.contextmanager
def embedded_beat(app: Celeriac, schedule_filename: str | None, scheduler_cls: str | None) -> Iterator[int]:
    """Run a scheduler meanwhile; gives its process id. It ends by itself when this process dies.

    Forks: no loop, thread or connection may have begun in this process.

    Args:
        app: The app, finalized.
        schedule_filename: The file that keeps when entries were sent; the setting's without.
        scheduler_cls: Class or name of the scheduler; the setting's without.

    Raises:
        ConfigError: Nothing can listen at the address of ``beat_http_address``.
    """
    address = address_of(app)
    if address is not None:
        _await_free(address)  # told here, where a person sees it; it is bound for good over there
    parent = os.getpid()
    # Its end is closed when this process becomes another program, as a worker does that begins anew.
    theirs, ours = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(ours)
            service = Service(app, schedule_filename=schedule_filename, scheduler_cls=scheduler_cls)
            _run(service, parent, theirs)
            code = 0
        except BaseException as exc:
            logger.critical("beat: The scheduler beside the worker has ended: %s", exc, exc_info=exc)
        finally:
            os._exit(code)
    os.close(theirs)
    try:
        yield pid
    finally:
        os.close(ours)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)


def _await_free(address: HttpAddress) -> None:
    """Wait for the scheduler of a worker that begins anew to let go of it."""
    until = time.monotonic() + _LET_GO_SECONDS
    while True:
        try:
            address.release(address.bind())
            return
        except ConfigError:
            if time.monotonic() > until:
                raise
            time.sleep(_AGAIN_SECONDS)


def _run(service: Service, parent: int, pipe: int) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, lambda signum, frame: service.stop())
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def watch() -> None:
        # Two ways, as a child of the worker may hold the pipe open that outlives it for a moment.
        while os.getppid() == parent and not select.select([pipe], [], [], _LOOK_SECONDS)[0]:
            pass
        service.stop()

    threading.Thread(target=watch, name="celeriac-beat-watch", daemon=True).start()
    service.start(embedded_process=True)
