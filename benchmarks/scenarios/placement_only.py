"""Placing calls on runners that do nothing: what the placer and the attempts cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import trio
from prometheus_client import CollectorRegistry

from hostler.abc import Outcome, Placed, Runner, RunnerCall, RunnerPool
from hostler.frames import RunnerStatus
from hostler.metrics import LBMetrics
from hostler.pool import NaivePlacer
from hostler.testing import fake_call

from .._inside import measure_inside
from .._measure import Metrics
from .._scenario import Scenario, Settings
from .._target import Target

RUNNERS = 1000
CLIENTS = 32


class _Idle(Runner):
    """Takes each call, which is then over."""

    def __init__(self, number: int) -> None:
        self._address = f"runner{number}:9190"

    @property
    def address(self) -> str:
        return self._address

    async def try_exec(
        self, call: RunnerCall, *, on_commit: Callable[[], None] = lambda: None
    ) -> Outcome:
        on_commit()
        await trio.lowlevel.checkpoint()
        return Placed()

    async def status(self, payload: Mapping[str, Any] | None = None) -> RunnerStatus:
        await trio.lowlevel.checkpoint()
        return RunnerStatus()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


class _Pool(RunnerPool):
    def __init__(self) -> None:
        self._runners = tuple(_Idle(number) for number in range(RUNNERS))

    async def runners(self, call: RunnerCall) -> Sequence[Runner]:
        await trio.lowlevel.checkpoint_if_cancelled()
        return self._runners

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


async def _run(settings: Settings) -> Metrics:
    pool, placer = _Pool(), NaivePlacer(metrics=LBMetrics(CollectorRegistry()))

    async def place() -> None:
        await placer.place_call(pool, fake_call())

    return await measure_inside(place, settings, clients=CLIENTS)


def _measure(target: Target, settings: Settings) -> Metrics:
    return trio.run(_run, settings)


SCENARIOS = (
    Scenario(
        name="placement-1000",
        about=f"naive placement on {RUNNERS} runners that do nothing, {CLIENTS} calls at once",
        measure=_measure,
        target="none",
    ),
)
