"""Whether a call should wait for a hot container that is busy, or have another started. Pure;
times are seconds of one clock, given by the caller.

To wait a little where a job's data is, instead of running it anywhere at once, is delay scheduling
(Zaharia et al., "Delay Scheduling: A Simple Technique for Achieving Locality and Fairness in
Cluster Scheduling", EuroSys 2010). How long follows from the ski rental problem (Karlin et al.,
"Competitive Randomized Algorithms for Nonuniform Problems", Algorithmica 11, 1994): a call that has
waited for as long as a start takes has one started, so a wrong guess at most doubles its cost.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Hashable

import attrs

from ..call import Timings
from ._warm_index import MAX_NEEDS, Need, drop_oldest

WEIGHT = 1 / 8
"""Of the latest call in a mean, as in TCP's round-trip estimate (RFC 6298)."""
MAX_PATIENCE = 2.0
"""Seconds that a call waits for a hot container at most, however long starts take."""
WORTH = 0.75
"""Share of a start's time that the expected wait may be."""
FORBEARANCE = 2.0
"""Times of a start and a run for which a call leaves others the hot containers that they need."""
FORBEARANCE_SECONDS = 1.0, 10.0
"""Least and most of it. It bounds for how long a call can be kept waiting by idle containers."""
LEAST_LEFT = 1 / 4
"""Share of the mean run time that a call is expected to have left when it is overdue."""


@attrs.define(eq=False)
class _Kind:
    """Calls with the same need. The means are 0 as long as nothing is known."""

    run_seconds: float = 0.0
    start_seconds: float = 0.0
    running: dict[int, float] = attrs.Factory(dict)
    """When the calls that are on a runner went there, by their numbers: the oldest first."""


class RunTimes:
    """What is known of the calls that one placer has sent."""

    def __init__(self) -> None:
        self._kinds: OrderedDict[Hashable, _Kind] = OrderedDict()
        self._start_seconds = 0.0
        """Of all kinds, for those of which no start is known."""
        self._numbers = itertools.count()

    def __repr__(self) -> str:
        return f"<RunTimes kinds={len(self._kinds)} start={self._start_seconds:.3f}>"

    def begin(self, need: Need, now: float) -> int:
        """A call goes to a runner; its number, for `end`."""
        kind = self._kinds.get(need.key)
        if kind is None:
            kind = self._kinds[need.key] = _Kind()
            drop_oldest(self._kinds, MAX_NEEDS)
        else:
            self._kinds.move_to_end(need.key)
        number = next(self._numbers)
        kind.running[number] = now
        return number

    def end(self, need: Need, number: int, timings: Timings | None) -> None:
        """That call is over; ``timings`` are what the runner told of one that ran well."""
        kind = self._kinds.get(need.key)
        if kind is None:
            return
        kind.running.pop(number, None)
        if timings is None or not timings.execution_ns:
            return
        kind.run_seconds = _mean(kind.run_seconds, timings.execution_ns / 1e9)
        if timings.ctr_create_ns:
            start = timings.scheduler_ns / 1e9
            kind.start_seconds = _mean(kind.start_seconds, start)
            self._start_seconds = _mean(self._start_seconds, start)

    def run_seconds(self, need: Need) -> float:
        """The mean time that a call runs; 0 = not known."""
        kind = self._kinds.get(need.key)
        return 0.0 if kind is None else kind.run_seconds

    def patience(self, need: Need, ahead: int, now: float) -> float:
        """How long a call should wait for one of the busy containers, behind ``ahead`` others
        that do so; 0 = not at all."""
        kind = self._kinds.get(need.key)
        if kind is None or not kind.running or not kind.run_seconds:
            return 0.0
        start = min(kind.start_seconds or self._start_seconds, MAX_PATIENCE)
        return start if self._expected(kind, ahead, now) < WORTH * start else 0.0

    def forbearance(self, need: Need) -> float:
        """For how long a call should rather wait than have containers evicted that are worth
        keeping: the longer it takes anyhow, the less a wait means to it."""
        kind = self._kinds.get(need.key) or _Kind()
        takes = kind.run_seconds + (kind.start_seconds or self._start_seconds)
        least, most = FORBEARANCE_SECONDS
        wanted = FORBEARANCE * takes
        return least if wanted < least else most if wanted > most else wanted

    @staticmethod
    def _expected(kind: _Kind, ahead: int, now: float) -> float:
        """Seconds until one of the busy containers is free for who comes after ``ahead``."""
        rounds, place = divmod(ahead, len(kind.running))
        began = next(itertools.islice(kind.running.values(), place, None))
        mean = kind.run_seconds
        return rounds * mean + max(LEAST_LEFT * mean, mean - (now - began))


def _mean(mean: float, value: float) -> float:
    return mean + WEIGHT * (value - mean) if mean else value
