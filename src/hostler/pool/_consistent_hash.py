"""The placer that keeps each function's calls together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..abc import Runner, RunnerCall
from ._sweep_placer import SweepPlacer


class ConsistentHashPlacer(SweepPlacer):
    """Tries each function's own runner first, so that its containers stay hot.

    The order follows from the function's id and the runners' addresses by rendezvous hashing,
    never from places in the pool's list: a runner that comes or goes moves only its own share of
    the functions. Fn's placer uses places, so that there most functions move.
    """

    def order(self, call: RunnerCall, runners: Sequence[Runner]) -> Iterator[Runner]:
        return self.fleets.of(runners).preferred(call.model.fn_id)
