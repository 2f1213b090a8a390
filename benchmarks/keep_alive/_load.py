"""Hours of calls, with the functions of the simulator of placers.

Only the total rate is set in another way: not by the memory that is to be busy, but so that the
popular functions are those that are called at least once a minute, as it is with Azure (Shahrad et
al., "Serverless in the Wild", USENIX ATC 2020: 18.6 % of the functions).
"""

from __future__ import annotations

import random

import attrs

from benchmarks.simulator._workload import (
    POPULAR,
    Arrival,
    Function,
    make_arrivals,
    make_functions,
    periodic,
    poisson,
)

LEAST_POPULAR = 1 / 60
"""Calls per second of the least popular of the popular functions."""


def make_load(
    seed: int, count: int, seconds: float, *, regular: bool = True, busy: float = 0.0
) -> list[Arrival]:
    """The calls of ``count`` functions. ``regular=False``: those that come at regular times come
    at random too. ``busy``: MB that are busy on average, as in the simulator of placers; 0 = the
    rate is Azure's."""
    rng = random.Random(seed)
    functions = make_functions(rng, count, busy or 1.0)
    factor = 1.0
    if not busy:
        rates = sorted((one.rate for one in functions), reverse=True)
        factor = LEAST_POPULAR / rates[max(1, round(count * POPULAR)) - 1]
    return make_arrivals(
        rng, [_changed(one, factor, regular=regular) for one in functions], seconds
    )


def _changed(function: Function, factor: float, *, regular: bool) -> Function:
    arrivals = function.arrivals
    if arrivals is periodic and not regular:
        arrivals = poisson
    return attrs.evolve(function, rate=function.rate * factor, arrivals=arrivals)
