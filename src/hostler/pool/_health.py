"""Which runners of a pool deserve calls, judged by what happens there. Pure.

Outlier ejection as in Envoy (https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/
upstream/outlier): who fails several times in a row, or is far slower than the others, gets no
calls for a while. A refusal for lack of room (NACK) is a healthy answer and never counts. At most
a share of the runners is ejected at once: when more of them fail, the trouble is likely ours.

All times are seconds of one clock, given by the caller.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from typing import Literal

import attrs

from ..config import PoolConfig
from ._latency import Latencies, is_outlier

FIRST_SHARE = 0.1
"""Share of its calls that a runner gets at the moment when it is back."""
MAX_STRIKES = 6
"""A runner that was ejected so often in a row stays away for no longer than that many intervals."""

Cause = Literal["unreachable", "faulty", "slow"]


@attrs.frozen
class Change:
    """A judgement that changed: a runner is ejected (for a ``cause``), refuses calls by its own
    word, or is back."""

    key: Hashable
    kind: Literal["ejected", "refuses", "back"]
    reason: str
    cause: Cause | None = None


@attrs.define(eq=False)
class _Record:
    latencies: Latencies = attrs.Factory(Latencies)
    failures: int = 0
    """In a row."""
    faults: int = 0
    """In a row."""
    cause: Cause | None = None
    """Why it is ejected."""
    ejected_at: float = 0
    until: float = math.inf
    """When an ejection ends by itself; one for being unreachable ends when it is reached."""
    refuses: bool = False
    back_at: float = -math.inf
    strikes: int = 0

    @property
    def away(self) -> bool:
        return self.cause is not None or self.refuses


class HealthBoard:
    """The judgements on all runners of a pool. ``tell`` is called with each change."""

    def __init__(self, config: PoolConfig, tell: Callable[[Change], None]) -> None:
        self._config = config
        self._tell = tell
        self._records: dict[Hashable, _Record] = {}
        self._unsound: set[Hashable] = set()
        """Those whose share may be under 1. Almost always empty, which keeps calls cheap."""

    def __repr__(self) -> str:
        return f"<HealthBoard runners={len(self._records)} ejected={self.ejected}>"

    @property
    def ejected(self) -> int:
        """How many are ejected now; those that refuse by themselves are not among them."""
        return sum(self._records[key].cause is not None for key in self._unsound)

    def cause(self, key: Hashable) -> Cause | None:
        """Why a runner is ejected, ``None`` if it is not."""
        record = self._records.get(key)
        return None if record is None else record.cause

    @property
    def limit(self) -> int:
        """How many may be ejected at once."""
        count, share = len(self._records), self._config.eject_share
        return min(max(1, math.floor(share * count)), count - 1) if share and count else 0

    # --- membership ---

    def join(self, key: Hashable) -> None:
        """A new runner is healthy, and needs no slow start."""
        self._records[key] = _Record()

    def leave(self, key: Hashable) -> None:
        """Forget a runner. If now too many of the others are ejected, the first ones are back."""
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
        """It has answered, be it with a refusal."""
        record = self._records.get(key)
        if record is not None:
            record.failures = 0
            if record.cause == "unreachable":
                self._lift(key, record, now, "it answers")

    def succeeded(self, key: Hashable, now: float, overhead: float | None = None) -> None:
        """A call ran to an end of its own. ``overhead`` = seconds that it took outside of the
        function, if that is known."""
        record = self._records.get(key)
        if record is None:
            return
        record.failures = record.faults = 0
        if record.cause == "unreachable":
            self._lift(key, record, now, "it answers")
        if overhead is not None and record.cause is None:
            record.latencies.add(now, overhead)
            if record.latencies.due(now):
                self._compare(key, record, now)

    def failed(self, key: Hashable, now: float, reason: str) -> None:
        """An attempt did not reach it, or broke off."""
        record = self._records.get(key)
        if record is not None:
            record.failures += 1
            if 0 < self._config.eject_failures <= record.failures:
                self._eject(key, record, now, "unreachable", reason)

    def faulted(self, key: Hashable, now: float, reason: str) -> None:
        """A call that it had taken failed there, and not because of the function."""
        self.reached(key, now)
        record = self._records.get(key)
        if record is not None:
            record.faults += 1
            if 0 < self._config.eject_faults <= record.faults:
                self._eject(key, record, now, "faulty", reason)

    def says(self, key: Hashable, now: float, *, serving: bool) -> None:
        """Its own word on whether it takes calls, which needs no room under the limit."""
        self.reached(key, now)
        record = self._records.get(key)
        if record is None or record.refuses is not serving:
            return
        record.refuses = not serving
        if not serving:
            self._unsound.add(key)
            self._tell(Change(key, "refuses", "it says so"))
        elif record.cause is None:
            record.back_at = now
            self._tell(Change(key, "back", "it says so"))

    def fell_silent(self, key: Hashable, now: float) -> None:
        """It can't tell whether it takes calls: its last word holds no longer."""
        record = self._records.get(key)
        if record is not None and record.refuses:
            record.refuses = False
            if record.cause is None:
                record.back_at = now
                self._tell(Change(key, "back", "it tells no more"))

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
        if now >= record.back_at + slow_start:  # a difference could be a hair too small
            self._unsound.discard(key)
            return 1.0
        progress = (now - record.back_at) / slow_start
        return FIRST_SHARE + (1 - FIRST_SHARE) * min(max(0.0, progress), 1.0)

    @property
    def all_sound(self) -> bool:
        """Whether every runner should get all its calls."""
        return not self._unsound

    def refuses(self, key: Hashable) -> bool:
        """Whether it has said that it takes no calls."""
        record = self._records.get(key)
        return record is not None and record.refuses

    # --- inside ---

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
        record.latencies = Latencies()  # what comes back is judged anew
        self._unsound.add(key)
        self._tell(Change(key, "ejected", reason, cause))

    def _lift(self, key: Hashable, record: _Record, now: float, reason: str) -> None:
        record.cause = None
        record.back_at = now
        self._freed(key, record, reason)

    def _freed(self, key: Hashable, record: _Record, reason: str) -> None:
        if record.refuses:
            self._tell(Change(key, "refuses", f"{reason}, but it said so"))
        else:
            self._tell(Change(key, "back", reason))

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
