"""Containers stay where that saves most, and may come before their call. See
docs/explanation/keep-alive.md.

A container's *rank* is what a second and byte of it saves: its `Gaps.worth` times the seconds that
its start takes, over its memory; so cost and size count as in Greedy-Dual (Fuerst and Sharma,
"FaasCache", ASPLOS 2021). It is kept as long as that is over the price of memory (`MemoryPrice`),
the lowest are evicted first, and a container that has gone is started again when it will be over
the price once more (the pre-warming of Shahrad et al., "Serverless in the Wild", ATC 2020).

Gaps are noted by level: with calls taking the container that was used last, the third one is
needed each time a third call is there, which is another rhythm than that of the first. Containers
that have gone are remembered for that, as ghosts (Megiddo and Modha, "ARC", FAST 2003): a gap does
not end with the container, but with the call that misses it.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence

import attrs

from hostler.abc import KeepAlive, KeptContainer
from hostler.config import AgentConfig

from ._gaps import LONGEST, Gaps
from ._price import MemoryPrice

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
