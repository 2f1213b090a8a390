"""The placer that goes where a hot container waits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import trio

from ..abc import Runner, RunnerCall
from ._bounded import BoundedPlacer
from ._order import load_limit, within
from ._sweep_placer import need_of


class WarmPlacer(BoundedPlacer):
    """Tries the runners first that are believed to have an idle hot container for the call.

    A call whose function has only busy ones waits for one of them, if that takes less time than to
    start another (see `hostler.pool._run_times`), and no longer than that in any case. Without
    any it goes on as `BoundedPlacer`, with those in front that can start a container
    without evicting another function's. What is known of containers and memory comes from the
    runners' hints and from the placer's own calls.
    """

    def patience(self, call: RunnerCall, ahead: int) -> float:
        need, now = need_of(call), trio.current_time()
        if call.model.type == "detached" or self.loads.warm(need, now):
            return 0.0
        return self.loads.run_times.patience(need, ahead, now)

    def order(self, call: RunnerCall, runners: Sequence[Runner]) -> Iterator[Runner]:
        need, now = need_of(call), trio.current_time()
        warm = self.loads.warm(need, now)
        limit: float | None = None

        def has_warm(runner: Runner) -> bool:
            return runner.address in warm

        def fits(runner: Runner) -> bool:
            nonlocal limit
            if limit is None:
                total = self.loads.total((one.address for one in runners), now)
                limit = load_limit(total, len(runners), self.config.load_spill_percent / 100)
            return self.loads.load(runner.address, need, now) < limit

        def has_room(runner: Runner) -> bool:
            return self.loads.has_room(runner.address, need, now)

        preferred = list(self.preferred(call, runners))
        hot = [runner for runner in preferred if has_warm(runner)] if warm else []
        yield from hot
        cold = (runner for runner in preferred if not (warm and has_warm(runner)))
        yield from within(within(cold, fits), has_room)
