"""Obituaries that no child can write any more, written by the node itself as the last thing that it does."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Sequence

from celeriac.app import Celeriac
from celeriac.execute.executor import Executor
from celeriac.message import Finished
from celeriac.node.report import Reporter
from celeriac.node.work import Work

logger: logging.Logger = logging.getLogger("celery.worker.request")


async def write_obituaries(app: Celeriac, hostname: str, reporter: Reporter) -> None:
    """Do what follows from the loss of work that died with the pool, such as telling a chord; settle it.

    The node reads these messages' bodies itself, for it is about to end anyway; in a thread, which does not
    keep it from ending. Work that it does not get to stays with the broker as it is.

    Args:
        app: The app.
        hostname: The node's name.
        reporter: Knows what is unmourned, and settles it.
    """
    works = reporter.unmourned()
    if not works:
        return
    loop, news = asyncio.get_running_loop(), asyncio.Queue[tuple[Work, Finished]]()

    def write(works: Sequence[Work]) -> None:
        executor = Executor(app, hostname)
        for work in works:
            finished = executor.run(work.job(hostname), None)
            loop.call_soon_threadsafe(news.put_nowait, (work, finished))

    threading.Thread(target=write, args=(works,), name="celeriac-last-words", daemon=True).start()
    for _ in works:
        work, finished = await news.get()
        reporter.mourned(work, finished.record)
