"""The placer that keeps a function's calls together as long as that is no burden."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import trio

from ..abc import Runner, RunnerCall
from ._order import load_limit, within
from ._sweep_placer import SweepPlacer, need_of


class BoundedPlacer(SweepPlacer):
    """Consistent hashing with bounded loads.

    Each function has its own order of the runners, by rendezvous hashing over their addresses.
    The first takes its calls, up to the even share of all calls and a fraction more
    (``config.load_spill_percent``); then the next does. Sources: see
    `load_limit` and `hostler.pool._rendezvous`.
    """

    def order(self, call: RunnerCall, runners: Sequence[Runner]) -> Iterator[Runner]:
        preferred = self.fleets.of(runners).preferred(call.model.fn_id)
        return within(preferred, self.bound(call, len(runners)))

    def bound(self, call: RunnerCall, count: int) -> Callable[[Runner], bool]:
        """Which of ``count`` runners may have one more call."""
        need, now = need_of(call), trio.current_time()
        share = self.config.load_spill_percent / 100
        limit = load_limit(self.loads.total(now), count, share)
        return lambda runner: self.loads.load(runner.address, need, now) < limit
