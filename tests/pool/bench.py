"""A runner object over memory, with a service behind it that plays what a test says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
import trio

from hostler.abc import Outcome
from hostler.pool import GrpcRunner
from hostler.protocol import (
    Data,
    Finished,
    LogChannel,
    ResultStart,
    RunnerService,
    RunnerStatus,
    ServerEngagement,
    TryCall,
)
from hostler.testing import MemoryRunnerClient
from tests.support.observers import OnCommit

from .fakes import make_call

Play = Callable[[ServerEngagement], Awaitable[None]]
OK = Finished(success=True, execution_ns=5_000_000, scheduler_ns=7)


class PlayedService(RunnerService):
    def __init__(self, play: Play) -> None:
        self.play = play
        self.running = 0
        self.served = 0
        self.answer = RunnerStatus()
        """Of a status, beside the counts."""

    async def engage(self, engagement: ServerEngagement) -> None:
        self.running += 1
        self.served += 1
        try:
            await self.play(engagement)
        finally:
            self.running -= 1

    async def status(self, payload: str | None) -> RunnerStatus:
        return msgspec.structs.replace(self.answer, active=self.running, details=payload or "")

    async def configure(self, config: object) -> None:
        raise AssertionError

    async def stream_logs(self, channel: LogChannel) -> None:
        raise AssertionError


class Bench:
    """A runner over memory, the service behind it, and the calls' commits."""

    def __init__(self, play: Play) -> None:
        self.service = PlayedService(play)
        self.client = MemoryRunnerClient(self.service, address="runner:1")
        self.runner = GrpcRunner(self.client)
        self.commits = 0
        self.call = make_call()

    async def try_exec(self) -> Outcome:
        return await self.runner.try_exec(self.call, OnCommit(self._commit))

    def _commit(self) -> None:
        self.commits += 1

    def is_idle(self) -> bool:
        return self.client.engagements == 0 and self.service.running == 0


async def read_all(engagement: ServerEngagement) -> tuple[TryCall, bytes]:
    try_call = await engagement.receive()
    assert isinstance(try_call, TryCall)
    body = b""
    while isinstance(frame := await engagement.receive(), Data):
        body += frame.data
        if frame.eof:
            return try_call, body
    raise AssertionError("no eof")


def answer(*frames: ResultStart | Data | Finished) -> Play:
    async def play(engagement: ServerEngagement) -> None:
        await read_all(engagement)
        for frame in frames:
            await engagement.send(frame)

    return play


class OneAtATime(PlayedService):
    """A runner with ``slots`` over the real wire; echoes."""

    def __init__(self, slots: int) -> None:
        super().__init__(self._serve)
        self._free = slots

    async def _serve(self, engagement: ServerEngagement) -> None:
        if not self._free:
            await engagement.send(Finished(success=False, error_code=503))
            return
        self._free -= 1
        try:
            _, body = await read_all(engagement)
            await trio.sleep(0.01)
            await engagement.send(ResultStart(200))
            await engagement.send(Data(body))
        finally:
            self._free += 1
        await engagement.send(OK)
