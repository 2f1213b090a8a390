"""The placer that spreads calls evenly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..abc import Runner, RunnerCall
from ._order import ring
from ._sweep_placer import SweepPlacer


class NaivePlacer(SweepPlacer):
    """Starts each sweep at a random runner, and goes round."""

    def order(self, call: RunnerCall, runners: Sequence[Runner]) -> Iterator[Runner]:
        return ring(runners, self._rng.randrange(len(runners)) if runners else 0)
