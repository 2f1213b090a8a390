"""Load balancers of one fleet, started together, neither knock at a runner nor ask for a name in
step."""

from __future__ import annotations

import random
from itertools import pairwise

import trio
from prometheus_client import CollectorRegistry
from trio.testing import MockClock

from hostler.config import PoolConfig
from hostler.pool import PoolMetrics, RunnerAccess, discovery, open_dynamic_pool
from hostler.pool import dynamic as watch
from hostler.pool.discovery import Discovery
from hostler.pool.dns import Resolver
from hostler.pool.health import HealthTracker
from hostler.pool.targets import NameTarget, ResolvedTarget, ServiceTarget

from .fakes import FakeRunner, HealthChanges
from .fleet import Fleet, Host

SEEDS = (1, 2, 3)


async def knocks(seed: int) -> list[float]:
    """Seconds between tries to reach a runner that can't be reached."""
    config = PoolConfig(health_watch=False, probe_interval=1.0)
    board = HealthTracker(config, HealthChanges())
    runner = Host("away:1")
    runner.change(up=False)
    board.join(runner)
    board.join(FakeRunner("other:1"))
    for _ in range(config.eject_failures):
        board.failed(runner, trio.current_time(), "away")
    watched = watch.HealthWatch(runner, board, config, random.Random(seed))
    watched.note_unreachable()
    with trio.move_on_after(30):
        await watched.run()
    return [later - earlier for earlier, later in pairwise(runner.probes)]


async def test_a_lost_runner_is_knocked_at_more_and_more_rarely_and_never_in_step(
    autojump_clock: MockClock,
) -> None:
    found = [await knocks(seed) for seed in SEEDS]
    for pauses in found:
        assert len(pauses) > 20
        expected = watch.FIRST_PAUSE
        for pause in pauses:
            low, high = watch.JITTER
            assert expected * low <= pause <= expected * high + 1e-9
            expected = min(expected * watch.GROWTH, 1.0)
        assert len(set(pauses)) == len(pauses)
    first = [pauses[0] for pauses in found]
    assert len(set(first)) == len(SEEDS)


class Answering(Resolver):
    """Knows every name for ``ttl`` seconds, and when it was asked."""

    def __init__(self, ttl: float) -> None:
        self.ttl = ttl
        self.asked: list[float] = []

    async def find(self, target: NameTarget | ServiceTarget) -> ResolvedTarget:
        self.asked.append(trio.current_time())
        return ResolvedTarget({"a:1": "r.test"}, self.ttl)


async def lookups(seed: int, ttl: float) -> list[float]:
    """Seconds between look-ups of a name."""
    config = PoolConfig(dns_min_interval=1.0, dns_max_interval=30.0)
    metrics = PoolMetrics(CollectorRegistry())
    resolver = Answering(ttl)
    async with (
        open_dynamic_pool(access=RunnerAccess(factory=Fleet()), metrics=metrics) as pool,
        trio.open_nursery() as nursery,
    ):
        made = Discovery(pool, [NameTarget("r.test", 1)], resolver, config, random.Random(seed))
        await made.start(nursery)
        await trio.sleep(20 * ttl)
        nursery.cancel_scope.cancel()
    return [later - earlier for earlier, later in pairwise(resolver.asked)]


async def test_names_are_looked_up_before_their_ttl_is_over_and_never_in_step(
    autojump_clock: MockClock,
) -> None:
    found = [await lookups(seed, 10.0) for seed in SEEDS]
    low, high = discovery.JITTER
    for pauses in found:
        assert len(pauses) >= 20
        assert all(10 * low <= pause <= 10 * high for pause in pauses)
        assert len(set(pauses)) == len(pauses)
    assert len({pauses[0] for pauses in found}) == len(SEEDS)
