"""What a call was made of goes with it: nothing waits for the collector of cycles, which would
pause the node for longer, and until which bodies would stay."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator, Sequence

import pytest
from trio.testing import MockClock

from hostler.abc import Runner
from hostler.pool import GrpcRunner, StaticPool, WarmPlacer
from hostler.protocol import Data, ResultStart
from hostler.testing import MemoryRunnerClient

from .bench import OK, PlayedService, answer
from .fakes import make_call, make_runners
from .placers import make_of_kind


@pytest.fixture(autouse=True)
def collector_off() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def place(runners: Sequence[Runner], attempts: int) -> None:
    call = make_call()
    await make_of_kind(WarmPlacer).place_call(StaticPool(runners), call)
    assert call.attempts == attempts
    trace = weakref.ref(call)
    del call
    assert trace() is None


async def test_a_call_that_the_first_takes(autojump_clock: MockClock) -> None:
    await place(make_runners(2), 1)


async def test_a_call_that_others_refuse(autojump_clock: MockClock) -> None:
    runners = make_runners(3, slots=0)
    runners[2].slots = 1
    await place(runners, 3)


async def test_a_call_to_a_runner_of_the_wire() -> None:
    client = MemoryRunnerClient(
        PlayedService(answer(ResultStart(200), Data(b"ab"), OK)), address="r:1"
    )
    await place([GrpcRunner(client)], 1)
