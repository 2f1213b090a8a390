"""How the pool of network name spaces follows what is used, on virtual time."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio
import trio.testing
from prometheus_client import CollectorRegistry

from hostler.drivers.docker import DockerMetrics
from hostler.drivers.docker.prefork import (
    GROWTH,
    QUIET,
    REVIEW,
    WARNING_INTERVAL,
    PoolPlan,
    PreforkPool,
)

from ...conftest import Logs
from .pool_bench import AROUND, MAKING, FakeParts, open_pool


async def test_a_burst_after_a_burst_finds_as_many_as_that_needed(autojump_clock: object) -> None:
    async with open_pool(8) as bench:
        leases = bench.take(12)
        assert len(leases) == 8
        await trio.sleep(1)
        for lease in leases:
            lease.release(True)
        await trio.sleep(60)
        assert bench.counts() == (12, 0, 12)
        assert len(bench.take(12)) == 12
        assert bench.pool.statistics().misses == 4


async def test_a_burst_beside_containers_that_stay_hot(autojump_clock: object) -> None:
    async with open_pool(8) as bench:
        bench.take(8)
        await trio.sleep(8 * (QUIET + MAKING) + 1)
        assert bench.counts() == (8, 8, 16)
        assert len(bench.take(8)) == 8
        assert bench.pool.statistics().misses == 0


async def test_half_of_them_are_used_without_consequence(autojump_clock: object) -> None:
    async with open_pool(8) as bench:
        bench.take(4)
        await trio.sleep(60)
        assert bench.counts() == (4, 4, 8)
        bench.take(1)
        await trio.sleep(60)
        assert bench.counts() == (8, 5, 13)


async def test_it_grows_in_quiet_moments_only(autojump_clock: object) -> None:
    """Also a short launch keeps it from growing, and one is made at a time."""
    async with open_pool(4) as bench:
        del bench.parts.begun[:]
        bench.take(4)
        for _ in range(10):
            with bench.parts.launches.disturbed():
                await trio.sleep(0.01)
            await trio.sleep(QUIET - 0.02)
        assert bench.parts.begun == []
        last = trio.current_time() - (QUIET - 0.02)
        await trio.sleep(60)
        steps = [round(at - last, 6) for at in bench.parts.begun]
        assert steps == pytest.approx([QUIET + n * (QUIET + MAKING) for n in range(4)], abs=0.01)


async def test_what_comes_back_meanwhile_needs_no_replacement(autojump_clock: object) -> None:
    async with open_pool(4) as bench:
        leases = bench.take(4)
        await trio.sleep(QUIET / 2)
        for lease in leases:
            lease.release(True)
        await trio.sleep(60)
        assert bench.counts() == (4, 0, 4)


async def test_it_does_not_grow_without_end(autojump_clock: object) -> None:
    async with open_pool(4) as bench:
        leases = []
        for _ in range(10):
            leases += bench.take(100)
            await trio.sleep(60)
        assert bench.counts() == (0, 4 * GROWTH, 4 * GROWTH)
        for lease in leases:
            lease.release(True)
        await trio.sleep(2 * REVIEW + 60)
        assert bench.counts() == (4, 0, 4)
        bench.take(4)
        await trio.sleep(60)
        assert bench.counts() == (4, 4, 8)


async def test_a_pool_that_was_asked_for_stays_as_it_is(autojump_clock: object) -> None:
    async with open_pool(4, wanted=True) as bench:
        bench.take(4)
        await trio.sleep(2 * REVIEW)
        assert bench.counts() == (0, 4, 4)


async def test_what_nobody_needs_any_more_is_removed(autojump_clock: object) -> None:
    """Those that were not used for the longest time go."""
    async with open_pool(6) as bench:
        leases = bench.take(6)
        await trio.sleep(60)
        leases += bench.take(2)
        await trio.sleep(60)
        assert bench.counts() == (4, 8, 12)
        for lease in leases:
            lease.release(True)
        await trio.sleep(REVIEW - 130)
        assert bench.counts() == (12, 0, 12)
        for lease in bench.take(4):
            lease.release(True)
        await trio.sleep(REVIEW + 10)  # in which four were enough, and six are kept in any case
        assert bench.counts() == (10, 0, 10)
        await trio.sleep(REVIEW)
        assert bench.counts() == (6, 0, 6)
        left = set(bench.parts.there)
        assert left == {lease.mode.removeprefix("container:") for lease in bench.take(6)}


async def test_one_of_many_that_fails_does_not_keep_it_from_growing(
    autojump_clock: object,
) -> None:
    async with open_pool(4) as bench:
        lease, *_ = bench.take(4)
        bench.parts.failing = lease.mode.removeprefix("container:")
        lease.release(False)
        await trio.sleep(600)
        assert bench.counts()[:2] == (3, 3)
        assert len(bench.parts.names) == 7


async def test_while_the_latest_one_fails_no_others_are_made(autojump_clock: object) -> None:
    async with open_pool(4) as bench:
        bench.parts.starts_fail = True
        for _ in range(300):
            bench.take(1)
            await trio.sleep(1)
        assert len(bench.parts.names) == 5
        bench.parts.starts_fail = False
        await trio.sleep(60)
        bench.take(1)
        await trio.sleep(60)
        assert bench.counts() == (3, 5, 8)


async def test_networks_are_filled_evenly(autojump_clock: object) -> None:
    async with open_pool(6, networks=("a", "b")) as bench:
        leases = bench.take(4)
        assert bench.networks.in_use() == {"a": 2, "b": 2}
        own = [bench.networks.lease() for _ in range(3)]
        assert bench.networks.in_use() == {"a": 4, "b": 3}
        leases += bench.take(1)
        assert bench.networks.in_use() == {"a": 4, "b": 4}
        await trio.sleep(60)
        assert sorted(bench.parts.there.values()) == ["a"] * 6 + ["b"] * 5
        for lease in (*leases, *own):
            assert lease is not None
            lease.release(True)
        assert bench.networks.in_use() == {"a": 0, "b": 0}


async def test_networks_shrink_evenly(autojump_clock: object) -> None:
    """Whatever has been used last."""
    async with open_pool(4, networks=("a", "b")) as bench:
        leases = bench.take(4)
        await trio.sleep(60)
        leases += bench.take(4)
        assert sorted(map(bench.network_of, leases)) == ["a"] * 4 + ["b"] * 4
        for lease in sorted(leases, key=bench.network_of):
            lease.release(True)
        await trio.sleep(2 * REVIEW + 60)
        assert sorted(bench.parts.there.values()) == ["a"] * 2 + ["b"] * 2


async def test_a_lease_instead_of_another_one(autojump_clock: object) -> None:
    """One's own container does not make its network a full one."""
    async with open_pool(2, networks=("a", "b")) as bench:
        first = bench.networks.lease()
        assert first is not None
        joined = bench.networks.lease_prepared(first)
        assert joined is not None
        network = bench.network_of(joined)
        assert bench.networks.in_use() == {"a": 0, "b": 0} | {network: 1}
        bench.take(1)
        second = bench.networks.lease()
        assert bench.networks.lease_prepared(second) is None
        assert sum(bench.networks.in_use().values()) == 3


async def test_shortages_are_told_once_in_a_while(
    autojump_clock: trio.testing.MockClock, logs: Logs
) -> None:
    metrics = DockerMetrics(CollectorRegistry())
    plan = PoolPlan(size=1, image="img", command=())
    unused: Any = FakeParts(plan)
    pool = PreforkPool(unused, AROUND, unused, unused, metrics)
    for _ in range(5):
        assert pool.allocate({}) is None
        await trio.sleep(WARNING_INTERVAL / 4)
    assert [line["misses"] for line in logs.with_event("pool is empty")] == [1, 5]

    unasked: Any = FakeParts(attrs.evolve(plan, wanted=False))
    quiet = PreforkPool(unasked, AROUND, unused, unused, metrics)
    assert quiet.allocate({}) is None
    assert quiet.statistics().misses == 1
    assert len(logs.with_event("pool is empty")) == 2
