"""Messages that a strategy has instead of the worker running them."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from celeriac.codecs.compress import decompress
from celeriac.message import Ack, Reject, Requeue, Verdict
from celeriac.node.work import Work
from celery.worker.request import Message

# Any in this module: bodies of messages, and loggers and errors that nobody looks at

__all__ = ("LentMessage",)


class LentMessage(Message):
    """A message that somebody has to settle, once.

    Args:
        work: What the node has lent.
        app: Its codecs and what it accepts.
        settle: Called with what becomes of it.
        run: Called when the node is to run it after all.
        let_go: Called when nobody has the message any more, and nobody has settled it.
    """

    def __init__(
        self,
        work: Work,
        app: Any,
        settle: Callable[[Work, Verdict], None],
        run: Callable[[Work], None],
        let_go: Callable[[Work], None],
    ) -> None:
        super().__init__(work.delivery)
        self._work = work
        self._app = app
        self._settle = settle
        self._run = run
        self._payload: Any = None
        self.acknowledged: bool = False  # or refused: that is, settled
        self._alive = weakref.finalize(self, let_go, work)
        self._alive.atexit = False

    @property
    def payload(self) -> Any:
        """The body, decoded."""
        if self._payload is None:
            self._payload = self.decode()
        return self._payload

    def decode(self) -> Any:
        """Return the body, decoded.

        Raises:
            DecodeError: It cannot be read, or its kind is not accepted here.
        """
        codecs, conf, body = self._app.codecs, self._app.conf, self.body
        if compression := self.headers.get("compression"):
            body = decompress(compression, body, max_bytes=conf.worker_max_message_bytes)
        accept = codecs.accept_set(conf.accept_content)
        return codecs.decode(body, self.content_type, self.content_encoding, accept)

    def ack(self, multiple: bool = False) -> None:
        """Say that it is done; of later calls none has an effect, here and below."""
        self._end(Ack())

    def reject(self, requeue: bool = False) -> None:
        """Refuse it, or put it back into its queue."""
        self._end(Requeue() if requeue else Reject())

    def requeue(self) -> None:
        """Put it back into its queue."""
        self._end(Requeue())

    def ack_log_error(self, logger: Any = None, errors: Any = None, multiple: bool = False) -> None:
        """Say that it is done."""
        self.ack()

    def reject_log_error(self, logger: Any = None, errors: Any = None, requeue: bool = False) -> None:
        """Refuse it, or put it back into its queue."""
        self.reject(requeue)

    def run(self) -> None:
        """Have the worker run it, as without a strategy."""
        if not self.acknowledged:
            self.acknowledged = True
            self._alive.detach()
            self._run(self._work)

    def settle(self, decided: Verdict) -> None:
        """Say what becomes of it."""
        self._end(decided)

    def _end(self, decided: Verdict) -> None:
        if not self.acknowledged:
            self.acknowledged = True
            self._alive.detach()
            self._settle(self._work, decided)
