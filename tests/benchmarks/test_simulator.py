"""The simulator: its load has the shape that it claims, and its runners behave."""

from __future__ import annotations

import random
import statistics
from pathlib import Path

import msgspec
import pytest
import trio
from trio.testing import MockClock

from benchmarks.simulator._growth import simulate_growth
from benchmarks.simulator._oracle import Oracle
from benchmarks.simulator._plot import plot_results
from benchmarks.simulator._report import medians, update_document, write_results
from benchmarks.simulator._run import Plan, Result, simulate
from benchmarks.simulator._workload import (
    MAX_SECONDS,
    POPULAR,
    POPULAR_CALLS,
    Arrival,
    Function,
    make_arrivals,
    make_functions,
)
from hostler.abc import NotPlaced, Outcome, Placed
from hostler.testing import fake_call
from tests.support.simulated_runner import COLD_SECONDS, IDLE_SECONDS, SimRunner


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


def arrivals(*calls: tuple[float, str, float]) -> list[Arrival]:
    """Calls at these times, of these functions of 100 MB, of these seconds."""
    return [
        Arrival(at, Function(name, 1, 1, 100, lambda rng, rate, until: iter(())), seconds)
        for at, name, seconds in calls
    ]


def ends(oracle: Oracle) -> list[tuple[str, float, bool]]:
    return [(one.arrival.function.name, one.end, one.cold) for one in oracle.served]


def test_the_oracle_waits_for_a_container_if_that_is_sooner_than_a_start() -> None:
    oracle = Oracle(memory=1000)
    oracle.run(arrivals((0, "a", 1.0), (1.1, "a", 1.0), (1.2, "a", 1.0), (9, "a", 1.0)))
    first, *others = ends(oracle)
    assert first == ("a", COLD_SECONDS + 1.0, True)
    assert others == [("a", 2.5, False), ("a", 2.7, True), ("a", 10.0, False)]


def test_the_oracle_evicts_what_is_needed_last() -> None:
    oracle = Oracle(memory=200)
    oracle.run(arrivals((0, "a", 0.1), (1, "b", 0.1), (2, "c", 0.1), (3, "b", 0.1), (9, "a", 0.1)))
    assert [cold for _, _, cold in ends(oracle)] == [True, True, True, False, True]


def test_without_memory_the_oracles_calls_wait_in_order() -> None:
    oracle = Oracle(memory=100)
    oracle.run(arrivals((0, "a", 10), (1, "b", 1.0), (2, "a", 1.0), (IDLE_SECONDS + 50, "a", 1.0)))
    assert ends(oracle)[:3] == [("a", 10.5, True), ("a", 11.5, False), ("b", 13.0, True)]
    assert ends(oracle)[3][2]  # it has idled out


def test_warm_has_fewer_cold_starts_than_ch_and_more_than_the_oracle(tmp_path: Path) -> None:
    def plan(placer: str) -> Plan:
        return Plan(placer=placer, runners=10, load=0.8, warm_up=15, seconds=25)

    ch, warm, oracle = (simulate(plan(name)) for name in ("ch", "warm", "oracle"))
    assert warm.calls == ch.calls == oracle.calls > 800
    assert warm.refused == ch.refused == 0
    assert oracle.cold_share < warm.cold_share < 0.8 * ch.cold_share
    assert oracle.slowdown_p99 < warm.slowdown_p99
    write_results([ch, warm], tmp_path / "out.json")
    read = msgspec.json.decode((tmp_path / "out.json").read_bytes(), type=list[Result])
    assert read == [ch, warm]
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 3
    plot_results(read, tmp_path / "out.svg")
    picture = (tmp_path / "out.svg").read_text()
    assert picture.count("clip-path") >= 4  # a bar for each placer and panel


def result(seed: int, slowdown: float, cold: float, placer: str = "warm") -> Result:
    return Result(
        placer=placer,
        runners=10,
        load=0.8,
        seed=seed,
        calls=1000 * seed,
        refused=0,
        slowdown_p50=1.0,
        slowdown_p99=slowdown,
        slowdown_p999=100.0,
        waited_p99=0.5,
        cold_share=cold,
        attempts_per_call=1.0,
        attempts_p99=1,
    )


def test_the_table_of_a_document_has_the_medians_of_the_seeds(tmp_path: Path) -> None:
    document = tmp_path / "out.md"
    marks = "<!-- simulator: begin -->", "<!-- simulator: end -->"
    document.write_text("\n".join(["before", marks[0], "old", marks[1], "after", ""]))
    results = [result(1, 5.0, 0.3), result(2, 9.0, 0.1), result(3, 7.0, 0.2), result(1, 2, 0, "ch")]
    for _ in range(2):  # it can be renewed
        update_document(medians(results), document)
    lines = document.read_text().splitlines()
    assert (lines[0], lines[-1]) == ("before", "after")
    rows = [line for line in lines if line.startswith("| 10 |")]
    assert rows == [
        "| 10 | 80% | warm | 2,000 | 0 | 1.00 | 7.0 | 100 | 0.50 | 20.0% | 1.00 | 1 |",
        "| 10 | 80% | ch | 1,000 | 0 | 1.00 | 2.0 | 100 | 0.50 | 0.0% | 1.00 | 1 |",
    ]
    with pytest.raises(ValueError, match="lacks"):
        update_document(results, Path(__file__).with_name("__init__.py"))


@pytest.mark.parametrize("lbs", [1, 2])
@pytest.mark.parametrize("placer", ["warm", "bounded"])
def test_clients_that_come_in_steps_get_a_container_each(placer: str, lbs: int) -> None:
    growth = simulate_growth(placer, lbs, 0.05, (1, 8, 1, 16))
    assert min(growth.shares) > 0.9
    assert growth.containers < 40
