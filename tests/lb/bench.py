"""An LB agent over one fake runner, and what tests of it share."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio
import trio.lowlevel
from prometheus_client import CollectorRegistry

from hostler import DrainBudget
from hostler.abc import (
    CallListener,
    CallOverrider,
    Outcome,
    Placed,
    RunnerCall,
)
from hostler.bodies import BodyBudget
from hostler.calls import CallOption, PendingCall
from hostler.config import LBConfig, PlacerConfig
from hostler.lb import LBAgent, open_lb_agent
from hostler.metrics import LBMetrics
from hostler.pool import NaivePlacer
from hostler.protocol import AttemptObserver
from tests.pool.fakes import FakePool, FakeRunner


@attrs.define(kw_only=True)
class Bench:
    agent: LBAgent
    runner: FakeRunner
    registry: CollectorRegistry

    def sample(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


@asynccontextmanager
async def open_bench(
    runner: FakeRunner,
    *,
    pool: FakePool | None = None,
    grace: float | DrainBudget = 30.0,
    config: LBConfig | None = None,
    placer_seconds: float = 5.0,
    call_overrider: CallOverrider | None = None,
    call_options: tuple[CallOption, ...] = (),
    listeners: tuple[CallListener, ...] = (),
    bodies: BodyBudget | None = None,
) -> AsyncIterator[Bench]:
    """Over ``runner``, or over a whole ``pool``."""
    registry = CollectorRegistry()
    metrics = LBMetrics(registry)
    placer = NaivePlacer(
        PlacerConfig(placer_timeout=placer_seconds, detached_placer_timeout=placer_seconds),
        metrics=metrics,
        rng=random.Random(1),
    )
    async with open_lb_agent(
        pool or FakePool([runner]),
        placer,
        config=config,
        call_overrider=call_overrider,
        call_options=call_options,
        listeners=listeners,
        metrics=metrics,
        bodies=bodies,
        grace=grace,
    ) as agent:
        yield Bench(agent=agent, runner=runner, registry=registry)


def failing(error: Exception) -> FakeRunner:
    async def fail(runner: FakeRunner, call: RunnerCall, observer: AttemptObserver) -> Outcome:
        await trio.lowlevel.checkpoint()
        observer.committed()
        return Placed(error)

    return FakeRunner(script=fail)


def acknowledging(seconds: float, then: Exception | None = None, status: int = 202) -> FakeRunner:
    """Takes a detached call, acknowledges it after 1 s, ends it ``seconds`` later."""

    async def run(runner: FakeRunner, call: RunnerCall, observer: AttemptObserver) -> Outcome:
        observer.committed()
        runner.active += 1
        try:
            await trio.sleep(1)
            await call.writer.start(status, ())
            await call.writer.write(b"ignored")
            await trio.sleep(seconds)
            runner.order.append(call.model.id)
        finally:
            runner.active -= 1
        return Placed(then)

    return FakeRunner(script=run)


class Recorder(CallListener):
    def __init__(self, record: list[str], name: str = "") -> None:
        self.record = record
        self.name = name

    async def before_call(self, call: PendingCall) -> None:
        await trio.lowlevel.checkpoint()
        self.record.append(f"{self.name}before {call.model.status}")

    async def after_call(self, call: PendingCall) -> None:
        await trio.lowlevel.checkpoint()
        self.record.append(f"{self.name}after {call.model.status} {call.model.error}".strip())
