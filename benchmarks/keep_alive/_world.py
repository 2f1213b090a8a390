"""One simulated runner on virtual time, which asks a keep-alive policy as the real agent does.

A call takes the idle container that was used last. Without one a container is launched for it,
if need be in the place of others, which the product's own choice of victims finds; it takes
whatever comes first, that one or another of its function. Calls without room stand in line.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

import attrs

from benchmarks.simulator._workload import Arrival
from hostler.abc import KeepAlive
from hostler.agent import Resources
from hostler.agent.resources import choose_victims

COLD_SECONDS = 0.5
"""From nothing to a container that takes its call, as in the simulator of placers."""
MIB = 2**20


@attrs.define(eq=False)
class Held:
    """A container."""

    key: str
    memory: int
    idle_timeout: float
    ahead: bool = False
    start_seconds: float = COLD_SECONDS
    idle_since: float = math.inf
    level: int = 1
    check_at: float = math.inf
    """When its time may be over."""

    @property
    def size(self) -> Resources:
        return Resources(self.memory)


@attrs.define(eq=False)
class _Queue:
    """The containers and waiting calls of one function. ``idle``: the last used at the end."""

    key: str
    memory: int
    idle: list[Held] = attrs.Factory(list)
    waiting: deque[Arrival] = attrs.Factory(deque)
    starting: int = 0
    busy: int = 0


@attrs.define
class Tally:
    """What was counted. ``cold``: calls that found no idle container. Byte-seconds of ``held`` and,
    of that, ``idle`` memory; bytes of the ``peak``."""

    calls: int = 0
    cold: int = 0
    launches: int = 0
    ahead: int = 0
    evictions: int = 0
    held: float = 0.0
    idle: float = 0.0
    peak: int = 0


class World:
    """A runner with ``memory`` bytes. What happens before ``begin`` is not counted."""

    def __init__(
        self, policy: KeepAlive, memory: int, *, idle_timeout: float, begin: float = 0.0
    ) -> None:
        self.tally = Tally()
        self._policy = policy
        self._total = self._free = memory
        self._idle_timeout = idle_timeout
        self._begin = begin
        self._queues: dict[str, _Queue] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = itertools.count()
        self._idle: dict[Held, None] = {}
        self._idle_memory = 0
        self._line: deque[_Queue] = deque()
        self._now = 0.0

    def run(self, arrivals: Sequence[Arrival], until: float) -> Tally:
        for arrival in arrivals:
            self._pass(arrival.at)
            self._arrive(arrival)
        self._pass(until)
        return self.tally

    @property
    def _counting(self) -> bool:
        return self._now >= self._begin

    # --- time ---

    def _at(self, time: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time, next(self._number), event))

    def _advance(self, now: float) -> None:
        seconds = now - max(self._now, self._begin)
        if seconds > 0:
            self.tally.held += seconds * (self._total - self._free)
            self.tally.idle += seconds * self._idle_memory
        self._now = now

    def _pass(self, until: float) -> None:
        """What happens until then."""
        while True:
            start = self._policy.next_start()
            event = self._events[0][0] if self._events else math.inf
            if min(start, event) > until:
                break
            self._advance(max(self._now, min(start, event)))
            if start < event:
                for key in self._policy.starts(self._now):
                    self._start_ahead(self._queues[str(key)])
            else:
                heapq.heappop(self._events)[-1]()
        self._advance(until)

    # --- calls ---

    def _arrive(self, arrival: Arrival) -> None:
        name = arrival.function.name
        queue = self._queues.get(name)
        if queue is None:
            queue = self._queues[name] = _Queue(name, arrival.function.memory * MIB)
        self.tally.calls += self._counting
        if queue.idle:
            container = queue.idle[-1]
            self._take_out(queue, container)
            self._policy.taken(container, self._now)
            self._begin_call(queue, container, arrival)
            return
        self.tally.cold += self._counting
        queue.waiting.append(arrival)
        if queue.starting < len(queue.waiting):
            self._policy.missed(name, self._now)
            if not self._launch(queue):
                self._line.append(queue)

    def _begin_call(self, queue: _Queue, container: Held, arrival: Arrival) -> None:
        container.ahead = False
        queue.busy += 1
        self._at(self._now + arrival.seconds, partial(self._end_call, queue, container))

    def _end_call(self, queue: _Queue, container: Held) -> None:
        queue.busy -= 1
        self._offer(queue, container)

    def _offer(self, queue: _Queue, container: Held) -> None:
        if queue.waiting:
            self._begin_call(queue, container, queue.waiting.popleft())
            return
        container.idle_since = self._now
        container.level = queue.busy + 1
        queue.idle.append(container)
        self._idle[container] = None
        self._idle_memory += container.memory
        self._policy.became_idle(container, self._now)
        self._check(queue, container)
        self._serve_line()

    def _serve_line(self) -> None:
        while self._line:
            queue = self._line[0]
            if queue.starting < len(queue.waiting) and not self._launch(queue):
                return
            self._line.popleft()

    # --- containers ---

    def _check(self, queue: _Queue, container: Held) -> None:
        """Find out how long it stays, and look again then."""
        until = self._policy.keep_until(container, self._now)
        if until <= self._now:
            self._remove(queue, container, early=False)
            self._serve_line()
        elif until < math.inf:
            container.check_at = until
            self._at(until, partial(self._look_again, queue, container, until))

    def _look_again(self, queue: _Queue, container: Held, at: float) -> None:
        if container.check_at == at and container in self._idle:
            self._check(queue, container)

    def _take_out(self, queue: _Queue, container: Held) -> None:
        queue.idle.remove(container)
        del self._idle[container]
        self._idle_memory -= container.memory
        container.check_at = math.inf

    def _remove(self, queue: _Queue, container: Held, *, early: bool) -> None:
        self._take_out(queue, container)
        self._free += container.memory
        self._policy.left(container, self._now, early=early)

    def _launch(self, queue: _Queue) -> bool:
        missing = queue.memory - self._free
        if missing > 0:
            victims = choose_victims(self._ranked(), Resources(missing), spare=queue.key)
            if not victims:
                return False
            for victim in victims:
                self.tally.evictions += self._counting
                self._remove(self._queues[victim.key], victim, early=True)
        self._start(queue, ahead=False)
        return True

    def _ranked(self) -> list[Held]:
        ranks = [(self._policy.rank(one, self._now), one.idle_since, one) for one in self._idle]
        ranks.sort(key=lambda entry: entry[:2])
        return [container for _, _, container in ranks]

    def _start_ahead(self, queue: _Queue) -> None:
        if not (queue.idle or queue.starting or self._line) and queue.memory <= self._free:
            self.tally.ahead += self._counting
            self._start(queue, ahead=True)

    def _start(self, queue: _Queue, *, ahead: bool) -> None:
        self._free -= queue.memory
        queue.starting += 1
        if self._counting:
            self.tally.launches += 1
            self.tally.peak = max(self.tally.peak, self._total - self._free)
        container = Held(queue.key, queue.memory, self._idle_timeout, ahead)
        self._at(self._now + COLD_SECONDS, partial(self._ready, queue, container))

    def _ready(self, queue: _Queue, container: Held) -> None:
        queue.starting -= 1
        self._offer(queue, container)
