"""The launch policies of the functions of one placer."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

from .._launch_policy import WEIGHT, LaunchPolicy
from ..call import Timings
from ._warm_index import MAX_NEEDS, Need, drop_oldest

FORBEARANCE = 2.0
"""Times of a start and a run for which a call leaves others the hot containers that they need."""
MAX_FORBEARANCE = 10.0
"""Seconds. It bounds for how long a call can be kept waiting by idle containers."""


class LaunchPolicies:
    """Calls with the same need have one. Those used last are remembered."""

    def __init__(self) -> None:
        self._policies: OrderedDict[Hashable, LaunchPolicy] = OrderedDict()
        self._start_seconds = 0.0
        """Mean of all functions, for those of which no start is known; 0 = not known."""

    def __repr__(self) -> str:
        return f"<LaunchPolicies functions={len(self._policies)} start={self._start_seconds:.3f}>"

    def of(self, need: Need) -> LaunchPolicy:
        """The policy of such calls."""
        policy = self._policies.get(need.key)
        if policy is None:
            policy = self._policies[need.key] = LaunchPolicy()
            drop_oldest(self._policies, MAX_NEEDS)
        else:
            self._policies.move_to_end(need.key)
        if not policy.start_seconds and self._start_seconds:
            policy.started(self._start_seconds)
        return policy

    def ran(self, need: Need, timings: Timings, began: float, now: float) -> None:
        """Such a call, which went to its runner when it ``began``, has run well; ``timings`` are
        what the runner told, if it did."""
        policy = self._policies.get(need.key)
        if policy is None:
            return
        policy.ran(timings.execution_ns / 1e9 or now - began, now)
        if timings.ctr_create_ns:
            # Less than the start, if the call came later and was the first in line for it; more,
            # if the start had to wait for its turn.
            start = max(timings.start_seconds, timings.scheduler_ns / 1e9)
            policy.started(start)
            mean = self._start_seconds
            self._start_seconds = mean + WEIGHT * (start - mean) if mean else start

    def run_seconds(self, need: Need) -> float:
        """The mean time that such a call runs; 0 = not known."""
        policy = self._policies.get(need.key)
        return 0.0 if policy is None else policy.run_seconds

    def forbearance(self, need: Need) -> float:
        """For how long such a call should rather wait than have containers evicted that are worth
        keeping: the longer it takes anyhow, start and run, the less a wait means to it. A start
        that stands in the engine's queue takes longer."""
        policy = self.of(need)
        return min(MAX_FORBEARANCE, FORBEARANCE * (policy.run_seconds + policy.start_seconds))
