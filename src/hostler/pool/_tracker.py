"""Counts what happens to one call while it is placed."""

from __future__ import annotations

import math

import attrs
import structlog
import trio

from .._groups import is_cancellation, is_timeout
from .._spans import Span, error_text
from ..abc import NotPlaced, Outcome, Placed, Runner, RunnerCall
from ..errors import HostlerError, ReservationAbandoned, ServerBusy, ServiceReservationFailure
from ..metrics import LBMetrics
from ._loads import LoadBook
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

    runner: Runner
    address: str
    warm: bool
    began: float
    number: int
    """Among all of its kind, see `hostler.pool._run_times`."""
    span: Span | None
    outcome: Outcome | None = None
    """Of its end; ``None`` = it was cancelled, or gave its slot back."""
    asked: bool = False
    """The runner was asked for a reservation."""
    committed: bool = False


class AttemptTracker:
    """One per placement, which also keeps ``loads``.

    ``troubled`` are the addresses of runners that can't be reached, known to all placements of a
    placer, so that each is logged once and not for each call.
    """

    def __init__(
        self,
        call: RunnerCall,
        need: Need,
        metrics: LBMetrics,
        loads: LoadBook,
        troubled: set[str],
        now: float,
    ) -> None:
        self._call = call
        self._need = need
        self._metrics = metrics
        self._loads = loads
        self._troubled = troubled
        self._started_at = now
        self.attempt_at = math.nan
        """When the latest attempt began."""
        self._committed: TrackedAttempt | None = None

    @property
    def is_committed(self) -> bool:
        """A runner has the call, or has run it."""
        return self._committed is not None

    @property
    def run_seconds(self) -> float:
        """The mean time that such a call runs; 0 = not known."""
        return self._loads.run_times.run_seconds(self._need)

    def ended(self, error: BaseException | None, now: float) -> None:
        """Count how the placement has ended."""
        if isinstance(error, ServiceReservationFailure):  # the runner has kept the deadline
            self._metrics.placer_client_timeout.inc()
        elif error is not None and is_cancellation(error):
            self._cancelled(error)
        until = now if self._committed is None else self.attempt_at
        seconds = until - self._started_at
        self._metrics.observe_placement(self._call.attempts, round(seconds * 1e9))

    def _cancelled(self, error: BaseException) -> None:
        if self.is_committed:
            self._metrics.placer_placed_abort.inc()
        if is_timeout(error) or trio.current_time() >= self._call.deadline:
            self._metrics.placer_client_timeout.inc()
        else:
            self._metrics.placer_client_cancelled.inc()

    def begin(self, runner: Runner) -> TrackedAttempt:
        """Count an attempt, until `over`. `end` tells its outcome; without that it counts as
        cancelled. Several may run at the same time, of which one is committed at most."""
        address = runner.address
        self._call.attempts += 1
        self.attempt_at = now = trio.current_time()
        warm = self._loads.begin(address, self._need, now)
        number = self._loads.run_times.begin(self._need, now)
        span = self._call.span and self._call.span.child(
            "engage", {"fn.runner": address}, kind="client"
        )
        return TrackedAttempt(runner, address, warm, now, number, span)

    def over(self, attempt: TrackedAttempt) -> None:
        """Nothing of it is left."""
        loads, outcome = self._loads, attempt.outcome
        ran = isinstance(outcome, Placed) and outcome.error is None
        loads.run_times.end(self._need, attempt.number, self._call.timings if ran else None)
        loads.end(attempt.address, self._need, outcome, trio.current_time())
        if attempt.span is not None:
            _end_span(attempt.span, outcome)
        if attempt.asked and attempt is not self._committed and _given_up(outcome):
            self._metrics.reservations_abandoned.inc()

    def asked(self, attempt: TrackedAttempt) -> None:
        """Its runner has been asked for a reservation."""
        attempt.asked = True
        self._metrics.reservations.inc()

    def hedged(self) -> None:
        """A second runner is asked as well."""
        self._metrics.hedges.inc()

    def committed(self, attempt: TrackedAttempt, *, hedge: bool = False) -> None:
        """Its runner may run the call from now on."""
        self._committed = attempt
        attempt.committed = True
        if attempt.asked:
            self._metrics.reservations_committed.inc()
        if hedge:
            self._metrics.hedges_won.inc()

    def end(self, attempt: TrackedAttempt, outcome: Outcome) -> None:
        """An attempt has ended, not by cancellation."""
        if isinstance(outcome, NotPlaced) and isinstance(outcome.reason, ReservationAbandoned):
            return
        address = attempt.address
        attempt.outcome = outcome
        if isinstance(outcome, Placed):
            self._committed = attempt
            self._count_placed(outcome.error)
        else:
            if self._committed is attempt:
                self._committed = None
            if not isinstance(outcome.reason, ServerBusy):
                self._unreachable(address, outcome.reason)
                return
            self._metrics.placer_retry_busy.inc()
        if address in self._troubled:
            self._troubled.discard(address)
            log.info("runner is back", runner=address)

    def _count_placed(self, error: Exception | None) -> None:
        metrics = self._metrics
        if error is None:
            metrics.placer_placed_ok.inc()
        elif isinstance(error, ServiceReservationFailure):
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
