"""What a placer could reach that knows the future, on a fleet without borders.

All memory is one runner's, so nothing is lost between runners. A call takes an idle container, or
waits for the one that is free first if that is sooner than a start, which nobody else knows
exactly. Containers are evicted whose next call is furthest away (Belady, "A study of replacement
algorithms for a virtual-storage computer", IBM Systems Journal 5(2), 1966). Cold starts and idle
timeouts are those of the runners. It starts nothing ahead of a call, as no placer can.

Not a proven bound: with containers of several sizes Belady's rule is only close to the best. But
no placer that has to do with runners and guesses gets past it by much.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Sequence

import attrs

from tests.support.simulated_runner import COLD_SECONDS, IDLE_SECONDS

from ._workload import Arrival


@attrs.define(eq=False)
class _Kind:
    """One function. ``ends`` are when its busy containers will be free, ``idle`` since when the
    others have been, ``calls`` when its calls come, of which ``seen`` have."""

    memory: int
    calls: list[float] = attrs.Factory(list)
    seen: int = 0
    ends: list[float] = attrs.Factory(list)
    idle: deque[float] = attrs.Factory(deque)
    waiting: deque[Arrival] = attrs.Factory(deque)

    def next_use(self) -> float:
        """When the last of the idle ones is needed again."""
        place = self.seen + len(self.idle) - 1
        return self.calls[place] if place < len(self.calls) else math.inf


@attrs.define
class Served:
    """A call and when it ended; ``cold``: a container was started for it."""

    arrival: Arrival
    end: float
    cold: bool


class Oracle:
    """``memory`` in MB, of all runners together."""

    def __init__(self, memory: int) -> None:
        self._free = memory
        self._kinds: dict[str, _Kind] = {}
        self._events: list[tuple[float, str]] = []
        """When containers may be free."""
        self._victims: list[tuple[float, str]] = []
        """Negative times of next use, of those that were ever idle: old entries are skipped."""
        self._line: deque[Arrival] = deque()
        self.served: list[Served] = []

    def run(self, arrivals: Sequence[Arrival]) -> None:
        for arrival in arrivals:
            name = arrival.function.name
            kind = self._kinds.setdefault(name, _Kind(arrival.function.memory))
            kind.calls.append(arrival.at)
        for arrival in arrivals:
            self._pass(arrival.at)
            self._kinds[arrival.function.name].seen += 1
            if not self._place(arrival, arrival.at):
                self._kinds[arrival.function.name].waiting.append(arrival)
                self._line.append(arrival)
        self._pass(math.inf)

    def _pass(self, now: float) -> None:
        """What happens until ``now``."""
        while self._events and self._events[0][0] <= now:
            at, name = heapq.heappop(self._events)
            kind = self._kinds[name]
            while kind.ends and kind.ends[0] <= at:
                heapq.heappop(kind.ends)
                self._idle(name, kind, at)
            while self._line and self._try_head(at):
                pass

    def _try_head(self, now: float) -> bool:
        head = self._line[0]
        kind = self._kinds[head.function.name]
        if not kind.waiting or kind.waiting[0] is not head:  # served before, by its own kind
            self._line.popleft()
        elif self._place(head, now):
            kind.waiting.popleft()
            self._line.popleft()
        else:
            return False
        return True

    def _idle(self, name: str, kind: _Kind, now: float) -> None:
        if kind.waiting:
            self._begin(kind, kind.waiting.popleft(), now, cold=False)
            return
        kind.idle.append(now)
        heapq.heappush(self._victims, (-kind.next_use(), name))

    def _place(self, arrival: Arrival, now: float) -> bool:
        name = arrival.function.name
        kind = self._kinds[name]
        self._expire(kind, now)
        if kind.idle:
            kind.idle.pop()
            self._begin(kind, arrival, now, cold=False)
        elif kind.ends and kind.ends[0] <= now + COLD_SECONDS and not kind.waiting:
            self._begin(kind, arrival, heapq.heappop(kind.ends), cold=False)
        elif self._make_room(kind.memory, now):
            self._begin(kind, arrival, now + COLD_SECONDS, cold=True)
        else:
            return False
        return True

    def _begin(self, kind: _Kind, arrival: Arrival, at: float, *, cold: bool) -> None:
        end = at + arrival.seconds
        heapq.heappush(kind.ends, end)
        heapq.heappush(self._events, (end, arrival.function.name))
        self.served.append(Served(arrival, end, cold))

    def _expire(self, kind: _Kind, now: float) -> None:
        while kind.idle and kind.idle[0] < now - IDLE_SECONDS:
            kind.idle.popleft()
            self._free += kind.memory

    def _make_room(self, memory: int, now: float) -> bool:
        while self._free < memory and self._victims:
            next_use, name = heapq.heappop(self._victims)
            kind = self._kinds[name]
            self._expire(kind, now)
            if not kind.idle:
                continue
            if -next_use != kind.next_use():  # other containers or calls came meanwhile
                heapq.heappush(self._victims, (-kind.next_use(), name))
                continue
            kind.idle.popleft()
            self._free += kind.memory
            if kind.idle:
                heapq.heappush(self._victims, (-kind.next_use(), name))
        if self._free < memory:
            return False
        self._free -= memory
        return True
