"""How long an idle container is worth more than the room that it takes.

Without it the next call of its function waits for a start. That is nothing to a call that runs for
long, and makes one that runs for a hundredth of it a hundred times as slow. So a container is worth
keeping for a start's time, times how many runs go into a start: the cost that Greedy-Dual and
FaasCache weigh (Fuerst and Sharma, ASPLOS 2021), in terms of the call. Gentle calls
(`hostler.protocol.TryCall`) are refused until then, as their load balancer can let them wait. In
which order containers are evicted is another matter.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Hashable

from ._decisions import Resources

MAX_SECONDS = 10.0
"""No container is worth more, since then most are that stand idle."""


def worth_seconds(start: float, run: float) -> float:
    """How long an idle container is worth keeping; 0 = it is not known what a call runs. Seconds,
    as the means that a start and a call of its function take."""
    return min(start * start / run, MAX_SECONDS) if run else 0.0


class WorthyRoom:
    """What containers have that are worth keeping. Times are seconds of one clock, given by the
    caller, and never go back."""

    def __init__(self) -> None:
        self._members: dict[Hashable, tuple[float, Resources]] = {}
        """Until when, and how much."""
        self._memory = self._cpus = 0
        self._looks: list[tuple[float, int, Hashable]] = []
        """A heap of when to look at whom, at the latest. An owner that leaves and comes back, as
        with each call, keeps its look: so there is one of each owner, not of each call."""
        self._look_at: dict[Hashable, float] = {}
        """The look of each owner that counts."""
        self._numbers = itertools.count()

    def __repr__(self) -> str:
        return f"<WorthyRoom containers={len(self._members)}>"

    def __len__(self) -> int:
        """How much is remembered, also of owners that have left."""
        return len(self._looks)

    def add(self, owner: Hashable, size: Resources, until: float, now: float) -> None:
        """``owner``, which was not in it, has ``size`` of it ``until`` then."""
        self._members[owner] = until, size
        self._memory += size.memory
        self._cpus += size.cpus
        if until < self._look_at.get(owner, math.inf):
            self._plan_look(owner, until)
        if self._looks[0][0] <= now:
            self._look(now)

    def remove(self, owner: Hashable) -> None:
        """No more. No effect if it was over already."""
        member = self._members.pop(owner, None)
        if member is not None:
            size = member[1]
            self._memory -= size.memory
            self._cpus -= size.cpus

    def total(self, now: float) -> Resources:
        """Of all whose time is not over."""
        self._look(now)
        return Resources(self._memory, self._cpus)

    def _plan_look(self, owner: Hashable, at: float) -> None:
        self._look_at[owner] = at
        heapq.heappush(self._looks, (at, next(self._numbers), owner))

    def _look(self, now: float) -> None:
        """Remove those whose time is over."""
        while self._looks and self._looks[0][0] <= now:
            at, _, owner = heapq.heappop(self._looks)
            if self._look_at.get(owner) != at:
                continue  # there was, or is, an earlier one
            del self._look_at[owner]
            until = self._members[owner][0] if owner in self._members else -math.inf
            if until > now:
                self._plan_look(owner, until)
            else:
                self.remove(owner)
