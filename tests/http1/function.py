"""A function whose every byte is the test's, and calls of it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import trio

from hostler import options
from hostler.abc import Body
from hostler.agent.dispatch import ExecutionScope, FunctionExchange
from hostler.agent.socket_directory import Channel, FunctionSocket
from hostler.calls import build_call
from hostler.http1.client import FunctionRequestHead
from tests.agent.nodes import Recorder, call_model

HEAD = FunctionRequestHead(call_model(), 1.0)


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


async def call(channel: Channel, body: Body) -> bytes:
    recorder = Recorder()
    await FunctionExchange(
        channel,
        build_call([options.from_model(call_model(), body), options.with_writer(recorder)]),
        ExecutionScope(),
        max_body=0,
    ).run(trio.current_time())
    return recorder.body
