"""Bytes that a function sends after its response are never the answer to another request, as long
as they come before that request: also in the moment before it is written."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio

from hostler import options
from hostler.abc import Body
from hostler.agent.dispatch import CallLimit, Exchange
from hostler.agent.socket_directory import Channel, FunctionSocket
from hostler.bodies import BytesBody
from hostler.call import build_call
from hostler.errors import FunctionResponseError
from hostler.http1.client import Connection, RequestHead, Stale
from tests.conftest import Logs

from ..agent.nodes import Recorder, call_model
from ..agent.test_agent_contract import StreamBody

HEAD = RequestHead(call_model(), 1.0)


def response(text: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text)


class Function:
    """A function whose every byte is the test's: it counts the connections, and answers each
    request with what the test says."""

    def __init__(self, listener: trio.SocketListener, path: Path) -> None:
        self.answers: list[bytes] = []
        self.connections: list[trio.SocketStream] = []
        self.requests = 0
        self._listener = listener
        self._life, self._ended = trio.CancelScope(), trio.Event()
        self.socket = FunctionSocket(os.open(path, os.O_PATH))

    def blurt(self, data: bytes) -> None:
        """Send unasked. Not through Trio: no other task runs meanwhile."""
        self.connections[-1].socket._sock.send(data)  # type: ignore[attr-defined]

    async def end(self) -> None:
        """As if its process had ended."""
        self._life.cancel()
        await self._ended.wait()

    async def serve(self) -> None:
        with self._life:
            await trio.serve_listeners(self._serve, [self._listener])
        self._ended.set()

    async def _serve(self, stream: trio.SocketStream) -> None:
        self.connections.append(stream)
        with suppress(
            trio.BrokenResourceError, trio.ClosedResourceError
        ):  # the agent closes without reading surplus
            await self._answer(stream)

    async def _answer(self, stream: trio.SocketStream) -> None:
        received = b""
        async for data in stream:
            received += data
            # Requests with a body are chunked, those without have no body at all.
            end = b"0\r\n\r\n" if b"chunked" in received else b"\r\n\r\n"
            if received.endswith(end):
                received = b""
                self.requests += 1
                await stream.send_all(self.answers.pop(0))


@asynccontextmanager
async def open_function(folder: Path) -> AsyncIterator[Function]:
    path = folder / "lsnr.sock"
    sock = trio.socket.socket(trio.socket.AF_UNIX)
    await sock.bind(str(path))
    sock.listen(10)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            function = Function(trio.SocketListener(sock), path)
            nursery.start_soon(function.serve)
            yield function
            nursery.cancel_scope.cancel()
    function.socket.close()


class RacingChannel(Channel):
    """Has the function send surplus when the connection was chosen already: the last moment."""

    def __init__(self, function: Function) -> None:
        super().__init__(function.socket, function.socket.connect(), 0)
        self._function = function
        self.race = False

    def connection(self, now: float) -> Connection:
        connection = super().connection(now)
        if self.race:
            self.race = False
            self._function.blurt(response(b"surplus"))
        return connection


async def call(channel: Channel, body: Body) -> bytes:
    recorder = Recorder()
    await Exchange(
        channel,
        build_call([options.from_model(call_model(), body), options.with_writer(recorder)]),
        CallLimit(),
        max_body=0,
    ).run(trio.current_time())
    return recorder.body


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
    connection = Connection(here._sock, 1000)  # type: ignore[attr-defined]
    peer = trio.SocketStream(there)
    await what(peer)
    with pytest.raises(Stale):
        connection.begin(HEAD, b"")
    connection.close()
    if what is _surplus:
        with pytest.raises(trio.BrokenResourceError):  # reset, and not a byte before
            await peer.receive_some()
        await peer.aclose()
