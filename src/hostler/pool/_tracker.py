"""Counts what happens to calls while they are placed."""

from __future__ import annotations

import attrs
import structlog

from .._concurrency.nurseries import is_cancellation, is_timeout
from .._spans import Span, error_text
from ..abc import NotPlaced, Outcome, Placed, Runner
from ..errors import HostlerError, ReservationAbandoned, ServerBusy, ServiceReservationFailure
from ..metrics import LBMetrics
from ._loads import LoadBook
from ._room import Line
from ._search import Search
from ._warm_index import Need

log = structlog.get_logger(__name__)

MAX_TROUBLED = 1024
"""Runners that can't be reached and were told of; with more, some are told of once again."""


class AttemptTimedOut(HostlerError):
    """A runner did not take the call in time."""


@attrs.define(eq=False)
class TrackedAttempt:
    """One attempt, as it is counted. ``warm``: the runner is believed to have an idle container
    for the call."""

    search: Search
    runner: Runner
    address: str
    warm: bool
    began: float
    span: Span | None
    metrics: LBMetrics
    line: Line | None
    """Where it is counted among those ahead (`hostler.pool._ahead`)."""
    outcome: Outcome | None = None
    """Of its end; ``None`` = it was cancelled, or gave its slot back."""
    asked: bool = False
    """The runner was asked for a reservation."""
    hedge: bool = False
    """The runner is the second that was asked, because the first took long."""
    committed: bool = False

    def commit(self) -> None:
        """Its runner may run the call from now on."""
        self.search.committed = self
        self.search.has_container()
        self.committed = True
        if self.asked:
            self.metrics.reservations_committed.inc()
        if self.hedge:
            self.metrics.hedges_won.inc()


class AttemptTracker:
    """Counts for all placements of a placer, and keeps ``loads``."""

    def __init__(self, metrics: LBMetrics, loads: LoadBook) -> None:
        self._metrics = metrics
        self._loads = loads
        self._troubled: set[str] = set()
        """Addresses of runners that can't be reached: each is logged once, not for each call."""

    def run_seconds(self, need: Need) -> float:
        """The mean time that such a call runs; 0 = not known."""
        return self._loads.policies.run_seconds(need)

    def ended(self, search: Search, error: BaseException | None, now: float) -> None:
        """Count how a search has ended."""
        if error is not None:
            self._failed(search, error, now)
        until = now if search.committed is None else search.attempt_at
        seconds = until - search.arrived
        self._metrics.observe_placement(search.call.attempts, round(seconds * 1e9))
        # An attempt has its search: the two would stay, with their call, until the collector comes.
        search.committed = None

    def _failed(self, search: Search, error: BaseException, now: float) -> None:
        if isinstance(error, ServiceReservationFailure):  # the runner has kept the deadline
            self._metrics.placer_client_timeout.inc()
            return
        if not is_cancellation(error):
            return
        if search.committed is not None:
            self._metrics.placer_placed_abort.inc()
            # Its runner may not have said so yet, and a call that nobody had is tried again.
            search.call.runner_address = search.committed.address
        else:  # whoever had got it has refused it
            search.call.runner_address = ""
        if is_timeout(error) or now >= search.call.deadline:
            self._metrics.placer_client_timeout.inc()
        else:
            self._metrics.placer_client_cancelled.inc()

    def begin(
        self, search: Search, runner: Runner, now: float, *, counted: bool = False
    ) -> TrackedAttempt:
        """Count an attempt, until `over`, and in the line's `Ahead` unless that has ``counted`` it.
        `end` tells its outcome; without that it counts as cancelled. Several may run at the same
        time, of which one is committed at most."""
        address, call, need = runner.address, search.call, search.need
        call.attempts += 1
        search.attempt_at = now
        warm = self._loads.begin(address, need, now)
        span = call.span and call.span.child("engage", {"fn.runner": address}, kind="client")
        line = None if counted else search.line
        if line is not None:
            line.ahead.begin(address)
        return TrackedAttempt(search, runner, address, warm, now, span, self._metrics, line)

    def over(self, attempt: TrackedAttempt, now: float) -> None:
        """Nothing of it is left."""
        search, loads, outcome = attempt.search, self._loads, attempt.outcome
        search.left_at = now
        if isinstance(outcome, Placed) and outcome.error is None:
            loads.policies.ran(search.need, search.call.timings, attempt.began, now)
        loads.end(attempt.address, search.need, outcome, now)
        if attempt.span is not None:
            _end_span(attempt.span, outcome)
        if attempt.asked and attempt is not search.committed and _given_up(outcome):
            self._metrics.reservations_abandoned.inc()

    def asked(self, attempt: TrackedAttempt) -> None:
        """Its runner has been asked for a reservation."""
        attempt.asked = True
        self._metrics.reservations.inc()

    def hedged(self) -> None:
        """A second runner is asked as well."""
        self._metrics.hedges.inc()

    def end(self, attempt: TrackedAttempt, outcome: Outcome) -> None:
        """An attempt has ended, not by cancellation."""
        if isinstance(outcome, NotPlaced) and isinstance(outcome.reason, ReservationAbandoned):
            return
        address, search = attempt.address, attempt.search
        attempt.outcome = outcome
        if isinstance(outcome, Placed):
            search.committed = attempt
            if outcome.error is None:
                self._metrics.placer_placed_ok.value += 1
            else:
                self._count_failed(outcome.error)
        else:
            if search.committed is attempt:
                search.committed = None
            if not isinstance(outcome.reason, ServerBusy):
                self._unreachable(address, outcome.reason)
                return
            self._metrics.placer_retry_busy.inc()
        if address in self._troubled:
            self._troubled.discard(address)
            log.info("runner is back", runner=address)

    def _count_failed(self, error: Exception) -> None:
        metrics = self._metrics
        if isinstance(error, ServiceReservationFailure):
            metrics.placer_placed_abort.inc()
        else:
            metrics.placer_placed_error.inc()

    def _unreachable(self, address: str, reason: Exception) -> None:
        self._metrics.placer_retry_error.inc()
        if address not in self._troubled:
            if len(self._troubled) >= MAX_TROUBLED:  # most have left for good, under a name's TTL
                self._troubled.clear()
            self._troubled.add(address)
            cause = reason.__cause__
            log.warning("runner can't be reached", runner=address, reason=str(cause or reason))

    def pool_empty(self) -> None:
        """A sweep found no runners."""
        self._metrics.placer_pool_empty.inc()

    def pool_failed(self) -> None:
        """The placement ends with the pool's error."""
        self._metrics.placer_pool_error.inc()

    def turned_away(self) -> None:
        """The call may not wait."""
        self._metrics.placer_turned_away.inc()

    def timed_out(self, *, by_request: bool = False) -> None:
        """The placer's time is over, or that of the request, without a runner for the call."""
        metrics = self._metrics
        (metrics.placer_client_timeout if by_request else metrics.placer_timeout).inc()


def _end_span(span: Span, outcome: Outcome | None) -> None:
    if isinstance(outcome, Placed):
        span.end("" if outcome.error is None else error_text(outcome.error))
        return
    # That one runner refuses is no error of the call.
    reason = "abandoned" if outcome is None else str(outcome.reason)
    span.note({"fn.refused": reason})
    span.end()


def _given_up(outcome: Outcome | None) -> bool:
    """Whether an uncommitted reservation ended by our own doing."""
    return outcome is None or (
        isinstance(outcome, NotPlaced) and isinstance(outcome.reason, AttemptTimedOut)
    )
