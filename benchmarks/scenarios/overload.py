"""A runner with room for two containers: four times what it can do, and clients in a loop.

Ideal: 20 calls a second. With 80 a second for 20 s, and clients that wait for 30 s, 1 000 of the
1 600 calls can be served, and the best for the others is to hear it at once.
"""

from __future__ import annotations

import functools
import urllib.request
from collections.abc import Mapping
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from .._measure import Metrics, RunFailed, measure_load
from .._plan import LoadPlan
from .._scenario import Scenario, Settings
from .._target import Target
from .._usage import usage_of
from ..open_loop import OpenPlan, run_open_loop

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
    result = run_open_loop(
        OpenPlan(
            address=target.address,
            path=target.paths["work"],
            rate=RATE,
            seconds=SECONDS,
            patience=PATIENCE,
            headers={**WORK, "Fn-Request-Timeout": f"{PATIENCE:.0f}s"},
        )
    )
    if result.broken:
        raise RunFailed(f"{len(result.broken)} clients had no answer: {result.broken[0]}")
    after = {name: usage_of(pids).cpu_us for name, pids in target.processes().items()}
    served, refused = result.answered.pop(200, []), result.answered.pop(503, [])
    cut = result.answered.pop(500, [])  # taken by the runner when its time was nearly over
    if result.answered:
        raise RunFailed(f"unexpected answers: { {k: len(v) for k, v in result.answered.items()} }")
    attempts_after = _attempts(target)
    attempts = {bound: count - attempts_before[bound] for bound, count in attempts_after.items()}
    return {
        "served": len(served),
        "refused_early": sum(seconds <= EARLY for seconds in refused),
        "refused_late": sum(seconds > EARLY for seconds in refused),
        "left_or_cut": result.left + len(cut),
        "refusal_max_ms": max(refused, default=0.0) * 1e3,
        "latency_max_ms": max(served, default=0.0) * 1e3,
        "attempts_p99_at_most": _percentile(attempts, 0.99),
        **{f"cpu_s/{name}": (after[name] - before[name]) / 1e6 for name in before},
    }


def _attempts(target: Target) -> dict[float, float]:
    """Of the LB's histogram of attempts per call: counts by upper bound."""
    with urllib.request.urlopen(f"http://{target.address}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return {
        float(sample.labels["le"]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "fn_lb_placer_attempt_count_bucket"
    }


def _percentile(buckets: Mapping[float, float], share: float) -> float:
    total = max(buckets.values(), default=0.0)
    return min((bound for bound, count in buckets.items() if count >= share * total), default=0.0)


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
