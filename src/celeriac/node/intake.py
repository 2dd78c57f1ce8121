"""The intake: what becomes of received messages before they are run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from celeriac.ages import since
from celeriac.bursts import OVER, Bursts
from celeriac.message import Ack, Delivery, Envelope, Lost, Park, Requeue, TaskHeaders
from celeriac.node.admit import Admitted, Dead, Early, Refused, admit, expired
from celeriac.node.burst_desk import BurstDesk
from celeriac.node.dispatch import Dispatcher
from celeriac.node.herald import Herald
from celeriac.node.loans import Loans
from celeriac.node.policy import Policy
from celeriac.node.rates import Rates
from celeriac.node.recent import turn_of
from celeriac.node.reception import Reception
from celeriac.node.refusals import Refusals
from celeriac.node.report import Reporter
from celeriac.node.request import Request
from celeriac.node.timers import Timers
from celeriac.node.turnstiles import Turnstiles
from celeriac.node.work import Ledger, Work
from celeriac.wire.task import RESENT_HEADER

logger: logging.Logger = logging.getLogger("celery.worker.strategy")

MOST_RATED = 1000  # that wait for tokens while as many others are received as ever


class Intake:
    """Takes messages in.

    1. have each one admitted, held until its time, parked, refused, or mourned
    2. enter what is taken into the ledger, say so in the log and to the hooks, and line it up
    3. recognise a message that comes again though its task is under way here or done

    Args:
        reception: What admission rests on.
        ledger: The open work.
        dispatcher: Lines it up.
        reporter: Settles what is not run here.
        refusals: Tell what is refused.
        herald: Tells monitors what is taken.
        turnstiles: Let begin what is limited in the whole fleet.
        loans: Lend what others' code wants.
        bursts: Returns what finds the last of debounced calls; called when it is first needed.
        parks: Whether the broker keeps messages until a time.
        on_release: Called when something that was held here is held no more.
    """

    def __init__(
        self,
        reception: Reception,
        ledger: Ledger,
        dispatcher: Dispatcher,
        reporter: Reporter,
        refusals: Refusals,
        herald: Herald,
        turnstiles: Turnstiles,
        loans: Loans,
        bursts: Callable[[], Bursts],
        *,
        parks: bool,
        on_release: Callable[[], None],
    ) -> None:
        self._reception = reception
        self._ledger = ledger
        self._dispatcher = dispatcher
        self._reporter = reporter
        self._refusals = refusals
        self._herald = herald
        self._turnstiles = turnstiles
        self._loans = loans
        self._parks = parks
        self._on_release = on_release
        self.waited_seconds: dict[str, float] = {}  # by queue: the message that was taken last
        self.timers: Timers = Timers(reception.clock, self._on_due)
        self.rates: Rates = Rates(reception.clock, self._on_token)
        self.bursts: BurstDesk = BurstDesk(bursts, self._on_asked)

    def take(self, deliveries: Sequence[Delivery]) -> None:
        """Take a batch of messages in."""
        now, paused = self._reception.now(), self._reception.paused
        for delivery in deliveries:
            if paused and delivery.queue in paused and not delivery.lost:
                self._reporter.add(None, delivery, Requeue(untouched=True))
                continue
            decision = admit(delivery, self._reception, now)
            if isinstance(decision, Admitted):
                if RESENT_HEADER in delivery.envelope.headers and self._is_second(delivery, decision):
                    continue
                if delivery.redelivered and self._is_known(delivery, decision):
                    continue
                if delivery.uncounted and decision.policy.terms.acks_late:
                    self._note(delivery)
                elif until := self._parked_until(decision):
                    self._reporter.add(None, delivery, Park(until))
                else:
                    self._line_up(self._enter(delivery, decision, now))
            elif isinstance(decision, Refused):
                self._refusals.refuse(delivery, decision)
            elif isinstance(decision, Early):
                self._hold(delivery, decision)
            elif not self._is_known(delivery, decision):
                self._mourn(delivery, decision)
        self._note_wait(deliveries, now)
        self._dispatcher.pump()

    def _parked_until(self, decision: Admitted) -> float | None:
        """Return until when the broker shall keep a task of a limited kind; None: it is taken in."""
        headers, policy = decision.headers, decision.policy
        if self._parks and self._is_rated(policy) and (until := self.rates.parked_until(headers.task)):
            return until
        return self._turnstiles.parked_until(headers, policy)

    def _is_rated(self, policy: Policy) -> bool:
        """Return whether a kind of task begins only so often in this worker."""
        return bool(self._reception.limits_rates and policy.task.rate_limit and not policy.shares_rate)

    def _note_wait(self, deliveries: Sequence[Delivery], now: float) -> None:
        """Remember how long the latest message had waited; one for all of a fetch, which are of one age."""
        if deliveries:
            latest = deliveries[-1]
            begun = since(latest.envelope)
            if begun is not None:
                self.waited_seconds[latest.queue] = max(0.0, now - begun)

    def drop(self, work: Work) -> None:
        """Let go of work that waits here for its time, a token or a permit, if it does."""
        self.timers.drop(work)
        self.bursts.drop(work)
        self.rates.drop(work)
        self._turnstiles.drop(work)

    def held(self) -> int:
        """Return how much waits here and shall not keep others from being received."""
        limited = len(self.rates) + len(self._turnstiles)
        return len(self.timers) + min(limited + self._loans.held(), MOST_RATED)

    def take_back(self) -> list[Work]:
        """Let go of everything that waits here and return it."""
        here = (self.timers, self.bursts, self.rates, self._turnstiles)
        return [work for place in here for work in place.take_back()]

    def still_wanted(self, work: Work) -> bool:
        """Return whether work has not expired while it waited; settle it when it has."""
        refused = expired(work.headers, self._reception.now())
        if refused is None:
            return True
        self._ledger.close(work.number)
        self._refusals.refuse(work.delivery, refused)
        return False

    def _enter(self, delivery: Delivery, decision: Admitted | Early, ready_at: float) -> Work:
        headers = decision.headers
        if delivery.envelope.properties.delivery_tag is None and not delivery.redelivered:
            self._reporter.recent.forget(headers, delivery.envelope)
        if logger.isEnabledFor(logging.INFO):
            facts = {
                "name": headers.shadow or headers.task,
                "id": headers.id,
                "args": headers.argsrepr,
                "kwargs": headers.kwargsrepr,
                "eta": headers.eta,
            }
            logger.info("Task %(name)s[%(id)s] received", facts, extra={"data": facts})
        work = self._ledger.open(delivery, headers, decision.policy)
        work.ready_at = ready_at
        if not self._loans.wants(work):  # its borrower tells, if anybody does
            self._tell_received(work)
        return work

    def _tell_received(self, work: Work) -> None:
        hook = self._reception.hooks.task_received
        if hook.receivers:
            hostname = self._reception.hostname
            hook.send(self, request=Request(work.delivery, work.headers, hostname, work.policy.task))
        if self._herald.on:
            self._herald.received(work)
        witness = self._herald.witness
        if witness is not None and witness.minds(work.policy.task):
            work.witnessed = work.tells = True

    def _is_known(self, delivery: Delivery, decision: Admitted | Dead) -> bool:
        """Return whether a message comes again that is under way here or done: nothing shall run twice.

        The broker had thought that we were gone, or has forgotten our last words in a crash.
        """
        headers, envelope = decision.headers, delivery.envelope
        work = self._work_for(headers, envelope)
        if (
            work is not None
            and work.delivery.envelope.properties.delivery_tag == envelope.properties.delivery_tag
            and self._reporter.replace(work, delivery)
        ):
            return True
        done = self._reporter.recent.verdict_of(headers, envelope)
        if done is None:
            return False
        self._reporter.add(None, delivery, done)
        return True

    def _is_second(self, delivery: Delivery, decision: Admitted) -> bool:
        """Return whether a message was sent twice and its first copy is here; else let the task know.

        Its sender lost the connection before the broker could confirm the first one.
        """
        headers, envelope = decision.headers, delivery.envelope
        work = self._work_for(headers, envelope)
        if delivery.redelivered:
            # Is it the copy under way, come again because it is not ours any more? `_is_known` tells of that.
            second = work is not None and self._reporter.is_ours(work)
        else:
            second = work is not None or self._reporter.recent.has_turn(headers, envelope)
        if second:
            self._reporter.add(None, delivery, Ack())
            return True
        delivery.redelivered = True  # the first copy may be running elsewhere
        return False

    def _work_for(self, headers: TaskHeaders, envelope: Envelope) -> Work | None:
        """Return the work under way for a message, or for another one that was sent for the same call."""
        work = self._ledger.of_task(headers.id)
        if work is None or turn_of(work.headers, work.delivery.envelope) != turn_of(headers, envelope):
            return None
        return work

    def _note(self, delivery: Delivery) -> None:
        """Have the count written into a message before it may take its node down once more.

        Otherwise a task that does so every time would always look like its second delivery, and go round for
        ever. It goes behind those that wait, and comes back counted. What is acknowledged when it begins was
        never begun, so that has nothing to count.
        """
        self._reporter.add(None, delivery, Requeue(untouched=True, noted=True))

    def _hold(self, delivery: Delivery, decision: Early) -> None:
        if decision.at_broker and self._parks:
            self._reporter.add(None, delivery, Park(decision.until))
        else:
            self.timers.hold(self._enter(delivery, decision, decision.until), decision.until)

    def run_after_all(self, work: Work) -> None:
        """Run what was lent, as if it had not been."""
        if self._loans.take_back(work):
            self._tell_received(work)
            self._run(work)
            self._dispatcher.pump()
            self._on_release()

    def _line_up(self, work: Work) -> None:
        if self._loans.wants(work):
            self._loans.lend(work)
        else:
            self._run(work)

    def _run(self, work: Work) -> None:
        if work.headers.burst is None:
            self._admit(work)
        else:
            self.bursts.ask(work)

    def _on_asked(self, work: Work, seconds: float) -> None:
        """Do with a debounced call what was said of it: run it, drop it, or ask again after so long."""
        if seconds == 0:
            self._admit(work)
            self._dispatcher.pump()
            return
        if seconds == OVER:
            logger.info("Task %s[%s] is left to a later call", work.headers.task, work.headers.id)
            self._reporter.hand_back(work, Ack())
            return
        until = self._reception.now() + seconds
        if self._parks:
            self._reporter.hand_back(work, Park(until))
        else:
            self.timers.hold(work, until)

    def _admit(self, work: Work) -> None:
        if self._is_rated(work.policy) and not self.rates.may_begin(work):
            return
        self._pass(work)

    def _pass(self, work: Work) -> None:
        if self._turnstiles.may_begin(work):
            self._dispatcher.add(work)

    def _on_due(self, work: Work) -> None:
        self._line_up(work)
        self._dispatcher.pump()
        self._on_release()

    def _on_token(self, work: Work) -> None:
        self._pass(work)
        self._dispatcher.pump()
        self._on_release()

    def _mourn(self, delivery: Delivery, decision: Dead) -> None:
        work = self._ledger.open(delivery, decision.headers, decision.policy)
        lost = Lost(number=work.number, started=True, reason=decision.letter.reason)
        self._reporter.mourn(work, lost, decision.letter)
