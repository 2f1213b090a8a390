"""Bodies in pieces: h11 has no part in them where both heads are plain, and where the answer is its
own, it learns what it has to of the request."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from hostler import options
from hostler.abc import Body
from hostler.agent.dispatch import ExecutionScope, FunctionExchange
from hostler.agent.socket_directory import Channel, FunctionSocket
from hostler.bodies import BytesBody
from hostler.calls import build_call
from hostler.errors import FunctionResponseError, FunctionResponseTooBig, FunctionWriteRequest
from hostler.http1.client import ClientConnection
from tests.agent.fakes import BIG, StreamBody
from tests.conftest import Logs

from ..agent.nodes import call_model
from .function import HEAD, call, open_function, response

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"

BODIES: list[Callable[[], Body]] = [
    lambda: BytesBody(BIG),
    lambda: StreamBody(BIG[:7], BIG[7:]),
    lambda: BytesBody(b""),
]
each_body = pytest.mark.parametrize("body", BODIES, ids=["large", "streamed", "none"])


@each_body
async def test_pieces_go_both_ways_without_h11_and_the_connection_goes_on(
    tmp_path: Path, body: Callable[[], Body], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("h11 was asked")

    for method in ("send", "receive_data", "next_event"):
        monkeypatch.setattr(f"h11.Connection.{method}", refuse)
    async with open_function(tmp_path) as function:
        channel = Channel(function.socket, function.socket.connect(), 0)
        function.answers = [response(BIG), response(b""), response(BIG[:500_000])]
        assert await call(channel, body()) == BIG
        assert await call(channel, body()) == b""
        assert await call(channel, body()) == BIG[:500_000]
        assert (function.requests, len(function.connections)) == (3, 1)
        channel.close()


@each_body
async def test_an_answer_that_is_h11s_keeps_the_connection_too(
    tmp_path: Path, body: Callable[[], Body]
) -> None:
    async with open_function(tmp_path) as function:
        channel = Channel(function.socket, function.socket.connect(), 0)
        function.answers = [CHUNKED + b"2\r\nhi\r\n" + LAST, response(BIG), CHUNKED + LAST]
        assert await call(channel, body()) == b"hi"
        assert await call(channel, body()) == BIG
        assert await call(channel, body()) == b""
        assert (function.requests, len(function.connections)) == (3, 1)
        channel.close()


@each_body
async def test_what_comes_behind_a_large_answer_is_surplus(
    tmp_path: Path, body: Callable[[], Body]
) -> None:
    async with open_function(tmp_path) as function:
        channel = Channel(function.socket, function.socket.connect(), 0)
        function.answers = [response(BIG) + response(b"surplus"), response(b"second")]
        assert await call(channel, body()) == BIG
        assert await call(channel, body()) == b"second"
        assert (function.requests, len(function.connections)) == (2, 2)
        channel.close()


async def test_a_function_that_closes_within_a_small_request(tmp_path: Path) -> None:
    """As with a body that streams: its head alone may be more than the socket takes at once."""
    sock = trio.socket.socket(trio.socket.AF_UNIX)
    await sock.bind(str(tmp_path / "lsnr.sock"))
    sock.listen(10)
    channel_socket = FunctionSocket(os.open(tmp_path / "lsnr.sock", os.O_PATH))
    channel = Channel(channel_socket, channel_socket.connect(), 0)
    model = call_model(headers={"X-Large": ["x" * 2**21]})
    large = build_call([options.from_model(model, BytesBody(b"x"))])

    async def close() -> None:
        peer, _ = await sock.accept()
        await trio.testing.wait_all_tasks_blocked()  # the rest of the request is being written
        peer.close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(close)
        with pytest.raises(FunctionWriteRequest):
            await FunctionExchange(channel, large, ExecutionScope(), max_body=0).run(
                trio.current_time()
            )
    channel.close()
    sock.close()


async def test_an_answer_that_ends_too_early_is_an_error(tmp_path: Path) -> None:
    async with open_function(tmp_path) as function:
        channel = Channel(function.socket, function.socket.connect(), 0)
        function.answers = [response(BIG)[:-1]]

        async def end_then() -> None:
            while not function.requests:  # noqa: ASYNC110  (another program's side of a socket)
                await trio.sleep(0.001)
            await function.end()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(end_then)
            with pytest.raises(FunctionResponseError):
                await call(channel, StreamBody(b"x" * 100_000))
        channel.close()


@pytest.mark.parametrize("plain", [True, False], ids=["plain", "chunked"])
async def test_an_answer_may_begin_within_the_request(plain: bool) -> None:
    here, there = trio.socket.socketpair()
    connection = ClientConnection(here._sock, 1000)  # type: ignore[attr-defined]
    peer = trio.SocketStream(there)
    for number in range(2):
        assert connection.begin(HEAD) == b""
        await connection.send_piece(b"one")
        begin = response(b"answer")[:-3] if plain else CHUNKED + b"3\r\nans\r\n"
        await peer.send_all(begin)
        head = await connection.receive_head()
        assert head.length == (6 if plain else None)
        assert await connection.receive_body() == b"ans"
        if number:  # not read to its end, or not sent
            break
        await connection.send_piece(b"two")
        await connection.send_end()
        await peer.send_all(b"wer" if plain else b"3\r\nwer\r\n" + LAST)
        assert await connection.receive_body() == b"wer"
        assert await connection.receive_body() == b""
        assert connection.finish(trio.current_time())
        request = b""
        while not request.endswith(LAST):
            request += await peer.receive_some()
        assert request.endswith(b"\r\n\r\n3\r\none\r\n3\r\ntwo\r\n" + LAST)
    assert not connection.finish(trio.current_time())
    connection.close()
    await peer.aclose()


async def test_what_is_left_of_an_answer_that_is_too_big_is_not_the_next_one(
    tmp_path: Path, logs: Logs
) -> None:
    async with open_function(tmp_path) as function:
        channel = Channel(function.socket, function.socket.connect(), 0)
        function.answers = [response(BIG)[:1000], response(b"second")]
        big = build_call([options.from_model(call_model())])
        exchange = FunctionExchange(channel, big, ExecutionScope(), max_body=900)
        with pytest.raises(FunctionResponseTooBig):
            await exchange.run(trio.current_time())
        assert exchange.container_ok
        assert await call(channel, BytesBody(b"")) == b"second"
        assert len(function.connections) == 2
        channel.close()


async def test_a_piece_is_whole_wherever_the_socket_cuts_it() -> None:
    here, there = trio.socket.socketpair()
    connection = ClientConnection(here._sock, 1000)  # type: ignore[attr-defined]
    peer = trio.SocketStream(there)
    assert connection.begin(HEAD) == b""
    await peer.receive_some()
    plain = connection._plain

    class Stingy:
        """Takes ``size`` bytes at once."""

        size = 0

        def sendmsg(self, parts: list[bytes]) -> int:
            if not self.size:
                raise BlockingIOError
            return plain.send(b"".join(parts)[: self.size])

    connection._plain = stingy = Stingy()  # type: ignore[assignment]
    whole = b"5\r\npiece\r\n"
    for stingy.size in range(len(whole) + 1):
        await connection.send_piece(b"piece")
        assert await peer.receive_some() == whole
    connection.close()
    await peer.aclose()
