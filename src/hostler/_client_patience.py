"""How long the clients of a function wait before they leave, of those that don't say. Pure; times
are seconds of one clock, given by the caller.

Whoever was served has borne its wait, and would have borne more: such data are censored. The
Kaplan-Meier estimator (Kaplan and Meier, "Nonparametric Estimation from Incomplete Observations",
Journal of the American Statistical Association 53, 1958; for callers in a telephone queue: Brown et
al., "Statistical Analysis of a Telephone Call Center", same journal 100, 2005) takes them into
account. So a client that leaves early among many that bear more counts for little.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from itertools import accumulate

EDGES = tuple(0.1 * 1.2**step for step in range(48))
"""Seconds at which the classes of waits begin, up to ten minutes."""
LEAST = 3.0
"""Clients that have to have left before anything is concluded; they count less with time."""
LEAVING = 0.05
"""Share of the clients whose wait may be longer than they bear."""
MARGIN = 0.85
"""Of the wait that clients bear: how long a wait will be is not known exactly."""
FORGET = 30.0
"""Seconds in which what was learned is forgotten by the factor e."""
SHORTEST = 0.25
"""Seconds. No client is refused for a shorter wait, however quickly others have left."""


class ClientPatience:
    """What is known of the clients of one function."""

    def __init__(self) -> None:
        self._left = [0.0] * len(EDGES)
        self._bore = [0.0] * len(EDGES)
        self._leaving = 0.0
        self._faded_at = 0.0
        self._bound = math.inf

    def __repr__(self) -> str:
        return f"<ClientPatience bound={self._bound:.3f} left={self._leaving:.1f}>"

    def bore(self, seconds: float, now: float) -> None:
        """A client was served after such a wait."""
        if seconds >= EDGES[0]:
            self._fade(now)
            self._bore[bisect_right(EDGES, seconds) - 1] += 1

    def left(self, seconds: float, now: float, *, ran: float = 0.0) -> None:
        """A client has left after such a wait. (A shorter one than is told apart here has other
        reasons.) If its call ``ran`` for so many seconds by then, it counts as much as the wait was
        of the time that it bore: in first-in-first-out order each call may be served just when its
        client is about to leave."""
        if seconds >= EDGES[0]:
            self._fade(now)
            share, place = seconds / (seconds + ran), bisect_right(EDGES, seconds) - 1
            self._left[place] += share
            self._bore[place] += 1 - share
            self._leaving += share
            self._bound = self._estimate()

    def bound(self, now: float) -> float:
        """The longest wait that nearly all clients bear; infinite if nobody knows."""
        if self._leaving:
            self._fade(now)
        return self._bound

    def _fade(self, now: float) -> None:
        passed = now - self._faded_at
        if passed < 1:
            return
        self._faded_at = now
        if not self._leaving and not any(self._bore):
            return
        factor = math.exp(-passed / FORGET)
        self._left = [factor * count for count in self._left]
        self._bore = [factor * count for count in self._bore]
        self._leaving *= factor
        self._bound = self._estimate()

    def _estimate(self) -> float:
        if self._leaving < LEAST:
            return math.inf
        exits = [left + bore for left, bore in zip(self._left, self._bore, strict=True)]
        at_risk = [*accumulate(reversed(exits))][::-1]
        stay = 1.0
        for edge, left, all_of_them in zip(EDGES, self._left, at_risk, strict=True):
            if left:
                stay *= 1 - left / all_of_them
                if stay < 1 - LEAVING:
                    return max(SHORTEST, MARGIN * edge)
        return math.inf
