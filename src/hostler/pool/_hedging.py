"""When a second runner is asked for a slot because the first one takes long. Pure.

Dean and Barroso, "The Tail at Scale", Communications of the ACM 56(2), 2013: a hedged request is
only sent once the first has been outstanding for longer than a high quantile of the expected
latency, which bounds the extra load to the share beyond the quantile. A budget bounds it also
when latencies drift: each reservation earns a share of a hedge, as in Finagle's retry budgets.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import OrderedDict, deque
from collections.abc import Hashable

WINDOW = 100
"""Samples that a quantile is taken of, the latest: machines and images change."""
MIN_SAMPLES = 20
"""Below, a quantile says little. (As in `_latency`.)"""
MAX_KEYS = 1024
"""Functions whose latencies are remembered, the most recently reserved ones."""
BURST = 10.0
"""Hedges that can be saved up."""


class RecentQuantile:
    """An exact quantile of the latest `WINDOW` samples: one sorted list of that length."""

    def __init__(self) -> None:
        self._in_order: deque[float] = deque()
        self._sorted: list[float] = []

    def __len__(self) -> int:
        return len(self._sorted)

    def add(self, sample: float) -> None:
        if len(self._in_order) == WINDOW:
            del self._sorted[bisect_left(self._sorted, self._in_order.popleft())]
        self._in_order.append(sample)
        insort(self._sorted, sample)

    def value(self, q: float) -> float:
        """The least sample that a share of ``q`` of them does not exceed."""
        return self._sorted[max(0, math.ceil(q * len(self._sorted)) - 1)]


class Hedging:
    """What one placer knows of its reservations. Times are seconds.

    ``quantile`` 0 = never hedge. ``share`` is how many of a hundred reservations may be hedged,
    on average.
    """

    def __init__(self, quantile: float, share: float) -> None:
        self._quantile = quantile
        self._share = share
        self._credit = 0.0
        self._latencies: OrderedDict[Hashable, RecentQuantile] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Hedging credit={self._credit:.2f} keys={len(self._latencies)}>"

    def begin(self, key: Hashable) -> float | None:
        """A reservation for ``key`` begins; after how long a second runner may be asked."""
        self._credit = min(BURST, self._credit + self._share / 100)
        known = self._latencies.get(key)
        if not self._quantile or known is None or len(known) < MIN_SAMPLES:
            return None
        return known.value(self._quantile)

    def spend(self) -> bool:
        """Whether a second runner may be asked now; if so, that counts."""
        if self._credit < 1:
            return False
        self._credit -= 1
        return True

    def took(self, key: Hashable, seconds: float) -> None:
        """A runner had a slot for ``key`` after that time; or it had none yet when the other one
        had. The latter has to count too: without it the long ones would be missing, and the
        quantile sink from hedge to hedge."""
        known = self._latencies.get(key)
        if known is None:
            known = self._latencies[key] = RecentQuantile()
            if len(self._latencies) > MAX_KEYS:
                self._latencies.popitem(last=False)
        else:
            self._latencies.move_to_end(key)
        known.add(seconds)
