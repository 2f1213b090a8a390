"""The placer that spreads calls evenly."""

from __future__ import annotations

from ..abc import RunnerCall
from ._ring_placer import RingPlacer


class NaivePlacer(RingPlacer):
    """Starts each sweep at a random runner."""

    def start(self, call: RunnerCall, count: int) -> int:
        return self._rng.randrange(count)
