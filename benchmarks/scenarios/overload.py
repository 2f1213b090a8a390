"""A runner with room for two containers: four times what it can do, and clients in a loop.

Ideal: 20 calls a second. With 80 a second for 20 s, and clients that wait for 30 s, 1 000 of the
1 600 calls can be served, and the best for the others is to hear it at once.

Most clients do not tell how long they wait; they leave. Whom to serve then, and whom to refuse,
the nodes can only learn from those that have left. The best is still 20 calls a second, all of
clients that are there to take the answer, and nobody that waits in vain. If a client leaves a call
that runs, its container ends with it: each start beyond the first two is such a loss.
"""

from __future__ import annotations

import contextlib
import functools
import random
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from .._counters import launches, read_samples, until_containers
from .._measure import Metrics, RunFailed, measure_load
from .._plan import LEFT, Ask, Crowd, CrowdPlan, LoadPlan
from .._scenario import Scenario, Settings
from .._target import Target, open_hostler, open_serve
from .._usage import usage_of
from ..crowd import run_crowd
from .growth import health_of, percentile, rate_between, singles

MIB = 2**20
RATE, SECONDS, PATIENCE = 80.0, 20.0, 30.0
WORK: Mapping[str, str] = {"Fnt-Do": "sleep=100"}
ENV: Mapping[str, str] = {"FN_MAX_TOTAL_MEMORY_BYTES": str(2 * 128 * MIB)}
FUNCTIONS: Mapping[str, Mapping[str, Any]] = {"work": {"memory": 128}}
CLIENTS = (8, 64)
EARLY = 1.0
"""Seconds; a refusal that takes longer is none that helps."""


def _measure_overload(target: Target, settings: Settings) -> Metrics:
    before = {name: usage_of(pids).cpu_us for name, pids in target.processes().items()}
    attempts_before = _attempts(target)
    ask = Ask(
        path=target.paths["work"],
        headers={**WORK, "Fn-Request-Timeout": f"{PATIENCE:.0f}s"},
    )
    arrivals = [number / RATE for number in range(round(RATE * SECONDS))]
    crowd = Crowd(asks=[ask], arrivals=arrivals, patience=[PATIENCE] * len(arrivals))
    result = run_crowd(CrowdPlan(address=target.address, crowds=[crowd], seconds=SECONDS))
    after = {name: usage_of(pids).cpu_us for name, pids in target.processes().items()}
    took: dict[int, list[float]] = {}
    for one in result.answered:
        took.setdefault(one.status, []).append(one.took)
    served, refused, left = (took.pop(status, []) for status in (200, 503, LEFT))
    cut = took.pop(500, [])  # taken by the runner when its time was nearly over
    if took:
        counts = {status: len(times) for status, times in took.items()}
        raise RunFailed(f"unexpected answers: {counts} {result.first_error}")
    attempts_after = _attempts(target)
    attempts = {bound: count - attempts_before[bound] for bound, count in attempts_after.items()}
    return {
        "served": len(served),
        "refused_early": sum(seconds <= EARLY for seconds in refused),
        "refused_late": sum(seconds > EARLY for seconds in refused),
        "left_or_cut": len(left) + len(cut),
        "refusal_max_ms": max(refused, default=0.0) * 1e3,
        "latency_max_ms": max(served, default=0.0) * 1e3,
        "attempts_p99_at_most": _percentile(attempts, 0.99),
        **{f"cpu_s/{name}": (after[name] - before[name]) / 1e6 for name in before},
    }


def _attempts(target: Target) -> dict[float, float]:
    """Of the LB's histogram of attempts per call: counts by upper bound."""
    return {
        float(name.split('"')[1]): value
        for name, value in read_samples(target.address).items()
        if name.startswith("fn_lb_placer_attempt_count_bucket")
    }


def _percentile(buckets: Mapping[float, float], share: float) -> float:
    total = max(buckets.values(), default=0.0)
    return min((bound for bound, count in buckets.items() if count >= share * total), default=0.0)


@attrs.frozen
class _Patience:
    """How long clients wait that do not tell it."""

    about: str
    draw: Callable[[random.Random], float]
    first_over: float
    """Seconds after which half of the first ones would have left."""


UNTOLD: Mapping[str, _Patience] = {
    "3s": _Patience("3 s", lambda _: 3.0, 3.0),
    "10s": _Patience("10 s", lambda _: 10.0, 10.0),
    "30s": _Patience("30 s", lambda _: 30.0, 30.0),
    "1to30s": _Patience("1 to 30 s", lambda chance: chance.uniform(1.0, 30.0), 15.5),
    "2or60s": _Patience("2 s or 60 s", lambda chance: chance.choice((2.0, 60.0)), 2.0),
}


