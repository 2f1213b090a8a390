"""Predictive keep-alive: gaps, price of memory, starts ahead.

A container's *rank* is what a second and byte of it saves: its `Gaps.worth` times the seconds that
its start takes, over its memory; so cost and size count as in Greedy-Dual (Fuerst and Sharma,
"FaasCache", ASPLOS 2021). It is kept as long as that is over the price of memory (`MemoryPrice`),
the lowest are evicted first, and a container that has gone is started again when it will be over
the price once more (the pre-warming of Shahrad et al., "Serverless in the Wild", ATC 2020).

`Gaps` is a histogram of idle times, as in Shahrad et al., with two differences. Bins grow
geometrically, so that seconds and hours are told apart equally well. And instead of a head and a
tail percentile it answers for each age what it is worth to keep the container, by the *Gittins
index*: of all times to give up, the largest ratio of the probability that the container is needed
until then to the time that it is expected to idle until then (Gittins, "Bandit Processes and
Dynamic Allocation Indices", Journal of the Royal Statistical Society B 41(2), 1979).

Gaps are noted by level: with calls taking the container that was used last, the third one is
needed each time a third call is there, which is another rhythm than that of the first. Containers
that have gone are remembered for that, as ghosts (Megiddo and Modha, "ARC", FAST 2003): a gap does
not end with the container, but with the call that misses it.

The price takes the place of a limit: each container is kept for as long as it is worth the price,
so all memory goes where it saves most (a Lagrange multiplier). It rises while more is used than
fixed timeouts would use, and falls while less is.
"""

from __future__ import annotations

import heapq
import itertools
import math
from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence

import attrs

from ..abc import KeepAlive, KeptContainer
from ..config import AgentConfig

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


FUNCTIONS = 1000
"""Functions that are known at most; those that were not called for longest are forgotten."""

EXACT_LEVELS = 16
"""Levels up to this have gaps of their own; above, four levels per doubling."""

LEVELS = EXACT_LEVELS + 24
"""Of one function at most: up to 1024 busy containers; more are all alike."""

GHOSTS = 16
"""Of one function at most."""

FEW = 2
"""Gaps; below that many a container stays for its function's ``idle_timeout``."""

LIKELY = 0.5
"""How probable it must be that a container that is started ahead of a call gets one."""

LEAD = 2.0
"""How much earlier than it is wanted a container is started, in times that a start takes."""

LATEST = 0.2
"""Weight of the latest start in the mean time that a start takes."""

LEAST_START = 0.001
"""Seconds that a start takes at least: one that costs nothing could never be worth anything."""


@attrs.define(eq=False)
class _Ghost:
    """A container that has gone, whose gap goes on. ``credit`` = the seconds that a fixed timeout
    was taken to have kept it."""

    since: float
    level: int
    credit: float
    wanted: float = 0.0
    """The age at which a container is to be there again, if one is started ahead."""
    due: bool = False
    """A start for it is planned."""
    started: bool = False
    """A container was asked for in its place."""


@attrs.define(eq=False)
class _Function:
    """What is known of one slot key."""

    gaps: dict[int, Gaps] = attrs.Factory(dict)
    ghosts: list[_Ghost] = attrs.Factory(list)
    """Those that have idled for longest come first."""
    memory: int = 0
    idle_timeout: float = 0.0
    start_seconds: float = 0.0
    """The mean."""
    latest_start: float = -1.0

    def of_level(self, level: int) -> Gaps:
        found = self.gaps.get(level)
        if found is None:
            found = self.gaps[level] = Gaps()
        return found


