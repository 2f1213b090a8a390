"""Placing calls on runners that do nothing: what the placers and the attempts cost.

The runners are of hostler's own kind: they tell their load at first and with each answer. Half of
their memory is free, and each keeps a hot container of the function that it has run last. Calls are
of many functions, a third of them of one.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Mapping, Sequence
from typing import Any

import trio

from hostler.abc import Outcome, Placed, Runner, RunnerCall, RunnerPool
from hostler.config import PlacerConfig
from hostler.pool import PLACERS
from hostler.protocol import UNOBSERVED, AttemptObserver, LoadHint, RunnerStatus
from hostler.testing import fake_call

from .._inside import measure_inside
from .._measure import Metrics
from .._scenario import Scenario, Settings
from .._target import Target

RUNNERS = 1000
FUNCTIONS = 1000
POPULAR = 1 / 3
"""Of the calls, those of the first function."""
CLIENTS = 32
MEMORY = 4 * 2**30
CPUS = 10**6
COMPLETE = 16
"""One of so many hints names all hot containers."""


class _Idle(Runner):
    """Takes each call, which is then over."""

    def __init__(self, number: int) -> None:
        self._address = f"runner{number}:9190"
        self._number = number
        self._calls = 0

    @property
    def address(self) -> str:
        return self._address

    async def try_exec(self, call: RunnerCall, observer: AttemptObserver = UNOBSERVED) -> Outcome:
        observer.committed()
        await trio.lowlevel.checkpoint()
        self._calls += 1
        return Placed(load=self.load(call.model.fn_id.encode(), self._calls % COMPLETE == 0))

    def load(self, slot: bytes = b"", complete: bool = False) -> LoadHint:
        return LoadHint(
            free_memory=MEMORY // 2,
            reclaimable_memory=MEMORY // 2,
            free_cpus=CPUS,
            slot=slot,
            warm={slot: 1} if slot else {},
            complete=complete or not slot,
        )

    async def status(self, payload: Mapping[str, Any] | None = None) -> RunnerStatus:
        await trio.lowlevel.checkpoint()
        return RunnerStatus()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


class _Pool(RunnerPool):
    def __init__(self) -> None:
        self.members = tuple(_Idle(number) for number in range(RUNNERS))

    async def runners(self, call: RunnerCall) -> Sequence[Runner]:
        await trio.lowlevel.checkpoint_if_cancelled()
        return self.members

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


async def _run(settings: Settings, kind: str) -> Metrics:
    pool, placer = _Pool(), PLACERS[kind](PlacerConfig())
    for runner in pool.members:
        placer.note_load(pool, runner, runner.load())
    rng = random.Random(1)

    async def place() -> None:
        number = 0 if rng.random() < POPULAR else rng.randrange(FUNCTIONS)
        await placer.place_call(pool, fake_call(fn_id=f"function{number}"))

    return await measure_inside(place, settings, clients=CLIENTS)


def _measure(target: Target, settings: Settings, *, kind: str) -> Metrics:
    return trio.run(_run, settings, kind)


SCENARIOS = tuple(
    Scenario(
        name=f"placement-1000-{kind}",
        about=f"{kind}: placement on {RUNNERS} runners that do nothing, {CLIENTS} calls at once",
        measure=functools.partial(_measure, kind=kind),
        target="none",
    )
    for kind in PLACERS
)
