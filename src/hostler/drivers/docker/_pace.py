"""A bound on how often something is done."""

from __future__ import annotations

import math

import trio


class Pace:
    """Lets steps through at ``rate`` per second, after a pause up to ``burst`` at once.

    It is the generic cell rate algorithm (ITU-T I.371): all that is kept is the time at which
    the allowance would be used up exactly.
    """

    def __init__(self, rate: float, burst: int) -> None:
        self._interval = 1 / rate
        self._allowance = (burst - 1) / rate
        self._used_up = -math.inf

    async def wait(self) -> None:
        """Wait until the next step is allowed, in order of arrival. A step that is cancelled
        while it waits counts as done."""
        now = trio.current_time()
        self._used_up = max(self._used_up, now) + self._interval
        await trio.sleep_until(self._used_up - self._interval - self._allowance)
