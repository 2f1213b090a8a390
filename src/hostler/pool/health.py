"""Health of runners: judges outcomes of attempts, ejects failing runners, restores them slowly.

Outlier ejection as in Envoy
(https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/outlier): a runner that
fails several times in a row, or is far slower than the others, gets no calls for a while. A refusal
for lack of capacity (NACK) is a healthy answer and never counts. At most a share of the runners is
ejected at once: when more fail, the cause is likely on this side.

All times are seconds of one clock, given by the caller.
"""

from __future__ import annotations

import functools
import math
from collections import deque
from collections.abc import Hashable, Iterator
from statistics import median
from typing import Literal, Protocol

import attrs
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from ..abc import NotPlaced, Outcome, Runner, RunnerCall
from ..config import PoolConfig
from ..errors import (
    APIError,
    AttemptTimedOut,
    FunctionError,
    MissingEOF,
    ProtocolError,
    ReservationAbandoned,
    RunnerClosed,
    RunnerFault,
    ServerBusy,
)
from ..metrics import CallCounter
from ..protocol import UNAVAILABLE_STATUS, EngagementFailed

WINDOW = 30.0
"""Seconds that a sample counts."""

MAX_SAMPLES = 100

MIN_SAMPLES = 20
"""With fewer samples a quantile says little."""

MIN_OTHERS = 2
"""With fewer other runners there is nothing to compare with."""

CHECK_INTERVAL = 1.0
"""Seconds between checks of one runner: sorting for each call would cost more than it tells."""


