"""Whether a call should wait for a container that is busy, or have another one launched. Pure.

A launch takes long, beside most calls, and all the engine's time. So a call whose function runs on
busy containers that will have served it before a launch would be over waits for them. How long that
takes is known from the mean time that calls have a container (Little's law: ``busy`` containers
begin ``busy / run`` calls a second). Three things keep that from being wrong for long:

* Who has waited for as long as a launch takes gets one, whatever was expected: a wrong guess at
  most doubles its wait. (The ski rental problem; Karlin et al., "Competitive Randomized Algorithms
  for Nonuniform Problems", Algorithmica 11, 1994.)
* Where calls have waited all the time for as long as a launch takes, there are too few containers:
  there shall be half as many again. But only as long as calls run about as quickly as they have
  with fewer: where they are slower the machine is busy, and more containers only share it.
* Of what is not known nothing is expected: then each call that waits has a launch.
"""

from __future__ import annotations

import math

from ._worth import worth_seconds

WEIGHT = 1 / 8
"""Of the latest time in a mean, as in TCP's round-trip estimate (RFC 6298)."""
WORTH = 0.75
"""Share of a launch's time that the expected wait may be. The load balancer's placer has the same
(`hostler.pool`), for the same reason."""
SHORTEST = 1e-6
"""Seconds that a call is taken to run at least."""
MAX_PATIENCE = 2.0
"""Seconds that a call waits before it has a launch at most, however long launches take."""
CONTENDED = 2.0
"""Times that calls may take longer than with fewer containers, before more are no help."""
FORGET = 600.0
"""Seconds in which the quickest time is forgotten by the factor e."""
GROWTH = 1 / 2
"""Of the containers, that may be launched beyond what is needed, each time that they were too
few."""


class Pace:
    """What is known of one slot key. Times are seconds of one clock, given by the caller."""

    def __init__(self) -> None:
        self._run = self._least_run = self._start = 0.0
        """Means; 0 = not known."""
        self._told_at = 0.0
        self._pressed_since = math.inf
        self._more = 0

    def __repr__(self) -> str:
        return f"<Pace run={self._run:.6f} start={self._start:.3f}>"

    def ran(self, seconds: float, now: float) -> None:
        """A call has had a container for so long."""
        if seconds < SHORTEST:
            seconds = SHORTEST
        run = self._run
        self._run = run = run + WEIGHT * (seconds - run) if run else seconds
        forgotten = self._least_run * (1 + (now - self._told_at) / FORGET)
        self._least_run = forgotten if 0 < forgotten < run else run
        self._told_at = now

    def launched(self, seconds: float) -> None:
        """A launch has taken so long."""
        self._start = _mean(self._start, seconds)

    @property
    def patience(self) -> float:
        """Seconds after which a call that waits has a launch in any case."""
        return min(self._start, MAX_PATIENCE)

    @property
    def worth_seconds(self) -> float:
        """How long an idle container is worth keeping."""
        return worth_seconds(self._start, self._run)

    def served_soon(self, busy: int) -> int:
        """How many calls ``busy`` containers will have begun before a launch would be over."""
        return int(WORTH * self.patience * busy / self._run) if self._run else 0

    def line_begins(self, now: float) -> None:
        """From now on calls wait."""
        self._pressed_since = now

    def line_ends(self) -> None:
        """Nobody waits any more."""
        self._pressed_since = math.inf
        self._more = 0

    def too_few(self, busy: int, now: float) -> bool:
        """Whether a call that comes now, and could wait for one of ``busy`` containers, shall have
        a launch, because others have waited for long."""
        if now - self._pressed_since >= self.patience:
            self._pressed_since = now
            if self._run <= CONTENDED * self._least_run:
                self._more = max(1, int(GROWTH * busy))
        if not self._more:
            return False
        self._more -= 1
        return True


def _mean(mean: float, value: float) -> float:
    return mean + WEIGHT * (value - mean) if mean else value
