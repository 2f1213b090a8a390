"""A service whose behaviour a test gives as functions, and a client and server around it."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import attrs
import msgspec
import pytest
import trio

from hostler import wire
from hostler.protocol import (
    ClientEngagement,
    Data,
    Finished,
    LogChannel,
    ResultStart,
    RunnerFrame,
    RunnerService,
    RunnerStatus,
    ServerEngagement,
    TryCall,
)
from hostler.wire.mux.envelope import Envelope, encode

sharing: dict[str, Any] = {}
"""How calls of `open_pair` share streams unless a test says it; see the fixture ``carrier``."""

T = TypeVar("T")

Engage = Callable[[ServerEngagement], Awaitable[None]]

TRY = TryCall(models_call_json='{"id":"a"}', slot_hash_id="00ff", extensions={"k": "v"})
EMPTY_BODY = Data(b"", eof=True)
SUCCESS = Finished(success=True, details="a")


def encoded(envelope: Envelope) -> bytes:
    """``envelope`` as a part of a batch."""
    return encode(*msgspec.structs.astuple(envelope))


async def read_call(engagement: ServerEngagement) -> tuple[TryCall, bytes]:
    """The call and its whole body."""
    call = await engagement.receive()
    assert isinstance(call, TryCall)
    body = bytearray()
    while True:
        frame = await engagement.receive()
        assert isinstance(frame, Data)
        body += frame.data
        if frame.eof:
            return call, bytes(body)


async def echo(engagement: ServerEngagement) -> None:
    """Answers with the body it was sent."""
    call, body = await read_call(engagement)
    headers = [("X-Call", call.models_call_json), ("X-Request", engagement.request_id)]
    await engagement.send(ResultStart(200, headers))
    await engagement.send(Data(body))
    await engagement.send(SUCCESS)


class Service(RunnerService):
    """Counts what is running, so tests can see when it ended."""

    def __init__(self, engage: Engage = echo) -> None:
        self.on_engage = engage
        self.running = 0
        self.idle = trio.Event()
        self.started = 0
        self.busy = trio.Event()
        self.config: dict[str, str] = {}
        self.on_status: Callable[[str | None], RunnerStatus] = lambda payload: RunnerStatus(
            active=self.running, details=payload or "", custom_status={"a": "b"}
        )
        self.on_logs: Callable[[LogChannel], Awaitable[None]] | None = None

    async def engage(self, engagement: ServerEngagement) -> None:
        self.running += 1
        self.started += 1
        self.busy.set()
        try:
            await self.on_engage(engagement)
        finally:
            self.running -= 1
            if not self.running:
                self.idle.set()
                self.idle = trio.Event()

    async def wait_idle(self) -> None:
        while self.running:
            await self.idle.wait()

    async def status(self, payload: str | None) -> RunnerStatus:
        await trio.lowlevel.checkpoint()
        return self.on_status(payload)

    async def configure(self, config: Mapping[str, str]) -> None:
        await trio.lowlevel.checkpoint()
        self.config = dict(config)

    async def stream_logs(self, channel: LogChannel) -> None:
        assert self.on_logs is not None
        await self.on_logs(channel)


@attrs.define
class Pair:
    loop: wire.Loop
    service: Service
    server: wire.GrpcServer
    client: wire.GrpcRunnerClient


@asynccontextmanager
async def open_pair(
    service: Service | Engage = echo,
    *,
    server_options: wire.ServerOptions | None = None,
    **client_options: Any,
) -> AsyncIterator[Pair]:
    """A server and its client on loopback. Fails if anything hangs for a minute."""
    if not isinstance(service, Service):
        service = Service(service)
    with trio.fail_after(60):
        async with (
            wire.open_loop() as loop,
            wire.open_server(service, "127.0.0.1:0", server_options, loop=loop) as server,
        ):
            patience = {"connect_timeout": 60, "handshake_timeout": 60}
            options = wire.ConnectOptions(**{**patience, **sharing, **client_options})
            client = wire.GrpcRunnerClient(server.address, options, loop=loop)
            try:
                yield Pair(loop, service, server, client)
            finally:
                with trio.CancelScope(shield=True):
                    await client.aclose()


async def collect(engagement: ClientEngagement) -> list[RunnerFrame]:
    """All frames up to the regular end."""
    frames: list[RunnerFrame] = []
    while (frame := await engagement.receive()) is not None:
        frames.append(frame)
    return frames


async def call(
    client: wire.GrpcRunnerClient, body: bytes = b"", *, deadline: float = math.inf
) -> list[RunnerFrame]:
    """One call from begin to end."""
    first = Data(body, eof=True)
    async with client.engage(TRY, first=first, deadline=deadline) as engagement:
        return await collect(engagement)


def body_of(frames: list[RunnerFrame]) -> bytes:
    return b"".join(frame.data for frame in frames if isinstance(frame, Data))


class Gate:
    """A service that answers when it is told to."""

    def __init__(self) -> None:
        self.open = trio.Event()

    async def __call__(self, engagement: ServerEngagement) -> None:
        await read_call(engagement)
        await self.open.wait()
        await engagement.send(SUCCESS)


def paths(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The methods of the streams that the client opens from now on."""
    opened: list[str] = []
    make_headers = pair.client._request_headers

    def headers(method: str, request_id: str = "") -> list[tuple[str, str]]:
        opened.append(method)
        return make_headers(method, request_id)

    monkeypatch.setattr(pair.client, "_request_headers", headers)
    return opened


async def hear(watch: AsyncGenerator[T, None], told: list[T]) -> None:
    """Keep in ``told`` what a watch tells until it ends or fails."""
    async for news in watch:
        told.append(news)  # noqa: PERF401  (what came before an error is kept)
