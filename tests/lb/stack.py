"""LB agent, placer, engagement, runner and agent together, on virtual time."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio
from prometheus_client import CollectorRegistry

from hostler.abc import Runner
from hostler.calls import PendingCall
from hostler.config import LBConfig, PlacerConfig
from hostler.drivers.sim import SimRequest, SimResponse, open_sim_driver
from hostler.lb import LBAgent, open_lb_agent
from hostler.metrics import LBMetrics
from hostler.models import CallType
from hostler.pool import GrpcRunner, StaticPool, WarmPlacer
from tests.pool.fakes import make_call
from tests.runner.runners import SimRunner, open_sim_runner


@attrs.define
class Stack:
    agent: LBAgent
    placer: WarmPlacer
    runner: SimRunner
    metrics: LBMetrics
    lbs_runner: Runner
    """The runner as the LB has it."""
    called: list[str] = attrs.Factory(list)
    """Ids of the calls whose functions were called, in order."""
    deadlines: list[dt.datetime] = attrs.Factory(list)
    """What these functions were told."""

    def call(
        self, name: str, seconds: float = math.inf, *, kind: CallType = "sync", timeout: int = 30
    ) -> PendingCall:
        """A call that works until it is stopped."""
        call = make_call(name, kind=kind, timeout=timeout, memory=128)
        call.model.image = "endless"
        call.deadline = trio.current_time() + seconds
        return call

    async def endless(self, request: SimRequest) -> SimResponse:
        headers = {name.lower(): value for name, value in request.headers}
        self.called.append(headers["fn-call-id"])
        self.deadlines.append(dt.datetime.fromisoformat(headers["fn-deadline"]))
        await trio.sleep_forever()

    @property
    def runs(self) -> int:
        return self.runner.agent.statistics().running


@asynccontextmanager
async def open_stack(
    folder: Path, *, headroom: float = 360.0, placer_seconds: float = 360.0
) -> AsyncIterator[Stack]:
    """One runner with room for one container."""
    metrics = LBMetrics(CollectorRegistry())
    config = PlacerConfig(placer_timeout=placer_seconds, detached_placer_timeout=placer_seconds)
    placer = WarmPlacer(config, metrics=metrics)
    async with (
        open_sim_driver() as driver,
        open_sim_runner(driver, folder, memory=128) as runner,
    ):
        lbs_runner = GrpcRunner(runner.client)
        async with open_lb_agent(
            StaticPool([lbs_runner]),
            placer,
            config=LBConfig(execution_headroom=headroom * 1000),
            metrics=metrics,
            grace=0,
        ) as agent:
            stack = Stack(agent, placer, runner, metrics, lbs_runner)
            driver.add_image("endless", stack.endless)
            yield stack
