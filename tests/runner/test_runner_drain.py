"""A runner that ends: what waits is NACKed, what runs ends, log streams end, and it is bounded."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from hostler.drivers.sim import SimRequest, SimResponse, open_sim_driver
from hostler.protocol import (
    Data,
    EngagementFailed,
    Finished,
    LogAck,
    LogReady,
    LogStart,
    ResultStart,
    RunnerFrame,
)
from tests.conftest import Logs

from .collectors import make_logs, texts
from .runners import SimRunner, open_sim_runner, try_call


async def _work(request: SimRequest) -> SimResponse:
    """Ten seconds of work, and a line at its end."""
    await trio.sleep(10)
    request.container.output(b"done\n")
    return SimResponse(body=b"result")


async def _started(runner: SimRunner, count: int) -> None:
    await trio.testing.wait_all_tasks_blocked(0.01)
    assert runner.service.statistics().active == count


async def test_what_runs_ends_and_what_waits_is_nacked(
    autojump_clock: object, tmp_path: Path
) -> None:
    outcomes: dict[str, Finished] = {}
    async with (
        open_sim_driver({"work": _work}) as driver,
        open_sim_runner(driver, tmp_path, memory=128, nack=False) as runner,
    ):

        async def one(name: str) -> None:
            outcomes[name] = await runner.call("work", id=name)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(one, "first")
            await _started(runner, 1)
            nursery.start_soon(one, "second")  # waits for memory
            await _started(runner, 2)
            began = trio.current_time()
            await runner.service.drain(30)
            assert trio.current_time() - began == pytest.approx(10, abs=0.1)
        assert outcomes["first"].success
        assert outcomes["second"].error_code == 503
        counts = runner.service.statistics()
        assert (counts.active, counts.received, counts.handled) == (0, 2, 1)
        late = await runner.call("work")
        assert late.error_code == 503


async def test_detached_calls_are_waited_for_even_without_their_lb(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with (
        open_sim_driver({"work": _work}) as driver,
        open_sim_runner(driver, tmp_path) as runner,
    ):
        call, first = try_call("work", type="detached"), Data(b"", eof=True)
        async with runner.client.engage(call, first=first) as engagement:
            assert await engagement.receive() == ResultStart(202)
        assert runner.service.statistics().active == 0
        assert runner.service.statistics().detached == 1
        await runner.service.drain(30)
        assert runner.agent.statistics().completed == 1


async def test_the_grace_bounds_it(autojump_clock: object, tmp_path: Path, logs: Logs) -> None:
    frames: list[RunnerFrame | None] = []
    began = trio.current_time()
    async with open_sim_driver({"work": _work}) as driver, trio.open_nursery() as nursery:
        async with open_sim_runner(driver, tmp_path, drain_grace_msecs=0) as runner:

            async def lose() -> None:
                with pytest.raises(EngagementFailed):
                    frames.append(await runner.call("work"))

            nursery.start_soon(lose)
            call, first = try_call("work", type="detached"), Data(b"", eof=True)
            async with runner.client.engage(call, first=first) as engagement:
                assert await engagement.receive() == ResultStart(202)
            await _started(runner, 1)
            await runner.service.drain(2)
        assert trio.current_time() - began < 3
    assert not frames
    (warning,) = logs.with_event("runner cancels what is left")
    assert (warning["active"], warning["detached"]) == (1, 1)


async def test_log_streams_get_the_last_lines_and_end(
    autojump_clock: object, tmp_path: Path
) -> None:
    taken: list[bytes] = []
    ended = trio.Event()
    async with (
        open_sim_driver({"work": _work}) as driver,
        open_sim_runner(driver, tmp_path, logs=make_logs()) as runner,
    ):

        async def collect() -> None:
            async with runner.client.stream_logs() as collector:
                await collector.send(LogStart())
                await collector.send(LogReady())
                while (batch := await collector.receive()) is not None:
                    taken.extend(texts(batch))
                    await collector.send(LogAck())
            ended.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(collect)
            nursery.start_soon(runner.call, "work")
            await _started(runner, 1)
            await runner.service.drain(30)
        assert ended.is_set()
    assert taken == [b"done"]


async def test_weakness_14_an_open_log_stream_holds_nothing_up(
    autojump_clock: object, tmp_path: Path
) -> None:
    """A collector that takes no more can't keep the runner from ending."""
    logs = make_logs()
    async with (
        open_sim_driver({"work": _work}) as driver,
        open_sim_runner(driver, tmp_path, logs=logs) as runner,
        runner.client.stream_logs() as collector,
    ):
        await collector.send(LogStart())
        await collector.send(LogReady())
        await runner.call("work")
        assert await collector.receive() is not None  # and no ack
        began = trio.current_time()
        await runner.service.drain(30)
        assert trio.current_time() - began == pytest.approx(5, abs=0.1)
        assert logs.statistics().unconfirmed == 1
