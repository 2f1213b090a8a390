"""An attempt whose time is over in the turn in which its call could be sent."""

from __future__ import annotations

import time
from collections.abc import Mapping

import pytest
import trio
import trio.testing
from h2.settings import SettingCodes

from hostler import wire
from hostler.config import PlacerConfig
from hostler.pool import GrpcRunner, WarmPlacer
from hostler.protocol import (
    Data,
    Finished,
    LogChannel,
    ResultStart,
    RunnerService,
    RunnerStatus,
    ServerEngagement,
)
from hostler.testing import FakePool

from .fakes import RecordingWriter, fresh_metrics, make_call

CALLS = 8
SECONDS = 0.3
"""For one attempt."""


class Answering(RunnerService):
    async def engage(self, engagement: ServerEngagement) -> None:
        await engagement.receive()
        frame = await engagement.receive()
        assert isinstance(frame, Data)
        await engagement.send(ResultStart(200))
        await engagement.send(Finished(success=True))

    async def status(self, payload: str | None) -> RunnerStatus:
        await trio.lowlevel.checkpoint()
        return RunnerStatus()

    async def configure(self, config: Mapping[str, str]) -> None:
        await trio.lowlevel.checkpoint()

    async def stream_logs(self, channel: LogChannel) -> None:
        await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("share_limit", [0, 1000], ids=["own-stream", "shared-stream"])
@pytest.mark.parametrize("turn", range(3))  # a turn of the scheduler takes its tasks either way
async def test_it_is_tried_again_and_not_taken_for_one_that_may_have_run(
    turn: int, share_limit: int
) -> None:
    """As when a runner that was frozen goes on: its credit and the end of the attempts' time are
    there at once for a load balancer that was busy."""
    done: list[RecordingWriter] = []

    async def place(placer: WarmPlacer, runner: GrpcRunner) -> None:
        writer = RecordingWriter()
        await placer.place_call(FakePool([runner]), make_call(writer=writer))
        done.append(writer)

    with trio.fail_after(60):
        async with (
            wire.open_loop() as loop,
            wire.open_server(Answering(), "127.0.0.1:0", loop=loop) as server,
        ):
            client = wire.GrpcRunnerClient(
                server.address, wire.ConnectOptions(share_limit=share_limit), loop=loop
            )
            runner = GrpcRunner(client)
            config = PlacerConfig(attempt_timeout=SECONDS)
            placer = WarmPlacer(config, metrics=fresh_metrics())
            await place(placer, runner)
            (protocol,) = server.connections

            def set_window(size: int) -> None:
                protocol.connection.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: size})
                protocol.connection.flush()

            set_window(0)
            await trio.testing.wait_all_tasks_blocked(0.01)
            async with trio.open_nursery() as nursery:
                for _ in range(CALLS):
                    nursery.start_soon(place, placer, runner)
                await trio.testing.wait_all_tasks_blocked(0.01)
                assert len(done) == 1
                set_window(65_536)
                time.sleep(2 * SECONDS)  # noqa: ASYNC251  (nothing of this process goes on)
            assert len(done) == 1 + CALLS
            await runner.aclose()
