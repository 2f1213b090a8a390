"""The scenarios that run an agent in a process of their own."""

from __future__ import annotations

import pytest

from benchmarks._embedded import run_module
from benchmarks._measure import RunFailed
from benchmarks.cold import ColdPlan
from benchmarks.soak import SoakPlan


def test_cold_calls_are_split_by_stage() -> None:
    metrics = run_module("cold", ColdPlan(driver="process", rounds=1))
    stages = [metrics[f"agent_{name}_ms"] for name in ("prepare", "create_and_start", "socket")]
    assert all(stages)
    assert sum(stages) < metrics["cold_call_ms"]
    assert metrics["driver_create_and_start_ms"] < metrics["driver_total_ms"]
    assert metrics["hot_call_ms"] < metrics["cold_call_ms"]


def test_the_soak_tells_what_is_left() -> None:
    metrics = run_module("soak", SoakPlan(driver="process", calls=200))
    assert metrics["containers_launched"] > 20
    assert 0 < metrics["calls_hit_percent"] < 50
    assert not any(value for name, value in metrics.items() if name.startswith("left_"))


def test_a_process_that_fails_fails_the_run() -> None:
    with pytest.raises(RunFailed, match="cold ended with code 1"):
        run_module("cold", ColdPlan(driver="process", rounds=0))