class PredictiveKeepAlive(KeepAlive):
    """Keeps containers for as long as their function's past says that it is worth it, evicts what
    is worth least, and starts some ahead of their calls.

    On average over minutes, idle containers have as much memory as if each were kept for its
    function's ``idle_timeout``, or ``FN_KEEP_ALIVE_PERCENT`` of that.
    """

    starts_ahead = True

    def __init__(self, config: AgentConfig | None = None) -> None:
        config = AgentConfig() if config is None else config
        self._price = MemoryPrice(config.keep_alive_percent / 100)
        self._functions: OrderedDict[Hashable, _Function] = OrderedDict()
        self._ahead: dict[KeptContainer, _Ghost] = {}
        """Idle containers that were started in the place of a ghost."""
        self._planned: list[tuple[float, int, Hashable, _Ghost]] = []
        """A heap of starts. Those whose ghost is not ``due`` any more are skipped."""
        self._number = itertools.count()
        self._due = 0

    def __repr__(self) -> str:
        known, planned = len(self._functions), self._due
        return f"<PredictiveKeepAlive functions={known} planned={planned} {self._price}>"

    # --- what the agent tells ---

    def became_idle(self, container: KeptContainer, now: float) -> None:
        memory = container.memory
        if not memory:
            return
        function = self._function(container.key)
        function.memory, function.idle_timeout = memory, container.idle_timeout
        if container.start_seconds != function.latest_start:
            self._learn_start(function, container.start_seconds)
        self._price.hold(memory, now)
        if container.ahead:
            ghost = next((ghost for ghost in function.ghosts if ghost.started), None)
            if ghost is not None:
                ghost.started = False
                function.ghosts.remove(ghost)
                self._ahead[container] = ghost

    def taken(self, container: KeptContainer, now: float) -> None:
        memory = container.memory
        if not memory:
            return
        self._price.hold(-memory, now)
        function = self._function(container.key)
        ghost = self._ahead.pop(container, None) if self._ahead else None
        if ghost is not None:
            self._end_gap(function, ghost, now)
            return
        gap = now - container.idle_since
        self._price.allow(memory, min(gap, container.idle_timeout))
        function.of_level(_step(container.level)).note(gap)

    def left(self, container: KeptContainer, now: float, *, early: bool) -> None:
        memory = container.memory
        if not memory:
            return
        self._price.hold(-memory, now)
        function = self._function(container.key)
        ghost = self._ahead.pop(container, None)
        if ghost is None:
            age, credit = now - container.idle_since, container.idle_timeout
            if early:  # as it would have been with a fixed timeout
                credit = min(credit, age)
            self._price.allow(memory, credit)
            ghost = _Ghost(container.idle_since, _step(container.level), credit)
            self._plan(container.key, function, ghost, now)
        self._remember(function, ghost, now)

    def missed(self, key: Hashable, now: float) -> None:
        function = self._functions.get(key)
        if function is not None and function.ghosts:
            ghost = function.ghosts.pop()
            self._cancel(ghost)
            self._end_gap(function, ghost, now)

    # --- what the agent asks ---

    def keep_until(self, container: KeptContainer, now: float) -> float:
        if not container.memory:
            return container.idle_since + container.idle_timeout
        function = self._function(container.key)
        since, age, level = self._age(container, now)
        gaps = function.of_level(level)
        if gaps.total < FEW:
            return since + container.idle_timeout
        return since + gaps.keep_age(age, self._threshold(function))

    def rank(self, container: KeptContainer, now: float) -> float:
        if not container.memory:
            return 0.0
        function = self._function(container.key)
        _, age, level = self._age(container, now)
        worth = function.of_level(level).worth(age)
        return worth * function.start_seconds / container.memory

    def starts(self, now: float) -> Sequence[Hashable]:
        return tuple(self._take_starts(now))

    def next_start(self) -> float:
        planned = self._planned
        while planned and not planned[0][-1].due:
            heapq.heappop(planned)
        return planned[0][0] if planned else math.inf

    # --- inside ---

    def _function(self, key: Hashable) -> _Function:
        function = self._functions.get(key)
        if function is not None:
            self._functions.move_to_end(key)
            return function
        if len(self._functions) >= FUNCTIONS:
            _, forgotten = self._functions.popitem(last=False)
            for ghost in forgotten.ghosts:
                self._cancel(ghost)
        function = self._functions[key] = _Function()
        return function

    def _age(self, container: KeptContainer, now: float) -> tuple[float, float, int]:
        """Since when its gap lasts, how old that is to be taken for, and the level."""
        ghost = self._ahead.get(container) if self._ahead else None
        if ghost is None:
            return container.idle_since, now - container.idle_since, _step(container.level)
        return ghost.since, max(now - ghost.since, ghost.wanted), ghost.level

    def _learn_start(self, function: _Function, seconds: float) -> None:
        function.latest_start = seconds
        seconds = max(seconds, LEAST_START)
        known = function.start_seconds
        mean = function.start_seconds = known + LATEST * (seconds - known) if known else seconds
        if function.idle_timeout > 0:
            self._price.begin(mean / (function.memory * function.idle_timeout))

    def _threshold(self, function: _Function) -> float:
        """The price of one second of a container, in uses."""
        return self._price.value * function.memory / function.start_seconds

    def _end_gap(self, function: _Function, ghost: _Ghost, now: float) -> None:
        gap = now - ghost.since
        self._price.allow(function.memory, min(gap, function.idle_timeout) - ghost.credit)
        function.of_level(ghost.level).note(gap)

    def _remember(self, function: _Function, ghost: _Ghost, now: float) -> None:
        ghosts = function.ghosts
        place = len(ghosts)
        while place and ghosts[place - 1].since > ghost.since:
            place -= 1
        ghosts.insert(place, ghost)
        while len(ghosts) > GHOSTS or (ghosts and now - ghosts[0].since > LONGEST):
            oldest = ghosts.pop(0)
            self._cancel(oldest)
            function.of_level(oldest.level).note(math.inf)

    def _plan(self, key: Hashable, function: _Function, ghost: _Ghost, now: float) -> None:
        gaps = function.of_level(ghost.level)
        if gaps.total < FEW:
            return
        price = self._threshold(function)
        begin = gaps.return_age(now - ghost.since, price)
        if begin == math.inf or gaps.chance(begin, gaps.keep_age(begin, price)) < LIKELY:
            return
        if len(self._planned) > 2 * self._due + FUNCTIONS:
            self._planned = [plan for plan in self._planned if plan[-1].due]
            heapq.heapify(self._planned)
        ghost.wanted, ghost.due = begin, True
        self._due += 1
        at = ghost.since + begin - LEAD * function.start_seconds
        heapq.heappush(self._planned, (at, next(self._number), key, ghost))

    def _cancel(self, ghost: _Ghost) -> None:
        if ghost.due:
            ghost.due = False
            self._due -= 1

    def _take_starts(self, now: float) -> Iterator[Hashable]:
        while self.next_start() <= now:
            _, _, key, ghost = heapq.heappop(self._planned)
            self._cancel(ghost)
            function = self._function(key)
            worth = function.of_level(ghost.level).worth(ghost.wanted)
            if worth >= self._threshold(function):
                ghost.started = True
                yield key


