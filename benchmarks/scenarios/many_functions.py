"""What a call costs when it is one of many hot functions that is called, each in its turn.

The load goes to two LBs with a runner each, one with a single function and one with many, in turn
and within one run: the ratio of two measurements that follow each other says more than either.
"""

from __future__ import annotations

import functools
import statistics
from contextlib import ExitStack

import attrs

from .._measure import Metrics, measure_load
from .._plan import LoadPlan
from .._scenario import Scenario, Settings
from .._target import Target, open_hostler

BODY = 1024
CLIENTS = 8
COUNTS = (1, 100, 1000)
"""With 1 both sides are the same: how far the ratios are from 1 then is what they can't tell."""
PAIRS = 4
WARM_UP_PER_FUNCTION = 0.02
"""Seconds. A function's first call starts a process."""
FUNCTION = {"memory": 4, "idle_timeout": 300}
"""A thousand of them have to fit into the machine's memory."""
ENV = {"FN_MAX_TOTAL_MEMORY_BYTES": str(2**40)}
NODES = ("lb", "runner")


def _measure(target: Target, settings: Settings, *, count: int) -> Metrics:
    """`PAIRS` times both, each for half of the settings' seconds, in changing order."""
    short = attrs.evolve(settings, seconds=settings.seconds / 2, warm_up=settings.warm_up / 2)
    counts = {"one": 1, "many": count}
    found: dict[str, list[Metrics]] = {side: [] for side in counts}
    with ExitStack() as stack:
        targets = {}
        for side, number in counts.items():
            functions = {f"echo-{each}": FUNCTION for each in range(number)}
            targets[side] = stack.enter_context(open_hostler(functions, settings.driver, ENV))
            seconds = number * WARM_UP_PER_FUNCTION
            measure_load(targets[side], _plan(targets[side], short, warm_up=seconds))
        for number in range(PAIRS):
            for side in sorted(counts, reverse=number % 2 == 1):
                one = targets[side]
                found[side].append(measure_load(one, _plan(one, short, warm_up=short.warm_up)))
    return _compare(found["many"], found["one"])


def _plan(target: Target, settings: Settings, *, warm_up: float) -> LoadPlan:
    first, *others = target.paths.values()
    return LoadPlan(
        address=target.address,
        path=first,
        others=tuple(others),
        connections=CLIENTS,
        body_size=BODY,
        warm_up=warm_up,
        seconds=settings.seconds,
    )


def _compare(many: list[Metrics], one: list[Metrics]) -> Metrics:
    """Medians of both sides, and of the ratios of the pairs."""
    metrics: Metrics = {}
    for node in NODES:
        cost = f"cpu_us_per_request/{node}"
        ratios = [a[cost] / b[cost] for a, b in zip(many, one, strict=True)]
        metrics[f"{node}_over_one"] = statistics.median(ratios)
        metrics[f"{node}_over_one_least"] = min(ratios)
        metrics[f"{node}_over_one_most"] = max(ratios)
        metrics[cost] = statistics.median(run[cost] for run in many)
        metrics[f"{cost}-of-one"] = statistics.median(run[cost] for run in one)
        metrics[f"resident_mb/{node}"] = many[-1][f"resident_mb/{node}"]
    for name in ("requests_per_s", "latency_p50_us", "latency_p99_us"):
        metrics[name] = statistics.median(run[name] for run in many)
        metrics[f"{name}/one"] = statistics.median(run[name] for run in one)
    metrics["cpus_of_others"] = max(run["cpus_of_others"] for run in (*many, *one))
    return metrics


SCENARIOS = tuple(
    Scenario(
        name=f"many-functions-{count}",
        about=f"1 KiB echo, {CLIENTS} clients, {count} function(s) in turn, beside a single one",
        measure=functools.partial(_measure, count=count),
        target="none",
    )
    for count in COUNTS
)
