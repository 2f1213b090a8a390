"""Calls that leave others the hot containers that they need, for a while."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import trio
from trio.testing import MockClock

from hostler._concurrency.nurseries import open_background
from hostler.abc import Runner, RunnerCall
from hostler.calls import Timings
from hostler.config import PoolConfig
from hostler.pool import CallNeed, LoadTracker, NaivePlacer, SweepPlacer, WarmPlacer
from hostler.pool.dynamic import LoadWatch
from hostler.pool.load_tracker import MAX_EVICTION_GRACE
from hostler.protocol import LoadHint
from tests.support.simulated_runner import COLD_SECONDS, SimRunner

from .fakes import TellingPool, make_call
from .placers import make

MIB = 2**20
FN = CallNeed("fn", memory=100 * MIB, idle_seconds=30)


@pytest.mark.parametrize(("run", "seconds"), [(0.01, 1.02), (2.0, 5.0), (30.0, MAX_EVICTION_GRACE)])
def test_who_takes_long_anyhow_waits_longer(run: float, seconds: float) -> None:
    policies = LoadTracker().policies
    assert policies.eviction_grace(FN) == 0
    start = round(COLD_SECONDS * 1e9)
    timings = Timings(execution_ns=round(run * 1e9), scheduler_ns=start, ctr_create_ns=start)
    policies.ran(FN, timings, 0.0, 0.0)
    assert policies.eviction_grace(FN) == pytest.approx(seconds)


def test_a_runner_is_full_for_sparing_calls_before_it_is_for_others() -> None:
    book = LoadTracker()
    known = LoadHint(
        free_memory=50 * MIB,
        reclaimable_memory=150 * MIB,
        protected_memory=120 * MIB,
        complete=True,
    )
    book.note("a", known, 0)
    assert not book.is_full("a", FN, 0)
    assert not book.all_full(FN, 0)
    assert book.is_full("a", FN, 0, spare_warm=True)
    assert book.all_full(FN, 0, spare_warm=True)
    assert (book.room("a", spare_warm=False), book.room("a", spare_warm=True)) == (
        200 * MIB,
        80 * MIB,
    )
    rng = random.Random(1)
    assert book.spare(FN, 1, rng) == ["a"]
    assert book.spare(FN, 1, rng, spare_warm=True) == []


def test_cpus_that_are_worth_keeping_are_not_for_sparing_calls() -> None:
    book, need = LoadTracker(), CallNeed("fn", memory=MIB, idle_seconds=30, cpus=500)
    hint = LoadHint(free_memory=MIB, free_cpus=100, reclaimable_cpus=900, protected_cpus=600)
    book.note("a", hint, 0)
    assert not book.is_full("a", need, 0)
    assert book.is_full("a", need, 0, spare_warm=True)


class Place:
    """A runner with so many places, that ``placer`` uses. "short" runs for a hundredth of its
    start's time."""

    def __init__(self, placer: SweepPlacer, *, places: int = 1) -> None:
        self.placer = placer
        self.runner = SimRunner("r:1", 100 * places)
        runners: list[Runner] = [self.runner]
        self.pool = TellingPool(runners)

    async def listen(self) -> None:
        await LoadWatch(self.runner, self.pool.news, PoolConfig(), random.Random(1)).run()

    async def run(self, name: str, seconds: float) -> float:
        """Seconds until the call is over."""
        began = trio.current_time()
        call = make_call(fn_id=name, memory=100)
        call.extensions["seconds"] = str(seconds)
        await self.placer.place_call(self.pool, call)
        return trio.current_time() - began


@pytest.mark.parametrize(("make_placer", "waits"), [(WarmPlacer, True), (NaivePlacer, False)])
async def test_a_call_waits_for_the_room_of_a_long_one_rather_than_take_a_short_ones(
    autojump_clock: MockClock, make_placer: type[SweepPlacer], waits: bool
) -> None:
    """ "short" is called all the time, so its container is always worth keeping."""
    place = Place(make(make_placer), places=2)
    async with open_background() as nursery:
        nursery.start_soon(place.listen)
        await place.run("long", 2.0)
        await place.run("short", 0.005)

        async def calls() -> None:
            while True:
                await place.run("short", 0.005)
                await trio.sleep(0.2)

        nursery.start_soon(place.run, "long", 2.0)
        nursery.start_soon(calls)
        await trio.sleep(1.5)
        took = await place.run("other", 1.0)
        nursery.cancel_scope.cancel()
    rest = 0.5 if waits else 0.0
    assert took == pytest.approx(rest + COLD_SECONDS + 1.0, abs=0.2)
    assert place.runner.cold == (3 if waits else 4)


async def test_nobody_waits_for_room_that_is_not_to_be_had_but_of_short_ones(
    autojump_clock: MockClock,
) -> None:
    place = Place(make(WarmPlacer))
    async with open_background() as nursery:
        nursery.start_soon(place.listen)
        await place.run("short", 0.005)
        assert await place.run("other", 1.0) == pytest.approx(COLD_SECONDS + 1.0, abs=0.1)
        nursery.cancel_scope.cancel()


class CountingPool(TellingPool):
    """Counts how often a call looks for a runner."""

    looks = 0

    async def runners(self, call: RunnerCall) -> Sequence[Runner]:
        self.looks += 1
        return await super().runners(call)


async def test_calls_of_one_line_do_not_all_try_when_their_grace_is_over(
    autojump_clock: MockClock,
) -> None:
    """What the first was refused without sparing anything, the next would be, too."""
    place, calls, run = Place(make(WarmPlacer)), 20, 0.5
    place.pool = pool = CountingPool([place.runner])
    async with open_background() as nursery:
        nursery.start_soon(place.listen)
        await place.run("fn", run)
        pool.looks = 0
        async with trio.open_nursery() as callers:
            for _ in range(calls):
                callers.start_soon(place.run, "fn", run)
        nursery.cancel_scope.cancel()
    assert calls * run > 4 * (COLD_SECONDS + run)
    # Each looks when it comes and when its turn has come; and now and then one for all.
    assert pool.looks <= 3.5 * calls
