"""A pool of network name spaces without an engine, on virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio
from prometheus_client import CollectorRegistry

from hostler._concurrency.signal import IdleGate
from hostler.config import AgentConfig
from hostler.drivers.docker import DockerMetrics, DockerOptions, EngineError, PreforkStatistics
from hostler.drivers.docker.networks import NetworkLease, Networks
from hostler.drivers.docker.options import DriverEnvironment
from hostler.drivers.docker.prefork import QUIET, PoolPlan, PreforkPool
from hostler.drivers.docker.running import ContainerExit

AROUND = DriverEnvironment(
    config=AgentConfig(), instance_id="me", hostname="box", api_version=(1, 45)
)

MAKING = 0.2
"""Seconds that the engine takes for a container."""


class FakeParts:
    """What a pool needs of a driver: image, containers and exits."""

    def __init__(self, plan: PoolPlan) -> None:
        self.plan = plan
        self.launches = IdleGate()
        self.there: dict[str, str] = {}
        """Networks of the containers by their names, which are their ids, too."""
        self.begun: list[float] = []
        self.names: set[str] = set()
        """That containers ever had."""
        self.broken_removals = 0
        self.starting = 0.0
        self.starts_fail = False
        self.image_at = 0.0
        self.failing = ""
        """The one of that name cannot be started either."""
        self.broken_network = ""
        """Nor can those that are on it."""
        self._exits: dict[str, ContainerExit] = {}

    async def ensure(self) -> None:
        await trio.sleep_until(self.image_at)

    async def create(self, options: DockerOptions) -> str:
        self.begun.append(trio.current_time())
        self.names.add(options.name)
        with self.launches.disturbed():
            await trio.sleep(MAKING)
        self.there[options.name] = options.host_config.get("NetworkMode", "")
        return options.name

    async def start(self, name: str) -> None:
        await trio.sleep(self.starting)
        broken = bool(self.broken_network) and self.there[name] == self.broken_network
        if self.starts_fail or broken or name == self.failing:
            raise EngineError("start container", "no available IPv4 addresses", 500)

    async def remove(self, name: str) -> None:
        await trio.lowlevel.checkpoint()
        if name in self.there and self.broken_removals:
            self.broken_removals -= 1
            raise EngineError("remove container", "device busy", 500)
        self.there.pop(name, None)

    def watch(self, name: str) -> ContainerExit:
        return self._exits.setdefault(name, ContainerExit(name))

    def forget(self, name: str) -> None:
        if (exit_ := self._exits.pop(name, None)) is not None:
            exit_.happened()


@attrs.define
class Bench:
    parts: FakeParts
    pool: PreforkPool
    networks: Networks

    def take(self, count: int) -> list[NetworkLease]:
        leases = [self.networks.lease_prepared(None) for _ in range(count)]
        return [lease for lease in leases if lease is not None]

    def network_of(self, lease: NetworkLease) -> str:
        return self.parts.there[lease.mode.removeprefix("container:")]

    def counts(self) -> tuple[int, int, int]:
        """Free, used, and there in all."""
        now = self.pool.statistics()
        return now.free, now.used, len(self.parts.there)


@asynccontextmanager
async def open_pool(size: int, **plan: Any) -> AsyncIterator[Bench]:
    """A pool of that size, which is full."""
    async with open_new_pool(size, **plan) as bench:
        await trio.sleep((QUIET + MAKING) * size + 10)
        assert bench.pool.statistics() == PreforkStatistics(size=size, free=size)
        yield bench


@asynccontextmanager
async def open_new_pool(size: int, **plan: Any) -> AsyncIterator[Bench]:
    made = PoolPlan(size=size, image="img", command=(), **{"wanted": False, **plan})
    parts: Any = FakeParts(made)
    pool = PreforkPool(parts, AROUND, parts, parts, DockerMetrics(CollectorRegistry()))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.run)
        yield Bench(parts, pool, Networks(made.networks, pool))
        await pool.aclose()
