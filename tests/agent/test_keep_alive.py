"""How long idle containers stay, on virtual time: the agent does what its policy says."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from prometheus_client import CollectorRegistry

from hostler import options
from hostler.abc import KeptContainer
from hostler.agent import Agent, ContainerState, Resources, open_agent
from hostler.config import AgentConfig
from hostler.drivers.sim import SimDriver, echo, open_sim_driver
from hostler.keep_alive import FixedKeepAlive, PredictiveKeepAlive
from hostler.metrics import AgentMetrics

from .nodes import MIB, call_model, until

GENEROUS = AgentConfig(keep_alive="predictive", keep_alive_percent=400)
"""With memory to wait for a call of which it is only known when it comes within a fifth."""


class Watched:
    """An agent, its driver and its metrics."""

    def __init__(self, agent: Agent, driver: SimDriver, registry: CollectorRegistry) -> None:
        self.agent = agent
        self.driver = driver
        self._registry = registry

    async def run(self, image: str = "echo", **fields: Any) -> bool:
        """Whether the call found a container ready."""
        model = call_model(image, **fields)
        call = self.agent.get_call(options.from_model(model))
        began = trio.current_time()
        await self.agent.submit(call)
        return trio.current_time() - began < 0.1

    def value(self, name: str) -> float:
        return self._registry.get_sample_value(f"fn_container_{name}") or 0

    @property
    def idle(self) -> int:
        found = self.agent.statistics().containers
        return found.get(ContainerState.IDLE, 0) + found.get(ContainerState.PAUSED, 0)


@asynccontextmanager
async def watched(
    iofs: Path,
    policy: FixedKeepAlive | PredictiveKeepAlive,
    *,
    memory: int = 1024,
    **config: Any,
) -> AsyncIterator[Watched]:
    registry = CollectorRegistry()
    async with open_sim_driver() as driver:
        for image in ("echo", "other", "third"):
            driver.add_image(image, echo, create_time=0.2, start_time=0.2, init_time=0.1)
        async with open_agent(
            driver,
            config=AgentConfig(iofs_path=str(iofs), **config),
            total=Resources(memory * MIB, 4000),
            metrics=AgentMetrics(registry),
            keep_alive=policy,
        ) as agent:
            yield Watched(agent, driver, registry)
        assert agent.statistics().at_rest


async def test_a_regular_function_finds_a_container_that_came_ahead(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with watched(tmp_path, PredictiveKeepAlive(GENEROUS)) as node:
        found = []
        for number in range(1, 13):
            await trio.sleep_until(300.0 * number)
            found.append(await node.run(idle_timeout=30))
        assert found[:3] == [False] * 3
        assert found[3:] == [True] * 9
        assert node.value("cold_starts") == 3
        assert node.value("starts_ahead") == node.value("starts_ahead_used") >= 7
        assert node.value("launches") == 3 + node.value("starts_ahead")


async def test_a_container_that_came_in_vain_goes_again(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with watched(tmp_path, PredictiveKeepAlive(GENEROUS)) as node:
        for number in range(1, 7):
            await trio.sleep_until(300.0 * number)
            await node.run()
        ahead = node.value("starts_ahead")
        await until(lambda: node.value("starts_ahead") == ahead + 1, seconds=400)
        await trio.sleep(20_000)
        assert node.agent.statistics().at_rest
        assert node.value("starts_ahead") == ahead + 1 == node.value("starts_ahead_used") + 1


async def test_nothing_comes_ahead_into_room_that_is_taken(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with watched(tmp_path, PredictiveKeepAlive(GENEROUS), memory=128) as node:
        for number in range(1, 7):
            await trio.sleep_until(300.0 * number)
            await node.run()
        assert node.value("starts_ahead") > 0
        ahead = node.value("starts_ahead")
        other = node.agent.keep_warm(
            node.agent.get_call(options.from_model(call_model("other"))), 1
        )
        await other.wait_ready()
        await trio.sleep_until(2100)
        assert node.value("starts_ahead") == ahead
        assert node.agent.statistics().evictions == 0


async def test_who_is_to_be_kept_ready_stays_whatever_the_policy_says(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with watched(tmp_path, PredictiveKeepAlive(GENEROUS)) as node:
        hold = node.agent.keep_warm(node.agent.get_call(options.from_model(call_model("echo"))), 1)
        await hold.wait_ready()
        for _ in range(5):
            await trio.sleep(3000)
            assert await node.run()
        assert node.value("launches") == 1
        hold.release()
        await until(lambda: node.agent.statistics().at_rest, seconds=31)


class Reversed(FixedKeepAlive):
    """Evicts whom another function used last, and keeps for ever."""

    def keep_until(self, container: KeptContainer, now: float) -> float:
        return math.inf

    def rank(self, container: KeptContainer, now: float) -> float:
        return -container.idle_since


async def test_eviction_goes_by_rank_and_takes_no_more_than_it_has_to(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with watched(tmp_path, Reversed(), memory=3 * 128) as node:
        for image in ("echo", "other"):
            await node.run(image)
            await trio.sleep(100)
        await node.run("third", memory=256)
        assert node.agent.statistics().evictions == 1
        assert await node.run("echo")
        assert not await node.run("other")


async def test_a_fixed_time_is_that_of_the_function(autojump_clock: object, tmp_path: Path) -> None:
    async with watched(tmp_path, FixedKeepAlive()) as node:
        await node.run(idle_timeout=7)
        began = trio.current_time()
        await until(lambda: not node.idle, seconds=20)
        assert 7 <= trio.current_time() - began < 7.1
        assert node.value("cold_starts") == 1
        assert node.value("starts_ahead") == 0
