"""How long a runner's calls take, and when that is far out of the ordinary. Pure."""

from __future__ import annotations

import math
from collections import deque
from statistics import median

WINDOW = 30.0
"""Seconds that a sample counts."""
MAX_SAMPLES = 100
MIN_SAMPLES = 20
"""Below, a quantile says little."""
MIN_OTHERS = 2
"""Below, nobody can say who of them is the odd one."""
CHECK_INTERVAL = 1.0
"""Seconds between looks at one runner: sorting for each call would cost more than it tells."""


class Latencies:
    """The latest samples of one runner. Times and samples are seconds."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float]] = deque(maxlen=MAX_SAMPLES)
        self._next_check = -math.inf
        self._last: float | None = None
        self._last_at = -math.inf

    def __repr__(self) -> str:
        return f"<Latencies samples={len(self._samples)} last={self._last}>"

    def add(self, now: float, seconds: float) -> None:
        self._samples.append((now, seconds))

    def due(self, now: float) -> bool:
        """Whether `quantile` should be asked again."""
        return now >= self._next_check and len(self._samples) >= MIN_SAMPLES

    def quantile(self, now: float, q: float) -> float | None:
        """The ``q`` quantile of the samples in the window, ``None`` if there are too few."""
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
