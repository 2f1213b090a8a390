"""Calls that may wait at a runner without room to be the next on a hot container."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import trio

from hostler.drivers.sim import SimRequest, SimResponse, open_sim_driver
from hostler.protocol import Data, Finished

from .fakes import PlayedEngagement, ToldAgent, a_try, engage
from .runners import SimRunner, open_sim_runner, try_call


async def one_second(request: SimRequest) -> SimResponse:
    await trio.sleep(1)
    return SimResponse(body=await request.read())


async def call(runner: SimRunner, wait_ms: int) -> Finished:
    """Its outcome."""
    frame = msgspec.structs.replace(try_call("slow"), wait_ms=wait_ms)
    async with runner.client.engage(frame, first=Data(b"", eof=True)) as engagement:
        while not isinstance(received := await engagement.receive(), Finished):
            assert received is not None
    return received


@pytest.mark.parametrize(
    ("wait_ms", "ok", "until"), [(0, False, 0.5), (300, False, 0.8), (600, True, 2)]
)
async def test_a_call_waits_for_as_long_as_its_lb_allows(
    autojump_clock: object, tmp_path: Path, wait_ms: int, ok: bool, until: float
) -> None:
    async with (
        open_sim_driver({"slow": one_second}) as driver,
        open_sim_runner(driver, tmp_path, memory=128) as runner,
    ):
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, runner, 0)
            await trio.sleep(0.5)
            outcome = await call(runner, wait_ms)
            assert trio.current_time() - began == pytest.approx(until, abs=0.01)
        assert outcome.success is ok
        assert outcome.error_code == (0 if ok else 503)
        assert outcome.load is not None
        assert outcome.load.slots == 1
        assert driver.statistics().created == 1


async def test_the_agent_is_told_in_seconds_and_zero_without() -> None:
    agent = ToldAgent()
    for wait_ms in (0, 250):
        first = msgspec.structs.replace(a_try(), wait_ms=wait_ms)
        await engage(PlayedEngagement(first, Data(b"", eof=True)), agent)
    assert [call.queue_seconds for call in agent.submitted] == [0, 0.25]
