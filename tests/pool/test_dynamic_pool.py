"""Pools that change while they are in use."""

from __future__ import annotations

import random

import pytest
import trio
from prometheus_client import CollectorRegistry
from trio.testing import MockClock, wait_all_tasks_blocked

from hostler.abc import Placed
from hostler.config import PoolConfig
from hostler.errors import ConfigError
from hostler.pool import (
    ConsistentHashPlacer,
    NaivePlacer,
    PoolMetrics,
    RunnerAccess,
    open_dynamic_pool,
)
from hostler.pool.static import keepalive_of
from tests.conftest import Logs

from .fakes import fresh_metrics, make_call
from .fleet import Fleet, attempt, offered, opened


async def test_runners_come_go_and_stay(autojump_clock: MockClock) -> None:
    fleet = Fleet()
    metrics = PoolMetrics(CollectorRegistry())
    async with opened(fleet, "a:1", "b:1", metrics=metrics) as pool:
        before = {runner.address: runner for runner in await pool.runners(make_call())}
        gone = fleet.hosts["a:1"].gone
        pool.update(["c:1", "b:1"])
        after = {runner.address: runner for runner in await pool.runners(make_call())}
        assert list(after) == ["c:1", "b:1"]
        assert after["b:1"] is before["b:1"]
        await gone.wait()
        await wait_all_tasks_blocked()
        assert fleet.made == [("a:1", ""), ("b:1", ""), ("c:1", "")]
        assert (metrics.runners.value, metrics.joined.value, metrics.left.value) == (2, 3, 1)
    assert (metrics.runners.value, metrics.left.value, metrics.leaving.value) == (0, 3, 0)


async def test_a_runner_that_leaves_finishes_its_calls(autojump_clock: MockClock) -> None:
    fleet = Fleet(seconds=100)
    async with opened(fleet, "a:1") as pool, trio.open_nursery() as nursery:
        placer = NaivePlacer(metrics=fresh_metrics())
        nursery.start_soon(placer.place_call, pool, make_call())
        await trio.sleep(1)
        pool.update(["b:1"])
        await trio.sleep(1)
        assert pool.statistics().leaving == 1
        await fleet.hosts["a:1"].gone.wait()
        assert trio.current_time() == pytest.approx(100, abs=1)
        await wait_all_tasks_blocked()
        assert repr(pool) == (
            "<DynamicPool open DynamicPoolStatistics(runners=1, ejected=0, leaving=0)>"
        )


async def test_leaving_has_an_end(autojump_clock: MockClock, logs: Logs) -> None:
    fleet = Fleet(seconds=100)
    async with opened(fleet, "a:1", leave_grace=10.0) as pool, trio.open_nursery() as nursery:
        nursery.start_soon(attempt, pool, "a:1")
        await trio.sleep(0.01)
        pool.update(["b:1"])
        await fleet.hosts["a:1"].gone.wait()
        assert trio.current_time() == pytest.approx(10, abs=0.1)
        await wait_all_tasks_blocked()
        assert logs.with_event("runner that left was cut off")[0]["runner"] == "a:1"
        nursery.cancel_scope.cancel()


async def test_one_that_comes_back_while_it_leaves_is_new(autojump_clock: MockClock) -> None:
    fleet = Fleet(seconds=5)
    async with opened(fleet, "a:1") as pool, trio.open_nursery() as nursery:
        nursery.start_soon(attempt, pool, "a:1")
        await trio.sleep(0.01)
        old = fleet.hosts["a:1"]
        pool.update([])
        assert await offered(pool) == []
        pool.update(["a:1"])
        assert fleet.hosts["a:1"] is not old
        assert (await attempt(pool, "a:1")) == [Placed()]
        await old.gone.wait()


async def test_a_bad_address_changes_nothing(autojump_clock: MockClock) -> None:
    fleet = Fleet()
    async with opened(fleet, "a:1") as pool:
        with pytest.raises(ConfigError):
            pool.update(["b:1", ""])
        assert pool.addresses == ("a:1",)
        del fleet.hosts["b:1"]  # made, and never used


async def test_a_closed_pool_stays_empty(autojump_clock: MockClock) -> None:
    async with opened(Fleet(), "a:1") as pool:
        await pool.aclose()
        await pool.aclose()
        pool.update(["b:1"])
        assert await offered(pool) == []


async def test_closing_is_bounded_by_the_callers_deadline(autojump_clock: MockClock) -> None:
    fleet = Fleet(seconds=100)
    async with opened(fleet, "a:1", "b:1") as pool, trio.open_nursery() as nursery:
        nursery.start_soon(attempt, pool, "a:1")
        await trio.sleep(0.01)
        pool.update(["b:1"])
        with trio.move_on_after(3) as scope:
            await pool.aclose()
        assert scope.cancelled_caught
        assert trio.current_time() == pytest.approx(3, abs=0.1)
        assert fleet.hosts["a:1"].closed == fleet.hosts["b:1"].closed == 1
        nursery.cancel_scope.cancel()


async def test_an_exception_of_the_block_has_no_grace(autojump_clock: MockClock) -> None:
    fleet = Fleet(seconds=100)
    with pytest.raises(ValueError, match="mine"):
        async with open_dynamic_pool(
            ["a:1"], access=RunnerAccess(factory=fleet), metrics=PoolMetrics(CollectorRegistry())
        ):
            raise ValueError("mine")
    assert trio.current_time() == 0
    assert fleet.hosts["a:1"].closed == 1


async def test_an_ejection_moves_only_the_functions_of_that_runner(
    autojump_clock: MockClock,
) -> None:
    fleet = Fleet(seconds=0.01, slots=1000)
    async with opened(fleet, *(f"r{number}:1" for number in range(5))) as pool:
        placer = ConsistentHashPlacer(metrics=fresh_metrics())

        async def homes() -> dict[str, str]:
            calls = [make_call(f"c{number}", fn_id=f"fn{number}") for number in range(100)]
            for call in calls:
                await placer.place_call(pool, call)
            return {call.model.fn_id: call.runner_address for call in calls}

        before = await homes()
        fleet.hosts["r2:1"].change(up=False)
        during = await homes()
        assert pool.statistics().ejected == 1
        moved = {fn for fn in before if before[fn] != during[fn]}
        assert moved == {fn for fn in before if before[fn] == "r2:1"}
        assert len({during[fn] for fn in moved}) > 1
        fleet.hosts["r2:1"].change(up=True)
        await trio.sleep(10)
        assert await homes() == before


async def test_churn_under_load_loses_no_call(autojump_clock: MockClock) -> None:
    rng = random.Random(7)
    names = [f"r{number}:1" for number in range(8)]
    fleet = Fleet(seconds=0.5, slots=50, tells=True)
    async with opened(fleet, *names) as pool:
        placer = NaivePlacer(metrics=fresh_metrics(), rng=rng)
        calls = [make_call(f"c{number}") for number in range(1000)]
        async with trio.open_nursery() as nursery:
            for number, call in enumerate(calls):
                nursery.start_soon(placer.place_call, pool, call)
                await trio.sleep(0.01)
                if number % 20 == 0:
                    pool.update(rng.sample(names, rng.randint(1, 8)))
        assert all(call.runner_address for call in calls)
        assert not any(host.outcome for host in fleet.hosts.values())


def test_intervals_of_the_config_reach_the_wire() -> None:
    keepalive = keepalive_of(
        PoolConfig(keepalive_interval=1.0, keepalive_timeout=2.0, vanished_timeout=3.0)
    )
    assert (keepalive.interval, keepalive.timeout, keepalive.vanished) == (1, 2, 3)
