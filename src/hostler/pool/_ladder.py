"""When the calls of a line may try again although nobody told them of capacity. Pure.

The news that a runner has room normally comes from a call of our own that ended there. Room that
others make (other LBs' calls, new runners) is only found by trying. Each line therefore sends
its head to try all runners now and then: after ``base`` seconds, then twice as long, up to
``limit``, as long as it is refused. When a head was not refused by the time the next step is
due, there is room: the steps become short again and wider, so that a hundred free slots are
found in a few steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable

MAX_WIDTH = 16
"""Calls of one line that one step may send. Bounds what is wasted when the room is gone before
the first refusal has come back."""


class Ladder:
    """The steps of one line. All times are seconds of one clock, given by the caller.

    ``jitter`` returns a factor around 1, so that the LBs of a fleet don't step together.
    """

    def __init__(self, base: float, limit: float, jitter: Callable[[], float]) -> None:
        self._base = base
        self._limit = limit
        self._jitter = jitter
        self._refused = True
        self._width = 1
        self._lost = 0
        self.interval = base
        """Seconds until the next step, before jitter."""
        self.next_at = -math.inf
        """The time of the next step."""

    def __repr__(self) -> str:
        return f"<Ladder interval={self.interval} width={self._width} lost={self._lost}>"

    def begin(self, now: float) -> None:
        """A line that was empty has somebody waiting, who has just been refused.

        Old experience counts as long as its next step is still to come.
        """
        if now >= self.next_at:
            self._refused, self._width, self._lost = True, 1, 0
            self.interval = self._base
            self._plan(now)

    def forget(self) -> None:
        """What was experienced counts for nothing when the line begins the next time."""
        self._refused = True
        self.next_at = -math.inf

    def step(self, now: float) -> int:
        """How many calls may try now, at least 1."""
        if not self._refused:
            self.interval = self._base
            self._width = min(2 * self._width, MAX_WIDTH)
        count = self._width + self._lost
        self._refused, self._lost = False, 0
        self._plan(now)
        return count

    def refuse(self, now: float, hint: float = 0.0) -> None:
        """A call of a step was refused everywhere; ``hint`` = when to come back at the earliest,
        in seconds. The refusals of one step count once."""
        if not self._refused:
            self._refused, self._width = True, 1
            self.interval = min(2 * self.interval, self._limit)
            self._plan(now, hint)

    def lose(self, now: float) -> None:
        """A runner refused a call that was sent there because it had room: somebody was quicker,
        or the runner itself is not ready yet. Worth another try soon."""
        self._refused = True
        self._lost = min(self._lost + 1, MAX_WIDTH)
        self.interval = self._base
        self.next_at = min(self.next_at, now + self._base * self._jitter())

    def _plan(self, now: float, hint: float = 0.0) -> None:
        self.next_at = now + max(self.interval * self._jitter(), hint)
