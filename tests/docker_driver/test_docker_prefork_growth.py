"""How the pool of network name spaces follows what is used, on virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from hostler._calm import Calm
from hostler.drivers.docker import DockerOptions, EngineError, PreforkStatistics
from hostler.drivers.docker._exits import Exit
from hostler.drivers.docker._networks import Lease, Networks
from hostler.drivers.docker._prefork import (
    QUIET,
    REVIEW,
    STABLE_LIFE,
    WARNING_INTERVAL,
    PreforkPool,
)
from hostler.drivers.docker._prefork_plan import GROWTH, PoolPlan

from ..conftest import Logs

MAKING = 0.2
"""Seconds that the engine takes for a container."""


class FakeParts:
    """What a pool needs of a driver: image, containers and exits."""

    def __init__(self) -> None:
        self.launches = Calm()
        self.there: dict[str, str] = {}
        """Networks of the containers by their names, which are their ids, too."""
        self.begun: list[float] = []
        self.names: set[str] = set()
        """That containers ever had."""
        self.broken_removals = 0
        self.starting = 0.0
        self.starts_fail = False
        self.failing = ""
        """The one of that name cannot be started either."""
        self._exits: dict[str, Exit] = {}

    async def ensure(self) -> None:
        await trio.lowlevel.checkpoint()

    async def create(self, options: DockerOptions) -> str:
        self.begun.append(trio.current_time())
        self.names.add(options.name)
        with self.launches.disturbed():
            await trio.sleep(MAKING)
        self.there[options.name] = options.host_config.get("NetworkMode", "")
        return options.name

    async def start(self, name: str) -> None:
        await trio.sleep(self.starting)
        if self.starts_fail or name == self.failing:
            raise EngineError("start container", "no available IPv4 addresses", 500)

    async def remove(self, name: str) -> None:
        await trio.lowlevel.checkpoint()
        if name in self.there and self.broken_removals:
            self.broken_removals -= 1
            raise EngineError("remove container", "device busy", 500)
        self.there.pop(name, None)

    def watch(self, name: str) -> Exit:
        return self._exits.setdefault(name, Exit(name))

    def forget(self, name: str) -> None:
        if (exit_ := self._exits.pop(name, None)) is not None:
            exit_.happened()


@attrs.define
class Bench:
    parts: FakeParts
    pool: PreforkPool
    networks: Networks

    def take(self, count: int) -> list[Lease]:
        leases = [self.networks.lease_prepared(None) for _ in range(count)]
        return [lease for lease in leases if lease is not None]

    def counts(self) -> tuple[int, int, int]:
        """Free, used, and there in all."""
        now = self.pool.statistics()
        return now.free, now.used, len(self.parts.there)


@asynccontextmanager
async def open_pool(size: int, **plan: Any) -> AsyncIterator[Bench]:
    """A pool of that size, which is full."""
    parts: Any = FakeParts()
    made = PoolPlan(size=size, image="img", command=(), **{"wanted": False, **plan})
    pool = PreforkPool(made, {}, "box", parts, parts, parts)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.run)
        await trio.sleep(MAKING * size + 10)
        assert pool.statistics() == PreforkStatistics(size=size, free=size)
        yield Bench(parts, pool, Networks(made.networks, pool))
        await pool.aclose()


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
        for _ in range(20):
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


async def test_what_cannot_be_removed_stays_in_use(autojump_clock: object) -> None:
    async with open_pool(2) as bench:
        leases = bench.take(2)
        await trio.sleep(60)
        for lease in leases:
            lease.release(True)
        assert bench.counts() == (4, 0, 4)
        bench.parts.broken_removals = 1
        await trio.sleep(2 * REVIEW)
        assert bench.counts() == (3, 0, 3)
        await trio.sleep(2 * REVIEW)
        assert bench.counts() == (2, 0, 2)


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


async def test_failures_are_told_again_after_those_that_lasted(
    autojump_clock: object, logs: Logs
) -> None:
    """Also of those that take the engine long, which are no quicker tried again."""
    told = "prefork container fails"
    async with open_pool(1) as bench:
        (lease,) = bench.take(1)
        bench.parts.starts_fail = True
        bench.parts.starting = 2 * STABLE_LIFE
        lease.release(False)
        await trio.sleep(600)
        assert len(logs.with_event(told)) == 1
        gaps = [later - one for one, later in pairwise(bench.parts.begun[1:])]
        assert min(gaps) > MAKING + 2 * STABLE_LIFE + 0.05
        bench.parts.starts_fail = False
        bench.parts.starting = 0
        await trio.sleep(60)
        bench.take(1)
        await trio.sleep(60)
        bench.parts.starts_fail = True
        (lease, *_) = bench.take(1)
        lease.release(False)
        await trio.sleep(60)
        assert len(logs.with_event(told)) == 2


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


async def test_a_lease_instead_of_another_one(autojump_clock: object) -> None:
    """One's own container does not make its network a full one."""
    async with open_pool(2, networks=("a", "b")) as bench:
        first = bench.networks.lease()
        assert first is not None
        joined = bench.networks.lease_prepared(first)
        assert joined is not None
        network = bench.parts.there[joined.mode.removeprefix("container:")]
        assert bench.networks.in_use() == {"a": 0, "b": 0} | {network: 1}
        bench.take(1)
        second = bench.networks.lease()
        assert bench.networks.lease_prepared(second) is None
        assert sum(bench.networks.in_use().values()) == 3


async def test_shortages_are_told_once_in_a_while(
    autojump_clock: trio.testing.MockClock, logs: Logs
) -> None:
    never: Any = None  # an empty pool needs none of its parts
    plan = PoolPlan(size=1, image="img", command=())
    pool = PreforkPool(plan, {}, "box", never, never, never)
    for _ in range(5):
        assert pool.allocate({}) is None
        await trio.sleep(WARNING_INTERVAL / 4)
    assert [line["misses"] for line in logs.with_event("pool is empty")] == [1, 5]

    quiet = PreforkPool(attrs.evolve(plan, wanted=False), {}, "box", never, never, never)
    assert quiet.allocate({}) is None
    assert quiet.statistics().misses == 1
    assert len(logs.with_event("pool is empty")) == 2
