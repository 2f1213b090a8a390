"""A pure runner without a wire: its service over an agent on the sim driver."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio
import trio.testing
from prometheus_client import CollectorRegistry

from hostler import DrainBudget
from hostler._call_document import encode_call
from hostler.agent import Agent, OutputSink, Resources, open_agent
from hostler.config import AgentConfig
from hostler.drivers.sim import SimDriver, SimRequest, SimResponse
from hostler.metrics import AgentMetrics
from hostler.protocol import Data, Finished, RunnerFrame, TryCall
from hostler.runner import (
    FunctionLogs,
    PureRunnerService,
    RunnerOptions,
    StatusChecks,
    open_runner_service,
)
from hostler.testing import MemoryRunnerClient
from tests.agent.nodes import call_model

CHECKS = StatusChecks(image="status")

MIB = 2**20


@attrs.define(eq=False)
class SimRunner:
    driver: SimDriver
    agent: Agent
    service: PureRunnerService
    client: MemoryRunnerClient
    registry: CollectorRegistry

    def value(self, name: str, **labels: str) -> float:
        """Of a metric; 0 if it has no such sample."""
        return self.registry.get_sample_value(name, labels) or 0

    async def call(self, image: str = "echo", body: bytes = b"", **model: Any) -> Finished:
        """Run one call and return its outcome."""
        return (await self.frames(image, body, **model))[1]

    async def frames(
        self, image: str = "echo", body: bytes = b"", **model: Any
    ) -> tuple[bytes, Finished]:
        """Run one call; its response body and its outcome."""
        first = Data(body, eof=True)
        frames: list[RunnerFrame] = []
        async with self.client.engage(try_call(image, **model), first=first) as engagement:
            while (frame := await engagement.receive()) is not None:
                frames.append(frame)
        finished = frames[-1]
        assert isinstance(finished, Finished)
        return b"".join(f.data for f in frames if isinstance(f, Data)), finished


def try_call(image: str = "echo", **model: Any) -> TryCall:
    return TryCall(encode_call(call_model(image, **model)))


@asynccontextmanager
async def open_sim_runner(
    driver: SimDriver,
    iofs: Path,
    *,
    memory: int = 1024,
    nack: bool = True,
    logs: FunctionLogs | None = None,
    output: OutputSink | None = None,
    drain_grace_msecs: float = 30_000,
    grace: DrainBudget | None = None,
    **options: Any,
) -> AsyncIterator[SimRunner]:
    """A runner with ``memory`` MB; at its end no call and no container may be left."""
    registry = CollectorRegistry()
    metrics = AgentMetrics(registry)
    config = AgentConfig(
        iofs_path=str(iofs), enable_nb_resource_tracker=nack, drain_grace_msecs=drain_grace_msecs
    )
    async with open_agent(
        driver,
        config=config,
        total=Resources(memory * MIB, 4000),
        output=logs.collect if logs is not None else output,
        metrics=metrics,
        grace=grace,
    ) as agent:
        runner_options = RunnerOptions(logs=logs, metrics=metrics, **options)
        async with open_runner_service(agent, runner_options) as service:
            client = MemoryRunnerClient(service)
            yield SimRunner(driver, agent, service, client, registry)
            await client.aclose()
        assert service.statistics().active == 0
        assert service.statistics().detached == 0
    assert agent.statistics().at_rest, agent.statistics()
    await trio.lowlevel.checkpoint()


async def sleep(request: SimRequest) -> SimResponse:
    await trio.sleep(60)
    return SimResponse()
