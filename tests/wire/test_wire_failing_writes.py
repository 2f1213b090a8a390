"""A peer is gone between two writes: the first one of them still succeeds."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme

from hostler import wire
from hostler.engagement import EngagementFailed, ServerEngagement
from hostler.frames import Data, ResultStart

from .services import SUCCESS, TRY, Service, call, collect, open_pair
from .test_wire_tls import _pki


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
    options: list[dict[str, Any]] = [{}, {}]
    if raw is beneath_tls:
        ca = trustme.CA()
        runner, lb = _pki(tmp_path, "runner.test", ca), _pki(tmp_path, "lb.test", ca)
        options = [
            {"ssl_context": wire.server_tls(runner)},
            {"ssl_context": wire.client_tls(lb), "server_name": "runner.test"},
        ]
    async with open_pair(service, server_options=options[0], **options[1]) as pair:
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
