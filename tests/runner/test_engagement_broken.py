"""Engagements that the wire ends: no outcome, and no error of this runner's in its log."""

from __future__ import annotations

import json

import pytest
import trio

from hostler.protocol import ClientFrame, Data, EngagementEnded, Finished, GRPCStatus, TryCall
from hostler.runner.engagement import EngagementRun, RunnerState
from tests.conftest import Logs
from tests.runner.fakes import PlayedEngagement, ToldAgent

TRY = TryCall(json.dumps({"id": "call-1", "image": "hello", "type": "sync", "method": "POST"}))


@pytest.mark.parametrize(
    "frames", [[], [TRY], [TRY, Data(b"x")]], ids=["before try", "before data", "inside body"]
)
@pytest.mark.parametrize("end", [GRPCStatus(13, "undecodable"), EngagementEnded("gone")])
async def test_what_the_wire_ends_stays_as_the_wire_says(
    frames: list[ClientFrame], end: Exception, logs: Logs
) -> None:
    class Failing(PlayedEngagement):
        async def receive(self) -> ClientFrame | None:
            frame = await super().receive()
            if frame is None:
                raise end
            return frame

    engagement = Failing(*frames, end=True)
    async with trio.open_nursery() as nursery:
        run = EngagementRun(RunnerState(ToldAgent(), nursery), engagement)
        caught: Exception | None = None
        try:
            await run.serve()
        except (GRPCStatus, EngagementEnded) as error:  # would leave the nursery inside a group
            caught = error
    assert caught is end
    assert not any(isinstance(frame, Finished) for frame in engagement.sent)
    assert logs.errors() == []
