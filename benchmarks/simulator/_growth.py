"""Clients of one function that come all of a sudden, each with one call after the other: how soon a
placer has a container for each of them."""

from __future__ import annotations

import random
from collections.abc import Sequence

import attrs
import trio
from rich.console import Console
from rich.table import Table
from trio.testing import MockClock

from hostler._concurrency.nurseries import open_background
from hostler.config import PlacerConfig, PoolConfig
from hostler.pool import PLACERS, SweepPlacer
from hostler.pool.dynamic import LoadWatch
from tests.support.simulated_runner import SimRunner

from ._run import NEVER, ListeningPool, make_call
from ._workload import Arrival, Function, poisson

RUNNERS, MEMORY = 2, 64 * 128
SINGLES = 5
"""Calls one after the other before."""
SECONDS = 6.0
"""That each step lasts."""
MEASURED = 1.0
"""Seconds at its end over which the rate is measured."""
PATTERNS: Sequence[tuple[float, Sequence[int]]] = (
    (0.03, [4]),
    (0.01, [8]),
    (0.1, [16]),
    (0.3, [4]),
    (0.05, [1, 8, 1, 16]),
)
"""Seconds that a call runs, and how many clients there are in each step."""


@attrs.frozen(kw_only=True)
class Growth:
    """``shares`` are, for each step, the rate at its end in terms of that of a container for each
    client."""

    placer: str
    lbs: int
    run: float
    clients: Sequence[int]
    shares: Sequence[float]
    containers: int
    """That were started."""


class _Clients:
    def __init__(
        self, placers: Sequence[SweepPlacer], pool: ListeningPool, run: float, nursery: trio.Nursery
    ) -> None:
        self._placers = placers
        self._pool = pool
        self._run = run
        self._nursery = nursery
        self._scopes: list[trio.CancelScope] = []
        self._function = Function("fn", 0.0, run, 128, poisson)
        self.ended = 0

    async def call(self, lb: int) -> None:
        arrival = Arrival(trio.current_time(), self._function, self._run)
        await self._placers[lb].place_call(self._pool, make_call(arrival, lb))
        self.ended += 1

    def be(self, count: int) -> None:
        """So many from now on."""
        while len(self._scopes) > count:
            self._scopes.pop().cancel()
        while len(self._scopes) < count:
            self._scopes.append(trio.CancelScope())
            self._nursery.start_soon(self._loop, len(self._scopes) - 1)

    async def _loop(self, number: int) -> None:
        with self._scopes[number]:
            while True:
                await self.call(number % len(self._placers))


async def _grow(placer: str, lbs: int, run: float, steps: Sequence[int]) -> Growth:
    runners = [SimRunner(f"r{number}:1", MEMORY) for number in range(RUNNERS)]
    pool, rng, shares = ListeningPool(runners), random.Random(1), list[float]()
    placers = [PLACERS[placer](PlacerConfig(max_wait=NEVER)) for _ in range(lbs)]
    async with open_background() as watching:
        for runner in runners:
            watch = LoadWatch(runner, pool.news, PoolConfig(), rng)
            watching.start_soon(watch.run)
        async with trio.open_nursery() as nursery:
            clients = _Clients(placers, pool, run, nursery)
            for number in range(SINGLES):
                await clients.call(number % lbs)
            for count in steps:
                clients.be(count)
                await trio.sleep(SECONDS - MEASURED)
                ended = clients.ended
                await trio.sleep(MEASURED)
                shares.append((clients.ended - ended) / MEASURED * run / count)
            nursery.cancel_scope.cancel()
        watching.cancel_scope.cancel()
    started = sum(runner.cold for runner in runners)
    return Growth(placer=placer, lbs=lbs, run=run, clients=steps, shares=shares, containers=started)


def simulate_growth(placer: str, lbs: int, run: float, steps: Sequence[int]) -> Growth:
    """Have it happen on virtual time."""
    clock = MockClock(autojump_threshold=0)
    return trio.run(_grow, placer, lbs, run, steps, clock=clock)


def print_growth(placers: Sequence[str], lbs: Sequence[int], console: Console) -> None:
    """All patterns with each placer, as a table."""
    table = Table(box=None)
    titles = ("placer", "LBs", "run s", "clients", "share of the ideal rate", "containers started")
    for title in titles:
        table.add_column(title)
    for run, steps in PATTERNS:
        for placer in placers:
            for count in lbs:
                growth = simulate_growth(placer, count, run, steps)
                table.add_row(
                    placer,
                    str(count),
                    str(run),
                    ", ".join(map(str, steps)),
                    ", ".join(f"{share:.2f}" for share in growth.shares),
                    str(growth.containers),
                )
    console.print(table)
