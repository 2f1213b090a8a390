"""A dynamic pool whose members a test adds, breaks and takes away."""

from __future__ import annotations

import math
import random
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import trio
from prometheus_client import CollectorRegistry

from hostler.abc import NotPlaced, Outcome, PKIData, Runner, RunnerCall
from hostler.calls import PendingCall
from hostler.config import PoolConfig
from hostler.errors import AttemptTimedOut, ConfigError
from hostler.pool import (
    DynamicPool,
    PoolMetrics,
    RunnerAccess,
    open_dynamic_pool,
)
from hostler.protocol import UNOBSERVED, AttemptObserver, EngagementFailed, NotSent, RunnerStatus
from tests.wire.leaks import trio_tasks

from .fakes import FakeRunner, make_call

DOWN = NotPlaced(NotSent("refused"))


class Host(FakeRunner):
    """A runner whose machine a test can break; it can tell how it is if it ``tells``."""

    def __init__(self, address: str, *, tells: bool = False, **options: Any) -> None:
        super().__init__(address, **options)
        self.outcome: Outcome | None = None
        """What attempts get at once, instead of running."""
        self.tells = tells
        self.serving = True
        self.probes: list[float] = []
        self.changed = trio.Event()
        self.gone = trio.Event()
        self.stuck = False

    def change(self, *, serving: bool | None = None, up: bool | None = None) -> None:
        if serving is not None:
            self.serving = serving
        if up is not None:
            self.outcome = None if up else DOWN
        self.changed.set()
        self.changed = trio.Event()

    async def try_exec(self, call: RunnerCall, observer: AttemptObserver = UNOBSERVED) -> Outcome:
        if self.stuck:
            await trio.sleep_forever()
        if self.outcome is not None:
            self.attempts[call.model.id] += 1
            await trio.lowlevel.checkpoint()
            return self.outcome
        return await super().try_exec(call, observer)

    async def status(self, payload: Mapping[str, Any] | None = None) -> RunnerStatus:
        self.probes.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        if self.outcome is not None:
            raise NotSent("refused")
        return RunnerStatus()

    async def watch_health(self) -> AsyncGenerator[bool, None]:
        await trio.lowlevel.checkpoint()
        while self.tells:
            if self.outcome is not None:
                raise EngagementFailed(14, "connection closed")
            yield self.serving
            await self.changed.wait()

    async def aclose(self) -> None:
        try:
            while self.active:  # noqa: ASYNC110  (virtual time)
                await trio.sleep(0.1)
        finally:
            self.gone.set()
            self.closed += 1


class Fleet:
    """Makes hosts, and remembers them."""

    def __init__(self, **options: Any) -> None:
        self.hosts: dict[str, Host] = {}
        self.made: list[tuple[str, str]] = []
        self.options = options

    def __call__(self, address: str, name: str, pki: PKIData | None) -> Runner:
        if not address:
            raise ConfigError("runner address ''")
        self.made.append((address, name))
        host = self.hosts[address] = Host(address, **self.options)
        return host


@asynccontextmanager
async def opened(
    fleet: Fleet, *addresses: str, metrics: PoolMetrics | None = None, **config: Any
) -> AsyncIterator[DynamicPool]:
    """A pool on virtual time that leaves no task behind."""
    before = trio_tasks()
    async with open_dynamic_pool(
        addresses,
        config=PoolConfig(**config),
        access=RunnerAccess(factory=fleet),
        metrics=metrics or PoolMetrics(CollectorRegistry()),
        rng=random.Random(1),
    ) as pool:
        yield pool
    assert trio_tasks() == before
    assert pool.statistics().leaving == 0
    assert all(host.closed == 1 for host in fleet.hosts.values())


async def offered(pool: DynamicPool, attempts: int = 1, *, waited: bool = False) -> list[str]:
    """What the pool offers to a call that was refused before, hence without slow start."""
    call = make_call()
    call.attempts, call.waited = attempts, waited
    return [runner.address for runner in await pool.runners(call)]


async def attempt(
    pool: DynamicPool, address: str, count: int = 1, *, limit: float = math.inf
) -> list[Outcome]:
    """Attempts at one runner of the pool, each within ``limit`` seconds."""
    call = make_call()
    return [await tell(pool, call, address, limit=limit) for _ in range(count)]


async def tell(
    pool: DynamicPool, call: PendingCall, address: str, *, limit: float = math.inf
) -> Outcome:
    """One attempt, whose outcome the pool is told."""
    runner = next(r for r in pool._offer if r.address == address)
    began = trio.current_time()
    outcome: Outcome = NotPlaced(AttemptTimedOut())
    with trio.move_on_after(limit):
        outcome = await runner.try_exec(call)
    pool.note_outcome(runner, call, outcome, trio.current_time() - began)
    return outcome
