"""What idle memory costs, so that on average as much is used as fixed timeouts would use. Pure.

A price instead of a limit: each container is kept for as long as it is worth the price to it, so
all memory goes where it saves most (a Lagrange multiplier). It rises while more is used than
allowed, and falls while less is.
"""

from __future__ import annotations

import math

PERIOD = 5.0
"""Seconds between two adaptions."""
WINDOW = 300.0
"""Seconds in which what was used and allowed counts e times less."""
PACE = 60.0
"""Seconds in which the price changes by the factor e at most."""
RANGE = 1000.0
"""Factor by which the price may become higher or lower than the first one."""


class MemoryPrice:
    """``share`` of what is allowed may be used. Times in seconds, memory in bytes.

    ``value`` is in seconds of starts saved, per byte and second; 0 = nothing is known yet.
    """

    def __init__(self, share: float = 1.0) -> None:
        self.value = 0.0
        self._share = share
        self._first = 0.0
        self._idle = 0
        self._used = self._allowed = 0.0
        """Byte-seconds."""
        self._counted_at = self._adapted_at = -math.inf

    def __repr__(self) -> str:
        return f"<MemoryPrice {self.value:.3g} idle={self._idle}>"

    def begin(self, price: float) -> None:
        """Start with ``price``, unless there is one."""
        if not self.value:
            self.value = self._first = price

    def hold(self, memory: int, now: float) -> None:
        """So much more memory is idle from here on; negative = less."""
        if self._idle:
            self._used += self._idle * (now - self._counted_at)
        self._counted_at = now
        self._idle += memory
        if now - self._adapted_at >= PERIOD:
            self._adapt(now)

    def allow(self, memory: int, seconds: float) -> None:
        """A fixed timeout would have kept ``memory`` idle for ``seconds`` more."""
        self._allowed += memory * seconds

    def _adapt(self, now: float) -> None:
        seconds = now - self._adapted_at
        self._adapted_at = now
        if seconds == math.inf:
            return
        fade = math.exp(-seconds / WINDOW)
        self._used *= fade
        self._allowed *= fade
        allowed = self._allowed * self._share
        if allowed > 0:
            excess = min(self._used / allowed - 1, 1.0)
            value = self.value * math.exp(excess * min(seconds / PACE, 1.0))
            self.value = min(max(value, self._first / RANGE), self._first * RANGE)