def _measure_untold(
    target: Target,
    settings: Settings,
    *,
    patience: _Patience,
    seconds: float,
    serve: bool,
) -> Metrics:
    opened: Callable[..., contextlib.AbstractContextManager[Target]]
    opened = open_serve if serve else open_hostler
    env = {**ENV, "FN_HTTP_BIND": "127.0.0.1:0"}
    # What both containers can do, where nobody has to have them started.
    warm = {"work": {**FUNCTIONS["work"], "annotations": {"hostler/min-warm": 2}}}
    with opened(warm, settings.driver, env) as nodes:
        singles(nodes, "work", dict(WORK), count=1)
        until_containers(nodes, "work", 2)
        ask = Ask(path=nodes.paths["work"], headers=dict(WORK))
        length = settings.scaled(5.0)
        both = Crowd(asks=[ask], clients=[(0.0, 2)])
        alone = run_crowd(CrowdPlan(address=nodes.address, crowds=[both], seconds=length))
        capacity = rate_between(alone.answered, length / 5, length)
    with opened(FUNCTIONS, settings.driver, env) as nodes:
        return _leave_untold(nodes, settings, patience, settings.scaled(seconds), capacity)


def _leave_untold(
    nodes: Target, settings: Settings, patience: _Patience, seconds: float, capacity: float
) -> Metrics:
    ask = Ask(path=nodes.paths["work"], headers=dict(WORK))
    singles(nodes, "work", dict(WORK), count=1)
    chance = random.Random(1)
    arrivals = [number / RATE for number in range(round(RATE * seconds))]
    crowd = Crowd(
        asks=[ask],
        arrivals=arrivals,
        patience=[settings.scaled(patience.draw(chance)) for _ in arrivals],
    )
    before = {name: usage_of(pids).cpu_us for name, pids in nodes.processes().items()}
    result = run_crowd(CrowdPlan(address=nodes.address, crowds=[crowd], seconds=seconds))
    after = {name: usage_of(pids).cpu_us for name, pids in nodes.processes().items()}
    served = sorted(one.took for one in result.answered if one.status == 200)
    refused = [one for one in result.answered if one.status == 503]
    left = sum(one.status == LEFT for one in result.answered)
    others = len(result.answered) - len(served) - len(refused) - left
    settled = settings.scaled(patience.first_over)
    metrics: Metrics = {
        "share_of_ideal": rate_between(result.answered, 0.0, seconds) / capacity,
        "capacity_per_s": capacity,
        "served": len(served),
        "served/ideal": capacity * seconds,
        "refused": len(refused),
        "refused_without_retry_after": sum(not one.retry_after for one in refused),
        "refusal_p50_ms": percentile([one.took for one in refused], 50) * 1e3,
        "refusal_p99_ms": percentile([one.took for one in refused], 99) * 1e3,
        "left": left,
        "left_share": left / len(arrivals),
        "other_answers": others,
        "containers_lost": launches(nodes) - 2,
        "age_p50_ms": percentile(served, 50) * 1e3,
        "age_p99_ms": percentile(served, 99) * 1e3,
    }
    last = rate_between(result.answered, seconds * 2 / 3, seconds)
    metrics["share_of_ideal/last_third"] = last / capacity
    if settled < seconds:
        rate = rate_between(result.answered, settled, seconds)
        metrics["share_of_ideal/after_first_patience"] = rate / capacity
    metrics |= {f"cpu_s/{name}": (after[name] - before[name]) / 1e6 for name in before}
    health = health_of(result, seconds)
    del health["failed"]  # refusals
    return metrics | health


def _untold(name: str, patience: _Patience) -> list[Scenario]:
    """Against an LB with a runner and against one node, for a short and for a long time."""
    return [
        Scenario(
            name=f"overload-untold-{'serve-' * serve}{name}{ending}",
            about=f"80 calls/s for {seconds:.0f} s, room for 20/s, clients leave after"
            f" {patience.about} and do not tell{', one node' * serve}",
            measure=functools.partial(
                _measure_untold, patience=patience, seconds=seconds, serve=serve
            ),
            target="none",
            only_by_name=True,
        )
        for serve in (False, True)
        for ending, seconds in (("", 15.0), ("-long", 120.0))
    ]


def _measure_fairness(target: Target, settings: Settings, *, clients: int) -> Metrics:
    metrics = measure_load(
        target,
        LoadPlan(
            address=target.address,
            path=target.paths["work"],
            connections=clients,
            body_size=0,
            headers=dict(WORK),
            warm_up=max(settings.warm_up, clients / 20),
            seconds=max(settings.seconds, 20.0),
        ),
    )
    metrics["latency_p99_over_p50"] = metrics["latency_p99_us"] / metrics["latency_p50_us"]
    return metrics


SCENARIOS = (
    Scenario(
        name="overload",
        about="80 calls/s of 100 ms for 20 s, room for 20/s, clients wait 30 s",
        measure=_measure_overload,
        functions=FUNCTIONS,
        env=ENV,
    ),
    *(one for name, patience in UNTOLD.items() for one in _untold(name, patience)),
    *(
        Scenario(
            name=f"fairness-{clients}",
            about=f"{clients} clients in a loop, calls of 100 ms, room for two at a time",
            measure=functools.partial(_measure_fairness, clients=clients),
            functions=FUNCTIONS,
            env=ENV,
        )
        for clients in CLIENTS
    ),
)
