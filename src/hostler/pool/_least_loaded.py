"""The placer that evens out the load."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import trio

from ..abc import Runner, RunnerCall
from ._order import better_of_two
from ._sweep_placer import SweepPlacer, need_of


class LeastLoadedPlacer(SweepPlacer):
    """Looks at two random runners and tries that with fewer calls first: the power of two
    choices, see `hostler.pool._order.better_of_two`."""

    def order(self, call: RunnerCall, runners: Sequence[Runner]) -> Iterator[Runner]:
        need, now = need_of(call), trio.current_time()

        def load(runner: Runner) -> float:
            return self.loads.load(runner.address, need, now)

        return better_of_two(runners, load, self._rng)
