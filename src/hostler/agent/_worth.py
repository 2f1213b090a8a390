"""How long an idle container is worth more than the room that it takes.

Without it the next call of its function waits for a start. That is nothing to a call that runs for
long, and makes one that runs for a hundredth of it a hundred times as slow. So a container is worth
keeping for a start's time, times how many runs go into a start: the cost that Greedy-Dual and
FaasCache weigh (Fuerst and Sharma, ASPLOS 2021), in terms of the call. Gentle calls
(`hostler.frames.TryCall`) are refused until then, as their load balancer can let them wait. In
which order containers are evicted is another matter.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Hashable

from ._decisions import Resources

MAX_SECONDS = 10.0
"""No container is worth more, since then most are that stand idle."""


def worth_seconds(start: float, run: float) -> float:
    """How long an idle container is worth keeping; 0 = it is not known what a call runs. Seconds,
    as the means that a start and a call of its function take."""
    return min(start**2 / run, MAX_SECONDS) if run else 0.0


class WorthyRoom:
    """What containers have that are worth keeping. Times are seconds of one clock, given by the
    caller, and never go back."""

    def __init__(self) -> None:
        self._sizes: dict[Hashable, tuple[int, Resources]] = {}
        self._ends: list[tuple[float, int, Hashable]] = []
        self._numbers = itertools.count()
        self._memory = self._cpus = 0

    def __repr__(self) -> str:
        return f"<WorthyRoom containers={len(self._sizes)}>"

    def add(self, owner: Hashable, size: Resources, until: float) -> None:
        """``owner``, which was not in it, has ``size`` of it until then."""
        number = next(self._numbers)
        self._sizes[owner] = number, size
        self._memory += size.memory
        self._cpus += size.cpus
        heapq.heappush(self._ends, (until, number, owner))

    def remove(self, owner: Hashable) -> None:
        """No more. No effect if it was over already."""
        _, size = self._sizes.pop(owner, (0, Resources()))
        self._memory -= size.memory
        self._cpus -= size.cpus

    def total(self, now: float) -> Resources:
        """Of all whose time is not over."""
        while self._ends and (self._ends[0][0] <= now or not self._is_true(self._ends[0])):
            end = heapq.heappop(self._ends)
            if self._is_true(end):
                self.remove(end[2])
        return Resources(self._memory, self._cpus)

    def _is_true(self, end: tuple[float, int, Hashable]) -> bool:
        """Whether its owner has not gone since, or come back."""
        _, number, owner = end
        return self._sizes.get(owner, (-1,))[0] == number
