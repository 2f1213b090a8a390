"""How fast a line of waiting calls moves. Pure; times are seconds of one clock."""

from __future__ import annotations

from collections import deque

WINDOW = 128
"""Calls over which the pace is measured."""
LEAST = 8
"""Calls without which nothing can be said."""
WEIGHT = 1 / 8
"""Of the latest call in the mean run time, as in TCP's round-trip estimate (RFC 6298)."""


class Pace:
    """Of one line, as long as somebody stands in it."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=WINDOW)
        self.run_seconds = 0.0
        """How long calls take on a runner, on average; 0 = not known."""

    def __repr__(self) -> str:
        return f"<Pace calls={len(self._times)}>"

    def reset(self) -> None:
        """Nobody waits any more: what comes now says nothing about before."""
        self._times.clear()

    def forget(self) -> None:
        """Nothing is known any more."""
        self._times.clear()
        self.run_seconds = 0.0

    def ran(self, seconds: float) -> None:
        """A call has taken so long on its runner."""
        mean = self.run_seconds
        self.run_seconds = mean + WEIGHT * (seconds - mean) if mean else seconds

    def moved(self, now: float) -> None:
        """A runner has taken a call that had waited."""
        self._times.append(now)

    def seconds_for(self, calls: int, now: float) -> float:
        """How long it takes until ``calls`` have been taken; 0 if that can't be told.

        A line that has come to a halt gets slower as time passes.
        """
        count = len(self._times)
        if count < LEAST:
            return 0.0
        first, last = self._times[0], self._times[-1]
        # The time since the last call belongs to one that has not been taken yet: it counts only
        # once it is longer than the others' mean.
        return calls * max((last - first) / (count - 1), (now - first) / count)
