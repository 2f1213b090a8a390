"""Several load balancers' placers in front of one runner with room for a few containers, all real
but the wire and the functions, on virtual time; and clients that always want more."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

from hostler.abc import LoadListener, Runner
from hostler.config import PlacerConfig, PoolConfig
from hostler.drivers.sim import SimRequest, SimResponse, open_sim_driver
from hostler.pool import GrpcRunner, StaticPool, SweepPlacer, WarmPlacer
from hostler.pool.dynamic import LoadBroadcast, LoadWatch
from hostler.testing import MemoryRunnerClient
from tests.pool.fakes import make_call
from tests.runner.runners import SimRunner, open_sim_runner

MEMORY = 128


class HearingPool(StaticPool):
    """As a dynamic pool it passes on what its runner tells."""

    def __init__(self, runner: Runner) -> None:
        super().__init__([runner])
        self.news = LoadBroadcast(self)

    def add_load_listener(self, listener: LoadListener) -> None:
        self.news.add(listener)


@attrs.define(eq=False)
class Balancer:
    """One, and when its calls ended well."""

    placer: SweepPlacer
    pool: HearingPool
    runner: GrpcRunner
    ended: list[float] = attrs.Factory(list)
    attempts: list[int] = attrs.Factory(list)
    longest: float = 0.0
    """Seconds that a client has waited for its answer."""

    async def watch(self) -> None:
        await LoadWatch(self.runner, self.pool.news, PoolConfig(), random.Random(1)).run()

    async def client(self, fn_id: str, pause: float = 0.0) -> None:
        """Calls again ``pause`` seconds after each answer."""
        while True:
            call = make_call(fn_id=fn_id, memory=MEMORY)
            call.model.image = "work"
            began = trio.current_time()
            await self.placer.place_call(self.pool, call)
            now = trio.current_time()
            self.ended.append(now)
            self.attempts.append(call.attempts)
            self.longest = max(self.longest, now - began)
            await trio.sleep(pause)

    def count(self, begin: float, end: float) -> int:
        return sum(begin <= at < end for at in self.ended)


@attrs.define(eq=False)
class Contest:
    runner: SimRunner
    nursery: trio.Nursery
    balancers: list[Balancer] = attrs.Factory(list)

    def enter(self, fn_id: str, clients: int, *, pause: float = 0.0) -> None:
        """One more load balancer, with clients of its own."""
        number = len(self.balancers)
        made = WarmPlacer(PlacerConfig(max_wait=3600.0), rng=random.Random(number))
        client = MemoryRunnerClient(self.runner.service, peer=f"lb:{number}")
        runner = GrpcRunner(client)
        balancer = Balancer(made, HearingPool(runner), runner)
        self.balancers.append(balancer)
        self.nursery.start_soon(balancer.watch)
        for _ in range(clients):
            self.nursery.start_soon(balancer.client, fn_id, pause)

    def shares(self, begin: float, end: float) -> Sequence[float]:
        """Of each load balancer, of the calls that ended in this time."""
        counts = [one.count(begin, end) for one in self.balancers]
        return [count / max(1, sum(counts)) for count in counts]

    def rate(self, begin: float, end: float) -> float:
        return sum(one.count(begin, end) for one in self.balancers) / (end - begin)


@asynccontextmanager
async def open_contest(
    folder: Path, *, containers: int, seconds: float, start_seconds: float = 0.1
) -> AsyncIterator[Contest]:
    """A runner with room for so many ``containers`` that run calls of ``seconds``."""
    rng = random.Random(7)

    async def work(request: SimRequest) -> SimResponse:
        await trio.sleep(seconds * rng.uniform(0.9, 1.1))
        return SimResponse()

    async with open_sim_driver() as driver:
        driver.add_image("work", work, init_time=start_seconds)
        async with open_sim_runner(driver, folder, memory=containers * MEMORY) as runner:
            async with trio.open_nursery() as nursery:
                contest = Contest(runner, nursery)
                yield contest
                nursery.cancel_scope.cancel()
            for balancer in contest.balancers:
                await balancer.runner.aclose()
