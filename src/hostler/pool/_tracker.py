"""Counts what happens to one call while it is placed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
import trio

from .._groups import is_cancellation
from ..abc import Outcome, Placed, Runner, RunnerCall
from ..errors import ServerBusy
from ..metrics import LBMetrics
from ._loads import LoadBook
from ._warm_index import Need

log = structlog.get_logger(__name__)


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
    ) -> None:
        self._call = call
        self._need = need
        self._metrics = metrics
        self._loads = loads
        self._troubled = troubled
        self._started_at = trio.current_time()
        self.attempt_at = math.nan
        """When the latest attempt began."""
        self.is_committed = False
        """A runner has the call, or has run it."""
        self._request_deadline = math.inf
        self._outcome: Outcome | None = None

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Count how the block, which is the whole placement, ends."""
        self._request_deadline = trio.current_effective_deadline()
        try:
            yield
        except BaseException as error:
            if is_cancellation(error):
                self._cancelled()
            raise
        finally:
            until = self.attempt_at if self.is_committed else trio.current_time()
            seconds = until - self._started_at
            self._metrics.observe_placement(self._call.attempts, round(seconds * 1e9))

    def _cancelled(self) -> None:
        if self.is_committed:
            self._metrics.placer_placed_abort.inc()
        elif trio.current_time() >= self._request_deadline:
            self._metrics.placer_client_timeout.inc()
        else:
            self._metrics.placer_client_cancelled.inc()

    @contextmanager
    def attempt(self, runner: Runner) -> Iterator[None]:
        """Count an attempt, which is the block. `end` tells its outcome; without that it counts
        as cancelled."""
        address, self._outcome = runner.address, None
        self._call.attempts += 1
        self.attempt_at = trio.current_time()
        self._loads.begin(address, self._need, self.attempt_at)
        try:
            yield
        finally:
            self._loads.end(address, self._need, self._outcome, trio.current_time())

    def committed(self) -> None:
        """The runner may run the call from now on."""
        self.is_committed = True

    def end(self, runner: Runner, outcome: Outcome) -> None:
        """An attempt has ended, not by cancellation."""
        address = runner.address
        self._outcome = outcome
        if isinstance(outcome, Placed):
            self.is_committed = True
            ok = outcome.error is None
            (self._metrics.placer_placed_ok if ok else self._metrics.placer_placed_error).inc()
        else:
            self.is_committed = False
            if not isinstance(outcome.reason, ServerBusy):
                self._unreachable(address, outcome.reason)
                return
            self._metrics.placer_retry_busy.inc()
        if address in self._troubled:
            self._troubled.discard(address)
            log.info("runner is back", runner=address)

    def _unreachable(self, address: str, reason: Exception) -> None:
        self._metrics.placer_retry_error.inc()
        if address not in self._troubled:
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

    def timed_out(self) -> None:
        """The placer's time is over."""
        self._metrics.placer_timeout.inc()
