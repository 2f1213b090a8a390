"""The placer that goes where a hot container waits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

import trio

from ..abc import Runner, RunnerCall
from ._bounded import BoundedPlacer
from ._fleet import Fleet
from ._order import once, within
from ._sweep_placer import need_of
from ._warm_index import Need

MAX_HOT = 16
"""Runners with a hot container that are tried as such."""
MAX_SPARE = 8
"""Runners with room that are looked at beside those that the function prefers."""


class WarmPlacer(BoundedPlacer):
    """Tries the runners first that are believed to have an idle hot container for the call.

    A call whose function has only busy ones waits in line for one of them, until the function's
    `LaunchPolicy` says that another is to be started. Without any it goes on as `BoundedPlacer`,
    with those in front that can start a container without evicting another function's. What is
    known of containers and memory comes from the runners' hints and from the placer's own calls.
    """

    def waits(self, call: RunnerCall, need: Need, now: float) -> bool:
        return call.model.type != "detached" and not self.loads.any_warm(need, now)

    def forbearance(self, need: Need) -> float:
        return self.loads.policies.forbearance(need)

    def at_once(
        self, call: RunnerCall, need: Need, runners: Sequence[Runner], now: float
    ) -> Runner | None:
        address = self.loads.warmest(need, now)
        return None if address is None else self.fleets.of(runners).find(address)

    def order(self, call: RunnerCall, runners: Sequence[Runner]) -> Iterator[Runner]:
        need, fleet = need_of(call), self.fleets.of(runners)
        tried: set[Runner] = set()
        for address in self.loads.warm(need, trio.current_time(), MAX_HOT):
            if (runner := fleet.find(address)) is not None:
                tried.add(runner)
                yield runner
        # Nearly always that was enough.
        yield from once(chain.from_iterable(self._colder(call, need, fleet)), tried)

    def _colder(self, call: RunnerCall, need: Need, fleet: Fleet) -> Iterator[Iterable[Runner]]:
        """Those where a container has to be started, and in the end all."""
        key, now, fits = call.model.fn_id, trio.current_time(), self.bound(call, len(fleet))
        gentle = self.forbearance(need) > 0

        def has_room(runner: Runner) -> bool:
            return self.loads.has_room(runner.address, need, now)

        def takes(runner: Runner) -> bool:
            return has_room(runner) and fits(runner) and self.loads.has_cpu(runner.address, now)

        def room(runner: Runner) -> int:
            return self.loads.room(runner.address, gentle=gentle)

        # These are nearly always enough, however many runners there are.
        near = fleet.near(key)
        yield filter(takes, near)
        addresses = self.loads.spare(need, MAX_SPARE, self._rng, gentle=gentle)
        spare = tuple(filter(None, map(fleet.find, addresses)))
        yield filter(takes, spare)
        # Where much is idle, what is evicted is needed least.
        yield sorted(filter(fits, near + spare), key=room, reverse=True)
        yield within(within(fleet.preferred(key), fits), has_room)
