"""Bodies that do not come, or go, in one piece, of requests with a plain head: h11 has no part in
them, unless the response needs it."""

from __future__ import annotations

from typing import Any

import h11
import pytest
import trio

from tests.conftest import Logs

from ..front._sockets import open_front

SIZE = 300_000
BODY = bytes(range(250)) * (SIZE // 250)
HEAD = b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"


async def echo(scope: Any, receive: Any, send: Any, *, length: int = SIZE) -> None:
    """Answers in the pieces that have come, when all have; ``length`` is announced."""
    messages = [await receive()]
    while messages[-1]["more_body"]:
        messages.append(await receive())
    headers = [(b"content-length", b"%d" % length)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for message in messages:
        await send({**message, "type": "http.response.body"})


async def unannounced(scope: Any, receive: Any, send: Any) -> None:
    """Passes on what comes, as it comes."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    more = True
    while more:
        message = await receive()
        more = message["more_body"]
        await send({**message, "type": "http.response.body"})


@pytest.fixture
def without_h11(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("h11 was asked")

    monkeypatch.setattr("hostler.http1.server.h11.Connection", refuse)


@pytest.mark.usefixtures("without_h11")
async def test_pieces_go_both_ways_without_h11_and_the_connection_goes_on() -> None:
    async with open_front(app=echo) as front:
        stream = await trio.open_tcp_stream("127.0.0.1", front.port)
        async with stream:
            for _ in range(2):
                await stream.send_all(HEAD % SIZE + BODY[:10])
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(stream.send_all, BODY[10:])
                    received = b""
                    while not received.endswith(BODY):
                        received += await stream.receive_some()
                head, _, body = received.partition(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200 OK\r\ncontent-length: 300000\r\ndate: ")
                assert body == BODY


async def test_what_follows_the_body_is_the_next_request() -> None:
    async with open_front(app=echo) as front:
        client = await front.connect()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, (HEAD % SIZE + BODY) * 3)
            for _ in range(3):
                answer = await client.answer()
                assert (answer.status, answer.body) == (200, BODY)


async def test_a_response_that_needs_h11_may_begin_within_the_body() -> None:
    async with open_front(app=unannounced) as front:
        client = await front.connect()
        for _ in range(2):
            await client.send(HEAD % 6 + b"one")
            assert isinstance(await client.event(), h11.Response)
            first = await client.event()
            assert isinstance(first, h11.Data)
            assert bytes(first.data) == b"one"
            await client.send(b"two")
            second = await client.event()
            assert isinstance(second, h11.Data)
            assert bytes(second.data) == b"two"
            assert isinstance(await client.event(), h11.EndOfMessage)
            # It told while the body was not here that the connection ends: as with any body.
            client = await front.connect()


@pytest.mark.parametrize("length", [SIZE - 1, SIZE + 1])
async def test_a_response_that_is_not_as_long_as_it_says_is_broken_off(
    length: int, logs: Logs
) -> None:
    async def wrong(scope: Any, receive: Any, send: Any) -> None:
        await echo(scope, receive, send, length=length)

    async with open_front(app=wrong) as front:
        client = await front.connect()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, HEAD % SIZE + BODY)
            with pytest.raises(h11.RemoteProtocolError):
                await client.answer()
        await front.wait_connections(0)
    logs.expect_error("the application failed")


async def test_an_answer_before_the_body_is_here_ends_the_connection() -> None:
    async def at_once(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"no", "more_body": False})

    async with open_front(app=at_once) as front:
        client = await front.connect()
        await client.send(HEAD % SIZE + BODY[:1000])
        answer = await client.answer()
        assert (answer.status, answer.body) == (200, b"no")
        assert answer.headers["connection"] == "close"
        await trio.aclose_forcefully(client.stream)
        await front.wait_connections(0)