class LatencyWindow:
    """The latest samples of one runner. Times and samples are seconds."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float]] = deque(maxlen=MAX_SAMPLES)
        self._next_check = -math.inf
        self._last: float | None = None
        self._last_at = -math.inf

    def __repr__(self) -> str:
        return f"<LatencyWindow samples={len(self._samples)} last={self._last}>"

    def add(self, now: float, seconds: float) -> None:
        self._samples.append((now, seconds))

    def due(self, now: float) -> bool:
        """Whether `quantile` should be asked again."""
        return now >= self._next_check and len(self._samples) >= MIN_SAMPLES

    def quantile(self, now: float, q: float) -> float | None:
        """The ``q`` quantile of the samples in the window; ``None`` if there are too few."""
        self._next_check = now + CHECK_INTERVAL
        recent = sorted(value for at, value in self._samples if now - at <= WINDOW)
        if len(recent) < MIN_SAMPLES:
            self._last = None
            return None
        self._last = recent[min(len(recent) - 1, math.floor(q * len(recent)))]
        self._last_at = now
        return self._last

    def last(self, now: float) -> float | None:
        """What `quantile` last returned, if that was not long ago."""
        return self._last if now - self._last_at <= WINDOW else None


def is_outlier(own: float, others: list[float], factor: float, floor: float) -> bool:
    """Whether ``own`` is over ``floor`` and over ``factor`` times the median of ``others``."""
    return len(others) >= MIN_OTHERS and own > floor and own > factor * median(others)


FIRST_SHARE = 0.1
"""Share of its calls that a runner gets at the moment of its return."""

MAX_STRIKES = 6
"""An ejection lasts at most this many intervals, however often in a row the runner was ejected."""

SLOW_TO_TAKE = 0.5
"""Seconds. An attempt that timed out before the runner took the call counts against the runner only
if it had at least that long: the client may have been in a hurry."""

_UNWANTED = (1, 4)
"""The gRPC statuses CANCELLED and DEADLINE_EXCEEDED, of a client that did not want to wait."""

Cause = Literal["unreachable", "faulty", "slow"]


@attrs.frozen
class HealthChange:
    """A changed judgement: a runner is ejected (for a ``cause``), refuses calls by its own word, or
    is back. ``unreachable`` and ``reachable``: of a runner that is not ejected for it, because too
    few others are left."""

    key: Hashable
    kind: Literal["ejected", "refuses", "back", "unreachable", "reachable"]
    reason: str
    cause: Cause | None = None


@attrs.define(eq=False)
class _Record:
    latencies: LatencyWindow = attrs.Factory(LatencyWindow)
    failures: int = 0
    """In a row."""
    faults: int = 0
    """In a row."""
    cause: Cause | None = None
    """Why the runner is ejected."""
    ejected_at: float = 0
    until: float = math.inf
    """When an ejection ends by itself. An ejection for being unreachable ends when the runner is
    reached."""
    refuses: bool = False
    unreachable_since: float = math.inf
    """Since when it would be ejected for being unreachable, whether it is or not."""
    back_at: float = -math.inf
    strikes: int = 0

    @property
    def away(self) -> bool:
        return self.cause is not None or self.refuses

    @property
    def is_unreachable(self) -> bool:
        return self.unreachable_since < math.inf


class HealthListener(Protocol):
    """An object that hears of changed judgements, such as the pool."""

    def note_health(self, change: HealthChange) -> None:
        """Synchronous. Must not raise."""


class HealthTracker:
    """The judgements on all runners of a pool. ``listener`` hears of each change."""

    def __init__(self, config: PoolConfig, listener: HealthListener) -> None:
        self._config = config
        self._listener = listener
        self._records: dict[Hashable, _Record] = {}
        self._unsound: set[Hashable] = set()
        """Runners whose share may be below 1, or that are unreachable. Almost always empty, which
        keeps calls cheap."""

    def __repr__(self) -> str:
        return f"<HealthTracker runners={len(self._records)} ejected={self.ejected}>"

    @property
    def ejected(self) -> int:
        """The number of ejected runners. Runners that refuse calls by their own word don't
        count."""
        return sum(self._records[key].cause is not None for key in self._unsound)

    def cause(self, key: Hashable) -> Cause | None:
        """Why a runner is ejected; ``None`` if it is not."""
        record = self._records.get(key)
        return None if record is None else record.cause

    def is_unreachable(self, key: Hashable) -> bool:
        """Whether too many attempts in a row did not reach the runner, ejected or not."""
        record = self._records.get(key)
        return record is not None and record.is_unreachable

    @property
    def none_reached_since(self) -> float:
        """Since when all runners are unreachable; infinity if one is not, or if there is none."""
        if len(self._unsound) < len(self._records):
            return math.inf
        return max((each.unreachable_since for each in self._records.values()), default=math.inf)

    @property
    def limit(self) -> int:
        """How many runners may be ejected at once."""
        count, share = len(self._records), self._config.eject_share
        return min(max(1, math.floor(share * count)), count - 1) if share and count else 0

    # --- membership ---

    def join(self, key: Hashable) -> None:
        """Add a new runner. It is healthy, and needs no slow start."""
        self._records[key] = _Record()

    def leave(self, key: Hashable) -> None:
        """Forget a runner. If too many of the others are ejected now, the first ejected ones are
        back."""
        self._records.pop(key, None)
        self._unsound.discard(key)
        while self.ejected > self.limit:
            oldest = min(
                (key for key in self._unsound if self._records[key].cause),
                key=lambda key: self._records[key].ejected_at,
            )
            record = self._records[oldest]
            record.cause = None
            self._freed(oldest, record, "too few others are left")

    # --- what happens; all of it is harmless for runners that are unknown (they have left) ---

    def reached(self, key: Hashable, now: float) -> None:
        """The runner has answered, perhaps with a refusal."""
        record = self._records.get(key)
        if record is not None:
            self._reached(key, record, now)

    def succeeded(self, key: Hashable, now: float, overhead: float | None = None) -> None:
        """A call ran to its own end. ``overhead`` = seconds outside of the function, if known."""
        record = self._records.get(key)
        if record is None:
            return
        record.faults = 0
        self._reached(key, record, now)
        if overhead is not None and record.cause is None:
            record.latencies.add(now, overhead)
            if record.latencies.due(now):
                self._compare(key, record, now)

    def failed(self, key: Hashable, now: float, reason: str) -> None:
        """An attempt did not reach the runner, or broke off."""
        record = self._records.get(key)
        if record is not None:
            record.failures += 1
            if 0 < self._config.eject_failures <= record.failures:
                is_known = record.is_unreachable
                record.unreachable_since = min(record.unreachable_since, now)
                self._eject(key, record, now, "unreachable", reason)
                if not is_known and record.cause != "unreachable":
                    self._unsound.add(key)
                    self._listener.note_health(HealthChange(key, "unreachable", reason))

    def faulted(self, key: Hashable, now: float, reason: str) -> None:
        """A call that the runner had taken failed there, and not because of the function."""
        self.reached(key, now)
        record = self._records.get(key)
        if record is not None:
            record.faults += 1
            if 0 < self._config.eject_faults <= record.faults:
                self._eject(key, record, now, "faulty", reason)

    def says(self, key: Hashable, now: float, *, serving: bool) -> None:
        """The runner says whether it takes calls. This needs no room under the `limit`."""
        self.reached(key, now)
        record = self._records.get(key)
        if record is None or record.refuses is not serving:
            return
        record.refuses = not serving
        if not serving:
            self._unsound.add(key)
            self._listener.note_health(HealthChange(key, "refuses", "it says so"))
        elif record.cause is None:
            record.back_at = now
            self._listener.note_health(HealthChange(key, "back", "it says so"))

    def fell_silent(self, key: Hashable, now: float) -> None:
        """The runner can no longer tell whether it takes calls: its last word does not hold any
        more."""
        record = self._records.get(key)
        if record is not None and record.refuses:
            record.refuses = False
            if record.cause is None:
                record.back_at = now
                self._listener.note_health(HealthChange(key, "back", "it tells no more"))

    def note_outcome(
        self, runner: Runner, call: RunnerCall, outcome: Outcome, seconds: float, now: float
    ) -> None:
        """An attempt at ``runner`` has ended after ``seconds``; see `RunnerPool.note_outcome`."""
        if isinstance(outcome, NotPlaced):
            self._judge_refusal(runner, outcome.reason, seconds, now)
        elif outcome.error is None:
            ran_ns = call.timings.execution_ns
            overhead = max(0.0, seconds - ran_ns / 1e9) if ran_ns else None
            self.succeeded(runner, now, overhead)
        else:
            self._judge_error(runner, outcome.error, now)

    def _judge_refusal(self, runner: Runner, reason: Exception, seconds: float, now: float) -> None:
        unwanted = isinstance(reason, EngagementFailed) and reason.status in _UNWANTED
        if isinstance(reason, ServerBusy | ReservationAbandoned) or unwanted:
            self.reached(runner, now)
        elif isinstance(reason, AttemptTimedOut):
            if seconds >= SLOW_TO_TAKE:
                self.failed(runner, now, str(reason))
        elif not isinstance(reason, RunnerClosed):
            self.failed(runner, now, str(reason))

    def _judge_error(self, runner: Runner, error: Exception, now: float) -> None:
        """Decide whose fault ``error`` is. Errors of the client (its body, its writer, its time
        limit) say nothing about the runner."""
        if isinstance(error, FunctionError):
            self.succeeded(runner, now)
        elif isinstance(error, EngagementFailed) and error.status == UNAVAILABLE_STATUS:
            self.failed(runner, now, error.text)
        elif isinstance(error, EngagementFailed) and error.status in _UNWANTED:
            self.reached(runner, now)
        elif isinstance(error, EngagementFailed | RunnerFault | ProtocolError | MissingEOF):
            self.faulted(runner, now, str(error))
        elif isinstance(error, ServerBusy):
            self.reached(runner, now)
        elif isinstance(error, APIError):
            if error.code == APIError.default_code:
                self.faulted(runner, now, error.message)
            else:
                self.reached(runner, now)

    # --- what follows ---

    def share(self, key: Hashable, now: float) -> float:
        """The share of its calls, from 0 to 1, that a runner should get."""
        if key not in self._unsound:
            return 1.0
        record = self._records[key]
        if record.cause is not None and now >= record.until:
            self._lift(key, record, now, "its time is over")
        if record.away:
            return 0.0
        slow_start = self._config.slow_start
        if now >= record.back_at + slow_start:  # (a difference may be rounded down)
            if not record.is_unreachable:
                self._unsound.discard(key)
            return 1.0
        progress = (now - record.back_at) / slow_start
        return FIRST_SHARE + (1 - FIRST_SHARE) * min(max(0.0, progress), 1.0)

    @property
    def all_sound(self) -> bool:
        """Whether every runner should get all its calls, and is reached."""
        return not self._unsound

    def refuses(self, key: Hashable) -> bool:
        """Whether the runner has said that it takes no calls."""
        record = self._records.get(key)
        return record is not None and record.refuses

    # --- inside ---

    def _reached(self, key: Hashable, record: _Record, now: float) -> None:
        record.failures = 0
        if record.is_unreachable:
            record.unreachable_since = math.inf
            if record.cause == "unreachable":
                self._lift(key, record, now, "it answers")
            else:
                self._listener.note_health(HealthChange(key, "reachable", "it answers"))

    def _eject(self, key: Hashable, record: _Record, now: float, cause: Cause, reason: str) -> None:
        if record.cause is not None or self.ejected >= self.limit:
            return
        interval = self._config.eject_interval
        if cause != "unreachable":
            fresh = now - record.back_at > MAX_STRIKES * interval
            record.strikes = 1 if fresh else min(record.strikes + 1, MAX_STRIKES)
            record.until = now + interval * record.strikes
        else:
            record.until = math.inf
        record.cause, record.ejected_at = cause, now
        record.failures = record.faults = 0
        record.latencies = LatencyWindow()  # the runner is judged anew when it is back
        self._unsound.add(key)
        self._listener.note_health(HealthChange(key, "ejected", reason, cause))

    def _lift(self, key: Hashable, record: _Record, now: float, reason: str) -> None:
        record.cause = None
        record.back_at = now
        self._freed(key, record, reason)

    def _freed(self, key: Hashable, record: _Record, reason: str) -> None:
        if record.refuses:
            self._listener.note_health(HealthChange(key, "refuses", f"{reason}, but it said so"))
        else:
            self._listener.note_health(HealthChange(key, "back", reason))

    def _compare(self, key: Hashable, record: _Record, now: float) -> None:
        config = self._config
        if not config.eject_latency_factor:
            return
        own = record.latencies.quantile(now, config.eject_latency_quantile)
        others = [
            value
            for other in self._records.values()
            if other is not record and (value := other.latencies.last(now)) is not None
        ]
        if own is not None and is_outlier(
            own, others, config.eject_latency_factor, config.eject_latency_floor
        ):
            self._eject(key, record, now, "slow", f"{own:.3g} s where others take less")


class PoolMetrics(Collector):
    """The metrics of all pools that share this object. Making one registers it; raises `ValueError`
    if ``registry`` has such metrics already."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._counts: list[CallCounter] = []
        self.runners = self._add("runners", "Runners that pools offer, or would offer", "gauge")
        self.leaving = self._add("leaving", "Runners that left and have calls to finish", "gauge")
        self.ejected = self._add("ejected", "Runners that get no calls for a while", "gauge")
        self.joined = self._add("joined_count", "Runners that joined a pool")
        self.left = self._add("left_count", "Runners that left a pool")
        self.ejections: dict[Cause, CallCounter] = {
            "unreachable": self._add("unreachable_count", "Ejections: could not be reached"),
            "faulty": self._add("faulty_count", "Ejections: failed calls for its own reasons"),
            "slow": self._add("slow_count", "Ejections: far slower than the others"),
        }
        self.refusals = self._add("refusal_count", "Runners that said that they take no calls")
        self.returns = self._add("return_count", "Runners that were back after that")
        self.lookups = self._add("lookup_count", "Names that were looked up in the DNS")
        self.lookup_failures = self._add("lookup_failure_count", "Look-ups that failed")
        registry.register(self)

    def _add(self, name: str, text: str, kind: str = "unknown") -> CallCounter:
        count = CallCounter(f"fn_lb_pool_{name}", text, kind)
        self._counts.append(count)
        return count

    def collect(self) -> Iterator[Metric]:
        return (count.metric() for count in self._counts)


@functools.cache
def default_pool_metrics() -> PoolMetrics:
    """The metrics of this process, in prometheus_client's own registry."""
    return PoolMetrics()
