"""The scenarios that run an agent in a process of their own."""

from __future__ import annotations

import pytest

from benchmarks._embedded import run_module
from benchmarks._kills import NOTICE, Failure, Kill, unexplained
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
    metrics = run_module("soak", SoakPlan(driver="process", calls=200, idle_timeout=2))
    assert metrics["containers_launched"] > 20
    assert metrics["containers_killed"] > 0
    assert metrics["calls_failed_without_a_kill"] == 0
    assert not any(value for name, value in metrics.items() if name.startswith("left_"))
    assert {"resident_kb_per_1000_calls", "resident_kb_per_1000_calls_error"} <= metrics.keys()


def test_each_failed_call_needs_a_kill_of_its_own() -> None:
    first, second = Failure("a", 0, 2, ""), Failure("a", 1, 3, "")
    assert unexplained([first, second], [Kill("a", 2.5), Kill("a", 1.5)]) == []
    assert unexplained([first, second], [Kill("a", 1.5)]) == [second]
    assert unexplained([first], [Kill("a", 2.5), Kill("b", 1.0)]) == [first]
    assert unexplained([first], [Kill("a", 0 - NOTICE)]) == []
    assert unexplained([first], [Kill("a", -0.1 - NOTICE)]) == [first]


def test_a_process_that_fails_fails_the_run() -> None:
    with pytest.raises(RunFailed, match="cold ended with code 1"):
        run_module("cold", ColdPlan(driver="process", rounds=0))
