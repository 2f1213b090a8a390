"""Policies to compare with, and what could be reached by who knows the future."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence

from benchmarks.simulator._workload import Arrival
from hostler.abc import KeepAlive, KeptContainer
from hostler.keep_alive import FixedKeepAlive


class Timeout(FixedKeepAlive):
    """The same fixed time for all; eviction by least recent use."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds

    def keep_until(self, container: KeptContainer, now: float) -> float:
        return container.idle_since + self._seconds

    def rank(self, container: KeptContainer, now: float) -> float:
        return container.idle_since


class GreedyDual(KeepAlive):
    """Greedy-Dual-Size-Frequency as Fuerst and Sharma use it ("FaasCache", ASPLOS 2021): containers
    stay until the room is needed, and the one with the lowest priority goes first."""

    def __init__(self) -> None:
        self._clock = 0.0
        self._calls: Counter[Hashable] = Counter()
        self._priorities: dict[KeptContainer, float] = {}

    def became_idle(self, container: KeptContainer, now: float) -> None:
        value = self._calls[container.key] * container.start_seconds / container.memory
        self._priorities[container] = self._clock + value

    def taken(self, container: KeptContainer, now: float) -> None:
        self._calls[container.key] += 1
        del self._priorities[container]

    def missed(self, key: Hashable, now: float) -> None:
        self._calls[key] += 1

    def left(self, container: KeptContainer, now: float, *, early: bool) -> None:
        self._clock = max(self._clock, self._priorities.pop(container))

    def keep_until(self, container: KeptContainer, now: float) -> float:
        return math.inf

    def rank(self, container: KeptContainer, now: float) -> float:
        return self._priorities.get(container, 0.0)


def clairvoyant(arrivals: Iterable[Arrival], idle: float, *, begin: float, until: float) -> float:
    """The least share of cold calls, of those from ``begin`` on, that can be had with ``idle`` MB
    of idle memory on average and nothing started ahead of its call.

    Calls of a function take containers last in, first out, so the k-th container is needed again
    when k calls are there again: its gaps depend on the calls alone. Each gap that is kept takes
    its memory for its time and saves one cold start, so the cheapest gaps are kept. It needs no
    time for starts and no room for what is busy, so no policy does better, and none as well.
    """
    moments: dict[str, list[tuple[float, int]]] = {}
    sizes: dict[str, int] = {}
    calls = 0
    for arrival in arrivals:
        name = arrival.function.name
        sizes[name] = arrival.function.memory
        own = moments.setdefault(name, [])
        own += [(arrival.at, 1), (arrival.at + arrival.seconds, 0)]
        calls += arrival.at >= begin
    costs = [
        sizes[name] * gap for name, own in moments.items() for gap in _gaps(sorted(own), begin)
    ]
    left = idle * (until - begin)
    warm = 0
    for cost in sorted(costs):
        left -= cost
        if left < 0:
            break
        warm += 1
    return (calls - warm) / calls if calls else 0.0


def _gaps(moments: Sequence[tuple[float, int]], begin: float) -> Iterable[float]:
    """Idle times of a function's containers that a call from ``begin`` on has ended."""
    since: list[float] = []
    for at, starts in moments:
        if not starts:
            since.append(at)
        elif since:
            gap = at - since.pop()
            if at >= begin:
                yield gap
