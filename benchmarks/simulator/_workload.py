"""A synthetic load with the shape of Azure's functions.

Sources: Shahrad et al., "Serverless in the Wild", USENIX ATC 2020: the most popular 18.6 % of the
functions make 99.4 % of the calls; execution times are lognormal(-0.38, 2.36) seconds; memory is
Burr type XII (c = 11.652, k = 0.221, scale 107.083 MB).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator

import attrs

POPULAR = 0.186
"""Share of the functions that make `POPULAR_CALLS` of the calls."""
POPULAR_CALLS = 0.994
DURATION_MU, DURATION_SIGMA = -0.38, 2.36
"""Natural logarithm of seconds."""
MEMORY_C, MEMORY_K, MEMORY_SCALE = 11.652, 0.221, 107.083
MAX_SECONDS = 30.0
"""A function's default timeout in Fn; what would take longer is cut there."""
MAX_MEMORY = 1024
"""MB; so that each function fits on a runner several times."""
CALL_SIGMA = 0.5
"""How much the calls of one function differ, as the sigma of a lognormal factor with mean 1."""
BURST = 10
"""Mean calls in a burst of a function that is called in bursts."""


@attrs.frozen
class Function:
    """``rate`` in calls per second, ``seconds`` the mean duration, ``memory`` in MB."""

    name: str
    rate: float
    seconds: float
    memory: int
    arrivals: Callable[[random.Random, float, float], Iterator[float]]


@attrs.frozen
class Arrival:
    at: float
    function: Function
    seconds: float


def make_functions(rng: random.Random, count: int, megabytes: float) -> list[Function]:
    """``count`` functions that together keep ``megabytes`` of memory busy on average."""
    weights = _popularity(count)
    rng.shuffle(weights)
    kinds = (poisson, periodic, bursts)
    drafts = [(weight, _seconds(rng), _memory(rng)) for weight in weights]
    need = sum(weight * seconds * memory for weight, seconds, memory in drafts)
    return [
        Function(f"{index:08d}", weight * megabytes / need, seconds, memory, kinds[index % 3])
        for index, (weight, seconds, memory) in enumerate(drafts)
    ]


def make_arrivals(rng: random.Random, functions: list[Function], until: float) -> list[Arrival]:
    """All calls up to ``until`` seconds, in order."""
    found = [
        Arrival(at, function, function.seconds * _factor(rng))
        for function in functions
        for at in function.arrivals(rng, function.rate, until)
    ]
    found.sort(key=lambda arrival: arrival.at)
    return found


def _popularity(count: int) -> list[float]:
    """Shares of the calls: those of the popular ones fall off as 1/rank, the others' are equal."""
    popular = max(1, round(count * POPULAR))
    ranks = [1 / rank for rank in range(1, popular + 1)]
    total = sum(ranks)
    others = count - popular
    rest = [(1 - POPULAR_CALLS) / others] * others if others else []
    return [POPULAR_CALLS * rank / total for rank in ranks] + rest


def _seconds(rng: random.Random) -> float:
    return min(rng.lognormvariate(DURATION_MU, DURATION_SIGMA), MAX_SECONDS)


def _memory(rng: random.Random) -> int:
    """By the inverse of the distribution function."""
    tail = math.pow(1 - rng.random(), -1 / MEMORY_K) - 1
    return min(MAX_MEMORY, math.ceil(MEMORY_SCALE * math.pow(tail, 1 / MEMORY_C)))


def _factor(rng: random.Random) -> float:
    return rng.lognormvariate(-(CALL_SIGMA**2) / 2, CALL_SIGMA)


def poisson(rng: random.Random, rate: float, until: float) -> Iterator[float]:
    at = rng.expovariate(rate)
    while at < until:
        yield at
        at += rng.expovariate(rate)


def periodic(rng: random.Random, rate: float, until: float) -> Iterator[float]:
    at = rng.random() / rate
    while at < until:
        yield at
        at += rng.uniform(0.95, 1.05) / rate


def bursts(rng: random.Random, rate: float, until: float) -> Iterator[float]:
    """Bursts come at random; within one, calls follow ten times as fast as on average."""
    for start in poisson(rng, rate / BURST, until):
        at = start
        while at < until:
            yield at
            if rng.random() < 1 / BURST:
                break
            at += rng.expovariate(rate * BURST)