def _step(level: int) -> int:
    """The levels that have gaps in common have one step."""
    if level <= EXACT_LEVELS:
        return level
    return min(LEVELS, EXACT_LEVELS + int(4 * math.log2(level / EXACT_LEVELS)) + 1)


PERIOD = 5.0
"""Seconds between two adaptions."""

WINDOW = 300.0
"""Seconds in which what was used and allowed counts e times less."""

PACE = 60.0
"""Seconds in which the price changes by the factor e at most."""

RANGE = 1000.0
"""Factor by which the price may become higher or lower than the first one."""


class MemoryPrice:
    """``share`` of what is allowed may be used. Times in seconds, memory in bytes.

    ``value`` is in seconds of starts saved, per byte and second; 0 = nothing is known yet.
    """

    def __init__(self, share: float = 1.0) -> None:
        self.value = 0.0
        self._share = share
        self._first = 0.0
        self._idle = 0
        self._used = self._allowed = 0.0
        """Byte-seconds."""
        self._counted_at = self._adapted_at = -math.inf

    def __repr__(self) -> str:
        return f"<MemoryPrice {self.value:.3g} idle={self._idle}>"

    def begin(self, price: float) -> None:
        """Start with ``price``, unless there is one."""
        if not self.value:
            self.value = self._first = price

    def hold(self, memory: int, now: float) -> None:
        """So much more memory is idle from here on; negative = less."""
        if self._idle:
            self._used += self._idle * (now - self._counted_at)
        self._counted_at = now
        self._idle += memory
        if now - self._adapted_at >= PERIOD:
            self._adapt(now)

    def allow(self, memory: int, seconds: float) -> None:
        """A fixed timeout would have kept ``memory`` idle for ``seconds`` more."""
        self._allowed += memory * seconds

    def _adapt(self, now: float) -> None:
        seconds = now - self._adapted_at
        self._adapted_at = now
        if seconds == math.inf:
            return
        fade = math.exp(-seconds / WINDOW)
        self._used *= fade
        self._allowed *= fade
        allowed = self._allowed * self._share
        if allowed > 0:
            excess = min(self._used / allowed - 1, 1.0)
            value = self.value * math.exp(excess * min(seconds / PACE, 1.0))
            self.value = min(max(value, self._first / RANGE), self._first * RANGE)
