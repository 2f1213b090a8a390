"""A peer is gone between two writes: the first one of them still succeeds."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme

from hostler import wire
from hostler.protocol import Data, EngagementFailed, ResultStart, ServerEngagement
from hostler.wire.loop import open_loop, run_asyncio

from .certificates import issued
from .services import SUCCESS, TRY, Service, call, collect, open_pair


class Scripted:
    """A socket that takes nothing at first, then all at once, and whose peer is gone after that."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.asked = 0

    def send(self, data: Any) -> int:
        self.asked += 1
        if self.asked == 1:
            raise BlockingIOError
        if self.asked == 2:
            return len(data)
        raise BrokenPipeError

    def sendmsg(self, buffers: Any) -> int:
        """As Python 3.12 and later write."""
        return self.send(b"".join(buffers))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


def plain(transport: Any) -> Any:
    return transport


def beneath_tls(transport: Any) -> Any:
    return transport._ssl_protocol._transport


class Faulty(asyncio.Protocol):
    def connection_lost(self, error: Exception | None) -> None:
        nothing: Any = None
        nothing.clear()


async def test_no_other_error_at_the_end_of_a_connection_is_passed_over() -> None:
    here, there = socket.socketpair()

    async def lose_a_connection() -> None:
        async with open_loop() as loop:
            connect = partial(loop.create_connection, Faulty, sock=here)
            transport, _ = await run_asyncio(loop, connect)
            transport.abort()
            with trio.fail_after(60):
                await trio.sleep_forever()

    with there, pytest.raises(ExceptionGroup) as caught:
        await lose_a_connection()
    _, rest = caught.value.split(AttributeError)
    assert rest is None


@pytest.mark.parametrize("raw", [plain, beneath_tls])
async def test_a_write_that_fails_while_asyncio_writes_ends_its_connection_only(
    tmp_path: Path, raw: Callable[[Any], Any]
) -> None:
    go = trio.Event()

    async def engage(engagement: ServerEngagement) -> None:
        await engagement.receive()
        await engagement.send(ResultStart(200))
        await go.wait()
        while True:
            await engagement.send(Data(b"x" * 500_000))

    service = Service(engage)
    server: wire.ServerOptions | None = None
    client: dict[str, Any] = {}
    if raw is beneath_tls:
        ca = trustme.CA()
        runner, lb = issued(tmp_path, "runner.test", ca), issued(tmp_path, "lb.test", ca)
        server = wire.ServerOptions(ssl_context=wire.server_tls(runner))
        client = {"ssl_context": wire.client_tls(lb), "server_name": "runner.test"}
    async with open_pair(service, server_options=server, **client) as pair:
        async with pair.client.engage(TRY) as engagement:
            assert await engagement.receive() == ResultStart(200)
            (connection,) = pair.server.connections
            transport = raw(connection.connection.transport)
            scripted = transport._sock = Scripted(transport._sock)
            scripted.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
            go.set()
            with pytest.raises(EngagementFailed):
                await collect(engagement)
        await service.wait_idle()
        assert scripted.asked == 3

        async def succeed(engagement: ServerEngagement) -> None:
            await engagement.receive()
            await engagement.send(SUCCESS)

        service.on_engage = succeed
        assert await call(pair.client) == [SUCCESS]
