"""The simulation of keep-alive policies: its runner behaves, and its bound is one."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.keep_alive._load import LEAST_POPULAR, make_load
from benchmarks.keep_alive._plot import plot_results
from benchmarks.keep_alive._report import medians, tables, update_document, write_results
from benchmarks.keep_alive._rivals import GreedyDual, Timeout, clairvoyant
from benchmarks.keep_alive._run import Plan, simulate
from benchmarks.keep_alive._world import COLD_SECONDS, MIB, World
from benchmarks.simulator._workload import POPULAR, Arrival, Function, poisson


def function(name: str, memory: int = 100) -> Function:
    return Function(name, 1.0, 1.0, memory, poisson)


def test_calls_are_cold_warm_and_evict_each_other() -> None:
    world = World(Timeout(30.0), 250 * MIB, idle_timeout=30.0)
    a, b, c = (function(name) for name in "abc")
    arrivals = [Arrival(at, who, 1.0) for at, who in [(0, a), (5, a), (10, b), (15, c), (20, a)]]
    tally = world.run(arrivals, 100.0)
    # c takes the room of a, who was not used for longest, and then a that of b
    assert (tally.calls, tally.cold, tally.launches, tally.evictions) == (5, 4, 4, 2)
    assert tally.peak == 200 * MIB
    busy = 5.0 + 4 * COLD_SECONDS
    assert tally.held - tally.idle == pytest.approx(busy * 100 * MIB)


def test_calls_wait_in_line_for_room() -> None:
    world = World(Timeout(30.0), 100 * MIB, idle_timeout=30.0)
    a, b = function("a"), function("b")
    tally = world.run([Arrival(0.0, a, 10.0), Arrival(1.0, b, 1.0), Arrival(2.0, b, 1.0)], 200.0)
    assert (tally.calls, tally.cold, tally.evictions) == (3, 3, 1)
    assert tally.held == pytest.approx((COLD_SECONDS + 10 + COLD_SECONDS + 2 + 30) * 100 * MIB)


def test_the_bound_keeps_the_cheapest_gaps() -> None:
    small, big = function("small", 10), function("big", 100)
    arrivals = [Arrival(0.0, small, 1.0), Arrival(0.0, big, 1.0)]
    arrivals += [Arrival(11.0, small, 1.0), Arrival(6.0, big, 1.0)]
    ask = {"begin": 0.0, "until": 100.0}
    assert clairvoyant(arrivals, 0.9, **ask) == 1
    assert clairvoyant(arrivals, 1.0, **ask) == 0.75  # 10 MB for 10 of 100 s
    assert clairvoyant(arrivals, 5.9, **ask) == 0.75
    assert clairvoyant(arrivals, 6.0, **ask) == 0.5


def test_greedy_dual_keeps_what_is_called_often() -> None:
    world = World(GreedyDual(), 250 * MIB, idle_timeout=30.0)
    a, b, c = (function(name) for name in "abc")
    calls = [(0, a), (10, a), (20, a), (30, b), (40, c), (50, a)]
    tally = world.run([Arrival(at, who, 1.0) for at, who in calls], 100.0)
    assert tally.evictions == 1
    assert tally.cold == 3


def test_popular_functions_are_called_once_a_minute() -> None:
    arrivals = make_load(1, 200, 20_000.0)
    counts: dict[str, int] = {}
    for arrival in arrivals:
        counts[arrival.function.name] = counts.get(arrival.function.name, 0) + 1
    often = [name for name, count in counts.items() if count > 0.7 * LEAST_POPULAR * 20_000]
    assert len(often) == pytest.approx(200 * POPULAR, abs=8)
    assert {one.function.arrivals for one in make_load(1, 50, 1000.0, regular=False)} > {poisson}


def test_with_the_same_memory_fewer_calls_are_cold(tmp_path: Path) -> None:
    """Few hours and one seed only; by how much, over days, is in the docs."""
    plans = [
        Plan(policy=policy, setting=setting, functions=100, hours=3.0)
        for policy, setting in (("fixed", 30), ("predictive", 100))
    ]
    fixed, predictive = results = [simulate(plan) for plan in plans]
    assert predictive.idle == pytest.approx(fixed.idle, rel=0.05)
    assert predictive.cold < 0.8 * fixed.cold
    assert predictive.launches < fixed.launches
    assert fixed.bound < predictive.cold
    assert medians(results) == results
    write_results(results, tmp_path / "r.json")
    plot_results(results, tmp_path / "p.svg")
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- keep-alive: begin -->\nold\n<!-- keep-alive: end -->\nb\n")
    update_document(results, page)
    text = page.read_text()
    assert tables(results) in text
    assert "\nold\n" not in text
    assert f"| fixed 30 s | {fixed.cold:.1%} |" in text
