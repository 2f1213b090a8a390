"""For how long containers idled between two calls, and what that foretells. Pure.

A histogram of idle times, as in Shahrad et al., "Serverless in the Wild" (USENIX ATC 2020), with
two differences. Bins grow geometrically, so that seconds and hours are told apart equally well. And
instead of a head and a tail percentile it answers for each age what it is worth to keep the
container, by the *Gittins index*: of all times to give up, the largest ratio of the probability
that the container is needed until then to the time that it is expected to idle until then
(Gittins, "Bandit Processes and Dynamic Allocation Indices", Journal of the Royal Statistical
Society B 41(2), 1979). A head percentile comes out of it (what will not be needed for long is worth
little now and more later), and a tail percentile too (what was not needed so far will hardly be).
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right
from collections.abc import Sequence

FIRST = 0.25
"""Seconds; shorter gaps are all alike."""
STEPS = 4
"""Bins per doubling."""
BINS = 64
"""Up to 3.8 hours; Shahrad et al. look at 4. Longer gaps count as endless."""
EDGES: Sequence[float] = (0.0, *(FIRST * 2.0 ** (step / STEPS) for step in range(BINS)))
"""Bin ``i`` holds the gaps from ``EDGES[i]`` up to ``EDGES[i + 1]`` seconds."""
LONGEST = EDGES[-1]
PRIOR = 1.0
"""Gaps that are taken to have been noted before any was, the same share in each bin and of endless
ones: about what is not known it is better to be wrong by little."""
MOST = 1000
"""Gaps after which all counts are halved, so that the past fades."""
NEWS = 4
"""A histogram is evaluated again when it has one gap in so many more; and at least one."""
LIKE = 1.05
"""Prices that differ by less than this factor are one."""


class Gaps:
    """The gaps of the containers of one function and level. All times in seconds.

    A *price* is in uses per second: what keeping has to be worth. `note` takes a microsecond, and
    so does `keep_age` mostly; one in ever more takes some 100 for the evaluation.
    """

    __slots__ = ("_counts", "_endless", "_keep_age", "_keep_price", "_stale_at", "_worth", "total")

    def __init__(self) -> None:
        self.total = 0
        """Gaps that are known."""
        self._counts = array("f", bytes(4 * BINS))
        self._endless = 0.0
        self._worth = array("f", bytes(4 * BINS))
        self._stale_at = 0
        self._keep_price = 0.0
        self._keep_age = 0.0

    def __repr__(self) -> str:
        return f"<Gaps {self.total}>"

    def note(self, gap: float) -> None:
        """A container was needed again after ``gap``; `math.inf` = it never was."""
        index = bisect_right(EDGES, gap) - 1
        if index < BINS:
            self._counts[index] += 1
        else:
            self._endless += 1
        self.total += 1
        if self.total >= MOST:
            self._counts = array("f", [count / 2 for count in self._counts])
            self._endless /= 2
            self.total //= 2
            self._stale_at = 0

    def worth(self, age: float) -> float:
        """What it is worth to keep a container that has idled for ``age``: uses per second."""
        self._evaluate()
        return self._worth[_bin(age)] if age < LONGEST else 0.0

    def keep_age(self, age: float, price: float) -> float:
        """The age up to which a container is worth ``price``; ``age`` or less = it is not now.

        A while in which it is not is bridged if keeping it meanwhile costs less than one start.
        """
        self._evaluate()
        like = self._keep_price <= price * LIKE and price <= self._keep_price * LIKE
        if not like:
            self._keep_price, self._keep_age = price, self._bridged(0.0, price)
        return self._keep_age if age < self._keep_age else self._bridged(age, price)

    def return_age(self, age: float, price: float) -> float:
        """The first age after ``age`` that is worth ``price``; `math.inf` = there is none."""
        self._evaluate()
        for index in range(_bin(age) + 1, BINS):
            if self._worth[index] >= price:
                return EDGES[index]
        return math.inf

    def chance(self, begin: float, end: float) -> float:
        """The probability that a gap that has lasted for ``begin`` ends before ``end``."""
        first, last = _bin(begin), _bin(end)
        share = PRIOR / (BINS + 1)
        ending = sum(self._counts[first:last]) + share * (last - first)
        left = sum(self._counts[first:]) + self._endless + share * (BINS + 1 - first)
        return ending / left

    def _bridged(self, age: float, price: float) -> float:
        while True:
            index = _bin(age)
            while index < BINS and self._worth[index] >= price:
                index += 1
            if index > _bin(age):
                age = EDGES[index]
            again = self.return_age(age, price)
            if not (again - age) * price <= 1:
                return age
            age = again

    def _evaluate(self) -> None:
        if self.total >= self._stale_at:
            share = PRIOR / (BINS + 1)
            counts = [count + share for count in self._counts]
            self._worth = array("f", gittins(counts, self._endless + share))
            self._stale_at = self.total + 1 + self.total // NEWS
            self._keep_price = 0.0


def gittins(counts: Sequence[float], endless: float) -> list[float]:
    """The index at the beginning of each bin, of a histogram whose sum is over 0.

    One pass from the right: it is the steepest slope from a point of the curve of (expected idle
    time, expected share of uses) to a later one, thus to a corner of the hull above what is right
    of it, of which a stack holds the corners.
    """
    total = sum(counts) + endless
    used, idled = [0.0], [0.0]
    for index, count in enumerate(counts):
        share = count / total
        width = EDGES[index + 1] - EDGES[index]
        idled.append(idled[-1] + width * max(1 - used[-1] - share / 2, 0.0))
        used.append(used[-1] + share)

    def slope(begin: int, end: int) -> float:
        seconds = idled[end] - idled[begin]
        return (used[end] - used[begin]) / seconds if seconds > 0 else 0.0

    found = [0.0] * BINS
    hull = [BINS]
    for index in range(BINS - 1, -1, -1):
        best = slope(index, hull[-1])
        while len(hull) > 1 and (further := slope(index, hull[-2])) >= best:
            best = further
            hull.pop()
        found[index] = best
        hull.append(index)
    return found


def _bin(age: float) -> int:
    return min(bisect_right(EDGES, age) - 1, BINS)
