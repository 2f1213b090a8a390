"""Several load balancers in front of the same full runners: none starves another."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import pytest
import trio
from trio.testing import MockClock

from benchmarks.simulator._run import ListeningPool
from hostler.config import PlacerConfig, PoolConfig
from hostler.pool import PLACERS
from hostler.pool.dynamic import LoadWatch
from hostler.testing import fake_call
from tests.support.simulated_runner import SimRunner

MEMORY = 100
CONTAINERS = 4
CLIENTS = 12
SETTLED, END = 15.0, 180.0
"""Seconds: the first LB has the runners for itself at first, and all of them are counted later."""
LEAST_SHARE = 0.9
"""Of an even share of the calls, for each LB. (Chance is in it, in the placers' jitter and in
Trio's order of tasks: 0.97 or more is typical.)"""
LONGEST = 3
"""Times what each would wait if all LBs' calls stood in one line."""


async def _measure(
    functions: Sequence[str], runner_count: int, seconds: float, placer_name: str, seed: int
) -> tuple[list[int], float]:
    """Calls that each LB has served, which has clients in a loop that call its function; and the
    longest that one waited."""
    rng = random.Random(seed)
    runners = [SimRunner(f"r{number}:1", CONTAINERS * MEMORY) for number in range(runner_count)]
    served: Counter[int] = Counter()
    longest = 0.0

    async def client(lb: int, pool: ListeningPool, fn_id: str) -> None:
        nonlocal longest
        while True:
            began = trio.current_time()
            call = fake_call(fn_id=fn_id, memory=MEMORY, idle_timeout=30)
            call.extensions["seconds"] = repr(seconds * rng.uniform(0.8, 1.2))
            call.extensions["lb"] = str(lb)
            await placers[lb].place_call(pool, call)
            now = trio.current_time()
            if began > SETTLED:
                served[lb] += 1
                longest = max(longest, now - began - seconds)

    placers = [PLACERS[placer_name](PlacerConfig(max_wait=3600.0)) for _ in functions]
    async with trio.open_nursery() as nursery:
        for lb, fn_id in enumerate(functions):
            pool = ListeningPool(runners)
            for runner in runners:
                watch = LoadWatch(runner, pool.news, PoolConfig(), rng)
                nursery.start_soon(watch.run)
            for _ in range(CLIENTS * runner_count):
                nursery.start_soon(client, lb, pool, fn_id)
            await trio.sleep(1)
        await trio.sleep_until(END)
        nursery.cancel_scope.cancel()
    return [served[lb] for lb in range(len(functions))], longest


@pytest.mark.parametrize(
    ("functions", "runners", "seconds", "placer"),
    [
        ("aa", 1, 0.2, "warm"),
        ("aaa", 1, 0.2, "warm"),
        ("abab", 1, 0.4, "warm"),
        ("ab", 3, 0.6, "warm"),
        ("ab", 1, 0.2, "ch"),
    ],
)
def test_each_of_several_balancers_has_its_share(
    functions: str, runners: int, seconds: float, placer: str
) -> None:
    served, longest = trio.run(
        _measure, functions, runners, seconds, placer, 1, clock=MockClock(autojump_threshold=0)
    )
    even = sum(served) / len(served)
    assert min(served) > LEAST_SHARE * even
    assert longest < LONGEST * CLIENTS * len(functions) * seconds / CONTAINERS
    busy = sum(served) * seconds / ((END - SETTLED) * CONTAINERS * runners)
    assert busy > (0.95 if len(set(functions)) == 1 else 0.9)  # containers are started for others
