"""When idle containers are frozen: after a grace that adapts, and at a bounded rate.

A frozen function takes no CPU time, but pausing and resuming a container cost CPU time of the
engine and make the next call wait. How long to stay unfrozen is the *ski-rental problem*: rent
while the season may end any day, or buy. Renting until the rent equals the price costs at most
twice the best choice in hindsight (Karlin, Manasse, Rudolph, Sleator, "Competitive Snoopy Caching",
Algorithmica 1988), so the grace is proportional to the *measured* cost of pausing and resuming.
Where the past foretells that the container is needed again before long, the grace is extended
(predictive shutdown as in Srivastava, Chandrakasan, Brodersen, IEEE Trans. VLSI 1996):

* ``grace = max(FN_FREEZE_IDLE_MSECS, cost / SHARE, MARGIN * gap)``, the last two within
  `LONGEST_GRACE`. So each container spends at most the fraction `SHARE` of its time in pausing and
  resuming, and a function whose containers were lately needed again after ``gap`` seconds does not
  have them paused in between.
* All containers together are paused so rarely (`Freezer.turn`) that pausing and resuming takes at
  most the fraction `SHARE` of the machine's CPUs, in the order in which their graces ended.
* While containers are launched nothing is paused, for at most `LAUNCHES_FIRST`: pausing runs a
  program of the engine, whose CPU time the calls that wait for those launches would miss.

Slots are taken last in, first out, so the containers that are not needed are those whose idle time
exceeds the grace. An overloaded engine is slow, which increases the cost, and so the grace: load
never leads to more pausing.
"""

from __future__ import annotations

import math
import os
from typing import Protocol

import trio

from .._concurrency.signal import IdleGate

SHARE = 0.05
"""Fraction of the time that freezing may take: the most that can be lost against never freezing."""
MARGIN = 2.0
"""A container may idle for this many times a recent gap between two uses."""
LONGEST_GRACE = 5.0
"""Seconds. A container that idles for longer is idle, whatever was measured or foretold."""
FIRST_COST = 0.04
"""Seconds that pausing and resuming are taken to cost until they were measured (seen on Docker: 10
to 30 ms each)."""
SMOOTHING = 0.2
"""Weight of a new measurement of the cost."""
BURST = 16
"""Containers that may be paused at once after a quiet time."""
LAUNCHES_FIRST = 5.0
"""Seconds that a container which is to be paused or removed waits for launches of other
containers."""
LEAST_RATE, MOST_RATE = 1.0, 100.0
"""Containers that may be paused per second, whatever the cost."""


def freeze_grace(minimum: float, *, cost: float, gap: float) -> float:
    """How long a container idles before it is frozen. All in seconds.

    ``minimum`` is the configured grace: 0 = freeze at once, ``math.inf`` = never; both switch the
    adaption off. ``cost`` is that of pausing and resuming once, ``gap`` the recent time between two
    uses of a container of that function, 0 = unknown.
    """
    if minimum in (0, math.inf):
        return minimum
    return max(minimum, min(max(cost / SHARE, MARGIN * gap), LONGEST_GRACE))


def pause_rate(cost: float, cpus: float) -> float:
    """Containers per second that may be paused, with ``cost`` seconds each on ``cpus`` CPUs."""
    allowed = SHARE * cpus / cost if cost > 0 else MOST_RATE
    return min(max(allowed, LEAST_RATE), MOST_RATE)


class Freezable(Protocol):
    """A container that waits for its turn to be paused."""

    def may_freeze(self) -> bool:
        """Whether it still is to be paused."""


class Freezer:
    """What the containers of one agent share for freezing: the measured cost and the rate.

    ``cpus`` of 0 = those of the machine.
    """

    def __init__(self, minimum: float, cpus: float = 0) -> None:
        self.cost = FIRST_COST
        """Seconds that pausing and resuming one container take together."""
        self._minimum = minimum
        self._cpus = cpus or os.cpu_count() or 1
        self._pause, self._resume = FIRST_COST / 2, FIRST_COST / 2
        self._line = trio.Lock()
        self.launches = IdleGate()
        """Disturbed while a container is launched."""
        self._permits = float(BURST)
        self._counted_at = -math.inf

    def __repr__(self) -> str:
        return f"<Freezer cost={self.cost:.4f} waiting={self._line.statistics().tasks_waiting}>"

    def grace(self, gap: float) -> float:
        """Seconds that a container of a function with ``gap`` idles before it is frozen."""
        return freeze_grace(self._minimum, cost=self.cost, gap=gap)

    def paused(self, seconds: float) -> None:
        """Pausing took ``seconds``."""
        self._pause += SMOOTHING * (seconds - self._pause)
        self.cost = self._pause + self._resume

    def resumed(self, seconds: float) -> None:
        """Resuming took ``seconds``."""
        self._resume += SMOOTHING * (seconds - self._resume)
        self.cost = self._pause + self._resume

    async def turn(self, container: Freezable) -> bool:
        """Wait for the permission to pause ``container``, in order of asking.

        Returns false if the turn has come and the container may not freeze any more; that delays no
        other container. Cancelling gives up the place.
        """
        patience = trio.current_time() + LAUNCHES_FIRST
        async with self._line:
            if self._minimum:
                await self.launches.wait(patience)
            while container.may_freeze():
                pause = self._take()
                if not pause:
                    return True
                await trio.sleep(pause)
        return False

    def _take(self) -> float:
        """Take a permit, or return the seconds until there is one."""
        if not self._minimum:
            return 0.0
        now, rate = trio.current_time(), pause_rate(self.cost, self._cpus)
        self._permits = min(self._permits + (now - self._counted_at) * rate, BURST)
        self._counted_at = now
        if self._permits >= 1 - 1e-9:
            self._permits -= 1
            return 0.0
        return (1 - self._permits) / rate
