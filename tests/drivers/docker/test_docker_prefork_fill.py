"""How the pool of network name spaces is filled, and kept full, on virtual time."""

from __future__ import annotations

from itertools import pairwise

import pytest
import trio

from hostler.drivers.docker.prefork import FILL, FIRST, MAKERS, QUIET, REVIEW, STABLE_LIFE

from ...conftest import Logs
from .pool_bench import MAKING, open_new_pool, open_pool


@pytest.mark.parametrize("wanted", [False, True])
async def test_after_a_few_it_is_filled_in_quiet_moments(
    autojump_clock: object, wanted: bool
) -> None:
    async with open_new_pool(20, wanted=wanted) as bench:
        await trio.sleep(60)
        assert bench.counts() == (20, 0, 20)
        steps = [later - one for one, later in pairwise(bench.parts.begun[FIRST - 1 :])]
        assert bench.parts.begun[FIRST - 1] == pytest.approx(MAKING * (FIRST / MAKERS - 1))
        assert steps == pytest.approx([QUIET + MAKING] * (20 - FIRST))


async def test_it_is_full_in_time_without_a_quiet_moment(autojump_clock: object) -> None:
    async with open_new_pool(20) as bench:
        with bench.parts.launches.disturbed():
            await trio.sleep(FILL * (1 - FIRST / 20) + 1)
            assert bench.counts() == (20, 0, 20)
            await trio.sleep(FILL)
        assert len(bench.parts.begun) == 20


async def test_an_image_that_is_late_lets_no_more_begin_at_once(autojump_clock: object) -> None:
    """That is seconds after the start, at which the engine may have calls to serve."""
    async with open_new_pool(20) as bench:
        bench.parts.image_at = trio.current_time() + 100
        await trio.sleep(100 + MAKING * FIRST / MAKERS + 0.4)
        assert bench.counts() == (FIRST, 0, FIRST)
        await trio.sleep(60)
        assert bench.counts() == (20, 0, 20)


async def test_it_is_filled_when_its_containers_fail_no_more(autojump_clock: object) -> None:
    async with open_new_pool(FIRST + 4) as bench:
        bench.parts.starts_fail = True
        await trio.sleep(60)
        assert len(bench.parts.names) == FIRST + 1
        bench.parts.starts_fail = False
        await trio.sleep(60)
        assert bench.counts() == (FIRST + 4, 0, FIRST + 4)


@pytest.mark.parametrize("broken", ["a", "b"])
async def test_a_network_that_fails_does_not_keep_others_from_being_filled(
    autojump_clock: object, broken: str
) -> None:
    async with open_new_pool(20, networks=("a", "b"), wanted=True) as bench:
        bench.parts.broken_network = broken
        await trio.sleep(60)
        assert bench.pool.statistics().free == 20 - FIRST // 2 - 1
        bench.parts.broken_network = ""
        await trio.sleep(60)
        assert bench.counts() == (20, 0, 20)


async def test_a_burst_before_it_is_full_needs_no_larger_one(autojump_clock: object) -> None:
    async with open_new_pool(20) as bench:
        await trio.sleep(MAKING * FIRST / MAKERS + 0.1)
        leases = bench.take(20)
        assert len(leases) == FIRST
        for lease in leases:
            lease.release(True)
        await trio.sleep(60)
        assert bench.counts() == (20, 0, 20)


async def test_nor_do_calls_while_its_containers_fail(autojump_clock: object) -> None:
    async with open_pool(4) as bench:
        bench.parts.starts_fail = True
        for lease in bench.take(4):
            lease.release(False)
        for _ in range(100):
            assert bench.take(1) == []
            await trio.sleep(0.1)
        bench.parts.starts_fail = False
        await trio.sleep(60)
        bench.take(1)
        await trio.sleep(60)
        assert bench.counts() == (3, 1, 4)


async def test_what_cannot_be_removed_is_no_part_of_it_any_more(
    autojump_clock: object, logs: Logs
) -> None:
    async with open_pool(2) as bench:
        leases = bench.take(2)
        await trio.sleep(60)
        for lease in leases:
            lease.release(True)
        assert bench.counts() == (4, 0, 4)
        bench.parts.broken_removals = 1
        await trio.sleep(2 * REVIEW)
        assert bench.counts() == (2, 0, 3)
        assert len(logs.with_event("prefork container not removed")) == 1


async def test_what_cannot_be_removed_is_replaced(autojump_clock: object, logs: Logs) -> None:
    async with open_pool(2) as bench:
        lease, _ = bench.take(2)
        bench.parts.broken_removals = 1
        lease.release(False)
        await trio.sleep(1)
        assert bench.counts() == (1, 1, 3)
        assert len(logs.with_event("prefork container not removed")) == 1


async def test_containers_that_never_ran_do_not_pile_up(autojump_clock: object) -> None:
    """Also if they cannot be removed."""
    async with open_pool(2, wanted=True) as bench:
        lease, _ = bench.take(2)
        bench.parts.starts_fail = True
        lease.release(False)
        await trio.sleep(1)
        bench.parts.broken_removals = endless = 10**6
        await trio.sleep(600)
        assert bench.parts.broken_removals < endless - 10
        assert len(bench.parts.there) == 2
        bench.parts.broken_removals, bench.parts.starts_fail = 0, False
        await trio.sleep(60)
        assert bench.counts() == (1, 1, 2)


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
