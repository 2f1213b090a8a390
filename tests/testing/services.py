"""What the engagement contract tests run: a scripted service, behind memory or a wire."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import trio

from hostler.protocol import (
    ClientEngagement,
    ClientFrame,
    Data,
    LogChannel,
    LogContainer,
    LogLine,
    LogRequest,
    RunnerClient,
    RunnerService,
    RunnerStatus,
    ServerEngagement,
    TryCall,
)
from hostler.testing import MemoryRunnerClient
from hostler.wire import ConnectOptions, GrpcRunnerClient, open_loop, open_server

Engage = Callable[[ServerEngagement], Awaitable[None]]
OpenClient = Callable[[RunnerService], AbstractAsyncContextManager[RunnerClient]]

TRY = TryCall("{}", "ab01", {"k": "v"})
MIB = 2**20


class ScriptedService(RunnerService):
    """A service whose engagements are one function of the test."""

    def __init__(self, engage: Engage | None = None) -> None:
        self._engage = engage
        self.configured: Mapping[str, str] | None = None
        self.trouble: Exception | None = None
        self.logs_cancelled = trio.Event()

    async def engage(self, engagement: ServerEngagement) -> None:
        assert self._engage is not None
        await self._engage(engagement)

    async def status(self, payload: str | None) -> RunnerStatus:
        if self.trouble is not None:
            raise self.trouble
        return RunnerStatus(active=7, details=payload or "none", custom_status={"a": "b"})

    async def configure(self, config: Mapping[str, str]) -> None:
        if self.trouble is not None:
            raise self.trouble
        self.configured = dict(config)

    async def stream_logs(self, channel: LogChannel) -> None:
        try:
            while (message := await channel.receive()) is not None:
                line = LogLine(1, repr(message).encode(), stderr=True)
                await channel.send([LogContainer("a", "f", "c", [LogRequest("r", [line])])])
        except trio.Cancelled:
            self.logs_cancelled.set()
            raise


async def frames_of(engagement: ServerEngagement) -> AsyncIterator[ClientFrame]:
    """Everything up to ``eof``. An LB does not half-close after it."""
    while (frame := await engagement.receive()) is not None:
        yield frame
        if isinstance(frame, Data) and frame.eof:
            return


async def send_for_ever(engagement: ClientEngagement) -> None:
    while True:
        await engagement.send(Data(bytes(1000)))


@asynccontextmanager
async def _open_memory(service: RunnerService) -> AsyncIterator[RunnerClient]:
    client = MemoryRunnerClient(service)
    yield client
    await client.aclose()
    assert client.engagements == 0


@asynccontextmanager
async def _open_wire(service: RunnerService, **sharing: Any) -> AsyncIterator[RunnerClient]:
    async with open_loop() as loop, open_server(service, "127.0.0.1:0", loop=loop) as server:
        client = GrpcRunnerClient(
            server.address, ConnectOptions(connect_timeout=60, **sharing), loop=loop
        )
        yield client
        await client.aclose()


OPENERS: dict[str, OpenClient] = {
    "memory": _open_memory,
    "stream": functools.partial(_open_wire, share_limit=0),
    "shared stream": functools.partial(_open_wire, share_streamed=True),
}
