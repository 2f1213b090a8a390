"""The simulator: its load has the shape that it claims, and its runners behave."""

from __future__ import annotations

import random
import statistics
from pathlib import Path

import msgspec
import pytest
import trio
from trio.testing import MockClock

from benchmarks.simulator._plot import plot_results
from benchmarks.simulator._report import write_results
from benchmarks.simulator._run import Plan, Result, simulate
from benchmarks.simulator._runner import COLD_SECONDS, IDLE_SECONDS, SimRunner
from benchmarks.simulator._workload import (
    MAX_SECONDS,
    POPULAR,
    POPULAR_CALLS,
    make_arrivals,
    make_functions,
)
from hostler.abc import NotPlaced, Outcome, Placed
from hostler.testing import fake_call


def test_the_load_has_its_shape() -> None:
    rng = random.Random(1)
    functions = make_functions(rng, 5000, megabytes=10_000)
    rates = sorted((one.rate for one in functions), reverse=True)
    assert sum(rates[: round(5000 * POPULAR)]) / sum(rates) == pytest.approx(POPULAR_CALLS)
    busy = sum(one.rate * one.seconds * one.memory for one in functions)
    assert busy == pytest.approx(10_000)
    assert statistics.median(one.seconds for one in functions) == pytest.approx(0.684, rel=0.15)
    assert max(one.seconds for one in functions) == MAX_SECONDS
    assert statistics.median(one.memory for one in functions) == pytest.approx(140, rel=0.05)


def test_arrivals_come_in_order_at_their_rates() -> None:
    rng = random.Random(2)
    functions = make_functions(rng, 50, megabytes=5_000)
    arrivals = make_arrivals(rng, functions, until=500)
    assert [one.at for one in arrivals] == sorted(one.at for one in arrivals)
    expected = 500 * sum(one.rate for one in functions)
    assert len(arrivals) == pytest.approx(expected, rel=0.25)  # bursts vary much


async def run_call(runner: SimRunner, fn_id: str, seconds: float, memory: int = 100) -> Outcome:
    call = fake_call(fn_id=fn_id, memory=memory)
    call.extensions["seconds"] = str(seconds)
    return await runner.try_exec(call)


async def test_a_runner_keeps_containers_hot_and_evicts_the_oldest(
    autojump_clock: MockClock,
) -> None:
    runner = SimRunner("r:1", memory=200)
    for name in ("a", "b", "a"):
        outcome = await run_call(runner, name, 1)
    assert runner.cold == 2
    assert isinstance(outcome, Placed)
    assert outcome.load is not None
    assert outcome.load.warm == {b"a": 1, b"b": 1}
    await run_call(runner, "c", 1)
    assert (runner.cold, runner.evictions) == (3, 1)
    await run_call(runner, "a", 1)
    assert runner.cold == 3  # "b" was the oldest
    await trio.sleep(IDLE_SECONDS + 1)
    await run_call(runner, "a", 1)
    assert runner.cold == 4


async def test_a_full_runner_refuses_and_a_waiting_call_takes_what_comes_first(
    autojump_clock: MockClock,
) -> None:
    runner = SimRunner("r:1", memory=200)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_call, runner, "a", 0.1)
        await trio.sleep(COLD_SECONDS)
        started = trio.current_time()
        await run_call(runner, "a", 0.1)  # takes the first one's container
        assert trio.current_time() - started < 0.3
        assert runner.cold == 2
        await trio.sleep(COLD_SECONDS)  # until the second one is there, for nobody
        nursery.start_soon(run_call, runner, "b", 10, 200)
        await trio.sleep(1)
        assert isinstance(await run_call(runner, "c", 1), NotPlaced)
        assert runner.nacks == 1


def test_warm_has_fewer_cold_starts_than_ch(tmp_path: Path) -> None:
    def plan(placer: str) -> Plan:
        return Plan(placer=placer, runners=10, load=0.8, warm_up=20, seconds=40)

    ch, warm = simulate(plan("ch")), simulate(plan("warm"))
    assert warm.calls == ch.calls > 1000
    assert warm.refused == ch.refused == 0
    assert warm.cold_share < 0.8 * ch.cold_share
    write_results([ch, warm], tmp_path / "out.json")
    read = msgspec.json.decode((tmp_path / "out.json").read_bytes(), type=list[Result])
    assert read == [ch, warm]
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 3
    plot_results(read, tmp_path / "out.svg")
    picture = (tmp_path / "out.svg").read_text()
    assert picture.count("clip-path") >= 4  # a bar for each placer and panel
