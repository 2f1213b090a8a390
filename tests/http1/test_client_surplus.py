"""Bytes that a function sends after its response are never the answer to another request, as long
as they come before that request: also in the moment before it is written."""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from hostler.abc import Body
from hostler.agent.socket_directory import Channel, FunctionSocket
from hostler.bodies import BytesBody
from hostler.errors import FunctionResponseError
from hostler.http1.client import ClientConnection, StaleConnection
from tests.agent.fakes import StreamBody
from tests.conftest import Logs

from .function import HEAD, Function, call, open_function, response


class RacingChannel(Channel):
    """Has the function send surplus when the connection was chosen already: the last moment."""

    def __init__(self, function: Function) -> None:
        super().__init__(function.socket, function.socket.connect(), 0)
        self._function = function
        self.race = False

    def connection(self, now: float) -> ClientConnection:
        connection = super().connection(now)
        if self.race:
            self.race = False
            self._function.blurt(response(b"surplus"))
        return connection


BODIES: list[Callable[[], Body]] = [
    lambda: BytesBody(b"x"),
    lambda: StreamBody(b"x" * 100_000, b"y"),
]


@pytest.mark.parametrize("body", BODIES, ids=["whole", "streamed"])
async def test_surplus_in_the_moment_before_the_request_is_no_answer(
    tmp_path: Path, body: Callable[[], Body]
) -> None:
    async with open_function(tmp_path) as function:
        channel = RacingChannel(function)
        function.answers = [response(b"first"), response(b"second")]
        assert await call(channel, body()) == b"first"
        channel.race = True
        assert await call(channel, body()) == b"second"
        assert (function.requests, len(function.connections)) == (2, 2)
        channel.close()


@pytest.mark.parametrize("when", ["with the response", "while it idles"])
async def test_a_function_that_has_sent_surplus_gets_a_new_connection_each_time(
    tmp_path: Path, when: str, logs: Logs
) -> None:
    """Its next surplus may come at any time, so no connection of it can be used twice."""
    async with open_function(tmp_path) as function:
        channel = Channel(function.socket, function.socket.connect(), 0)
        late = when == "while it idles"
        function.answers = [response(b"0") + (b"" if late else response(b"surplus"))]
        function.answers += [response(b"%d" % number) for number in (1, 2, 3)]
        assert await call(channel, BytesBody(b"x")) == b"0"
        if late:
            function.blurt(b"surplus")
        for number in (1, 2, 3):
            assert await call(channel, BytesBody(b"x")) == b"%d" % number
        assert len(function.connections) == 4
        channel.close()
    assert len(logs.with_event("function sends bytes after its response")) == 1


async def test_a_well_behaved_function_keeps_its_connection(tmp_path: Path, logs: Logs) -> None:
    async with open_function(tmp_path) as function:
        channel = Channel(function.socket, function.socket.connect(), 0)
        function.answers = [response(b"%d" % number) for number in range(5)]
        for number in range(5):
            assert await call(channel, BytesBody(b"x")) == b"%d" % number
        assert len(function.connections) == 1
        channel.close()
    assert logs.with_event("function sends bytes") == []


async def test_a_function_that_always_speaks_first_fails_the_call(tmp_path: Path) -> None:
    """It is asked on a second connection, and no third one."""
    path = tmp_path / "lsnr.sock"
    sock = trio.socket.socket(trio.socket.AF_UNIX)
    await sock.bind(str(path))
    sock.listen(10)
    spoken: list[socket.socket] = []

    class Talker(FunctionSocket):
        """Its peer has spoken before anybody can write."""

        def connect(self) -> socket.socket:
            plain = super().connect()
            peer: socket.socket = sock._sock.accept()[0]  # type: ignore[attr-defined]
            peer.send(response(b"unasked"))
            spoken.append(peer)
            return plain

    talker = Talker(os.open(path, os.O_PATH))
    channel = Channel(talker, talker.connect(), 0)
    with pytest.raises(FunctionResponseError):
        await call(channel, BytesBody(b"x"))
    assert len(spoken) == 2
    for peer in spoken:
        with pytest.raises(ConnectionResetError):  # and not a byte of the request
            peer.recv(1)
        peer.close()
    channel.close()
    sock.close()


@pytest.mark.parametrize("body", BODIES, ids=["whole", "streamed"])
async def test_a_function_that_is_gone_fails_the_call(
    tmp_path: Path, body: Callable[[], Body]
) -> None:
    """It has closed the kept connection, and accepts no other."""
    async with open_function(tmp_path) as function:
        channel = Channel(function.socket, function.socket.connect(), 0)
        function.answers = [response(b"first")]
        assert await call(channel, body()) == b"first"
        await function.end()
        with pytest.raises(FunctionResponseError):  # not: while it received the request
            await call(channel, body())
        channel.close()


async def _surplus(stream: trio.SocketStream) -> None:
    await stream.send_all(b"x")


async def _close(stream: trio.SocketStream) -> None:
    await stream.aclose()


@pytest.mark.parametrize("what", [_surplus, _close])
async def test_nothing_is_written_to_a_stale_connection(
    tmp_path: Path, what: Callable[[trio.SocketStream], Awaitable[None]]
) -> None:
    here, there = trio.socket.socketpair()
    connection = ClientConnection(here._sock, 1000)  # type: ignore[attr-defined]
    peer = trio.SocketStream(there)
    await what(peer)
    with pytest.raises(StaleConnection):
        connection.begin(HEAD, b"")
    connection.close()
    if what is _surplus:
        with pytest.raises(trio.BrokenResourceError):  # reset, and not a byte before
            await peer.receive_some()
        await peer.aclose()
