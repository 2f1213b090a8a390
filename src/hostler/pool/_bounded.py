"""The placer that keeps a function's calls together as long as that is no burden."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import trio

from ..abc import Runner, RunnerCall
from ._order import load_limit, within
from ._rendezvous import ranking
from ._sweep_placer import SweepPlacer, need_of


class BoundedPlacer(SweepPlacer):
    """Consistent hashing with bounded loads.

    Each function has its own order of the runners, by rendezvous hashing over their addresses.
    The first takes its calls, up to the even share of all calls and a fraction more
    (``config.load_spill_percent``); then the next does. Sources: see
    `load_limit` and `ranking`.
    """

    def order(self, call: RunnerCall, runners: Sequence[Runner]) -> Iterator[Runner]:
        need, now = need_of(call), trio.current_time()
        total = self.loads.total((runner.address for runner in runners), now)
        limit = load_limit(total, len(runners), self.config.load_spill_percent / 100)

        def fits(runner: Runner) -> bool:
            return self.loads.load(runner.address, need, now) < limit

        return within(self.preferred(call, runners), fits)

    def preferred(self, call: RunnerCall, runners: Sequence[Runner]) -> Iterator[Runner]:
        """``runners`` as the call's function prefers them, whatever their load."""
        addresses = tuple(runner.address for runner in runners)
        return (runners[index] for index in ranking(call.model.fn_id, addresses))
