"""Messages that are not run: told in the log, to the hooks, and to the task's caller."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any, Literal

from celeriac.context import Context
from celeriac.message import Delivery, Lost, TaskHeaders
from celeriac.node.admit import Refused
from celeriac.node.herald import Herald
from celeriac.node.policy import Policy
from celeriac.node.reception import Reception
from celeriac.node.report import Reporter
from celeriac.node.request import delivery_info
from celeriac.node.results import Results
from celeriac.node.work import Ledger, Work, lock_of
from celeriac.wire.task import is_alone

logger: logging.Logger = logging.getLogger("celery.worker.consumer.consumer")
request_logger: logging.Logger = logging.getLogger("celery.worker.request")

_SHOWN_BYTES = 1024

_UNREGISTERED = """\
Received unregistered task of type %r.
Its message is kept as a dead letter, and its caller gets NotRegistered.

Has the module that declares it been imported here? See the settings `include` and `imports`,
`app.autodiscover_tasks()`, and whether the app has the same name as where the task was sent from.

The message body: %s
The message headers: %r
The delivery info: %r
"""


class Refusals:
    """Tells what is refused, once, and settles it or has it mourned.

    Args:
        reception: Hooks and the node's name.
        results: Encodes what the caller is told.
        ledger: The open work.
        reporter: Stores and settles.
        herald: Tells monitors.
    """

    def __init__(
        self, reception: Reception, results: Results, ledger: Ledger, reporter: Reporter, herald: Herald
    ) -> None:
        self._reception = reception
        self._results = results
        self._ledger = ledger
        self._reporter = reporter
        self._herald = herald
        self.counts: Counter[str] = Counter()  # by the reason

    def refuse(self, delivery: Delivery, refused: Refused) -> None:
        """Tell of a refusal and settle the delivery."""
        self.counts[refused.why] += 1
        if refused.why == "unregistered":
            self._tell_unregistered(delivery, refused)
        elif refused.why in ("expired", "revoked"):
            self._tell_revoked(delivery, refused)
        else:
            self._tell_invalid(delivery, refused)
        if refused.headers is not None and not is_alone(delivery.envelope) and refused.why != "too large":
            self._mourn(delivery, refused, refused.headers)
            return
        record, lock = None, None
        if refused.headers is not None:
            policy = self._reception.policy(refused.headers.task)
            lock = lock_of(refused.headers, policy)
            if refused.state is not None:
                record = self._results.record(
                    delivery.envelope, refused.headers, refused.state, refused.error, policy
                )
        self._reporter.add(record, delivery, refused.verdict, lock)

    def _mourn(self, delivery: Delivery, refused: Refused, headers: TaskHeaders) -> None:
        """Have a child do what follows, such as telling a chord: only that reads the message's body."""
        policies = self._reception.policies
        work = self._ledger.open(delivery, headers, policies.get(headers.task) or policies.of_unregistered())
        kind: Literal["expired", "invalid", "revoked"] = "invalid"
        if refused.why == "expired" or refused.why == "revoked":
            kind = refused.why
        lost = Lost(number=work.number, started=False, reason=str(refused.error), refused=kind)
        self._reporter.mourn(work, lost, refused.verdict)

    def _tell_unregistered(self, delivery: Delivery, refused: Refused) -> None:
        headers = refused.headers
        assert headers is not None
        logger.error(
            _UNREGISTERED,
            headers.task,
            _shown(delivery.envelope.body),
            delivery.envelope.headers,
            {"exchange": delivery.exchange, "routing_key": delivery.routing_key, "queue": delivery.queue},
            exc_info=KeyError(headers.task),  # the line below the text, which people and their tools know
        )
        self._reception.hooks.task_unknown.send(
            self, message=delivery, exc=refused.error, name=headers.task, id=headers.id
        )
        self._herald.unknown(headers)

    def tell_terminated(self, work: Work, signum: int) -> None:
        """Tell the hooks of work that somebody has ended while it ran."""
        self._tell_of_end(work.delivery, work.policy, terminated=True, signum=signum, expired=False)
        self._herald.terminated(work, signum)

    def _tell_revoked(self, delivery: Delivery, refused: Refused) -> None:
        headers = refused.headers
        assert headers is not None
        facts = {"name": headers.shadow or headers.task, "id": headers.id}
        request_logger.info("Discarding revoked task: %(name)s[%(id)s]", facts, extra={"data": facts})
        policy = self._reception.policies.get(headers.task)
        expired = refused.why == "expired"
        self._tell_of_end(delivery, policy, terminated=False, signum=None, expired=expired)
        if policy is not None:
            self._herald.revoked(headers, policy, expired=expired)

    def _tell_of_end(
        self, delivery: Delivery, policy: Policy | None, **facts: Any
    ) -> None:  # Any: the signal's arguments
        """Send ``task_revoked`` as Celery does: from the task, with the context that it would have run in."""
        signal = self._reception.hooks.task_revoked
        if not signal.receivers:
            return
        envelope = delivery.envelope
        request = Context(
            envelope.headers,
            hostname=self._reception.hostname,
            called_directly=False,
            reply_to=envelope.properties.reply_to,
            correlation_id=envelope.properties.correlation_id,
            delivery_info=delivery_info(delivery),
        )
        signal.send(None if policy is None else policy.task, request=request, **facts)

    def _tell_invalid(self, delivery: Delivery, refused: Refused) -> None:
        envelope = delivery.envelope
        logger.error(
            "Message %s from queue %r cannot be taken: %s; it is kept as a dead letter. Body: %s",
            _id_of(envelope.headers, envelope.properties.correlation_id),
            delivery.queue,
            refused.error,
            _shown(envelope.body),
        )
        self._reception.hooks.task_rejected.send(self, message=delivery, exc=refused.error)


def _id_of(headers: dict[str, Any], correlation_id: str | None) -> str:  # Any: header values
    text = str(headers.get("id") or correlation_id or "without an id")
    return text.encode("utf-8", "backslashreplace").decode()  # no log file takes half a character


def _shown(body: bytes) -> str:
    more = f" ({len(body)} bytes)" if len(body) > _SHOWN_BYTES else ""
    return f"{body[:_SHOWN_BYTES]!r}{more}"
