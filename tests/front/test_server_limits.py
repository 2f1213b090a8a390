"""The HTTP/1.1 server and requests that are too large, too slow or no HTTP."""

from __future__ import annotations

import contextlib
import os
import random
import resource

import pytest
import trio
import trio.testing

from hostler.config import NodeConfig
from hostler.http1 import server
from tests.conftest import Logs

from ._agent import ScriptedAgent, echo, hang
from ._sockets import CHUNKED, chunk, open_front, until


async def test_declared_size_over_the_limit_is_413_though_the_client_keeps_sending() -> None:
    async with open_front(config=NodeConfig(max_request_size=1000)) as front:
        client = await front.connect()
        await client.send(b"POST /invoke/fn1 HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
        await client.send(b"x" * 100_000)
        answer = await client.answer()
        assert answer.status == 413
        assert b"100000 \\u003e max 1000" in answer.body
        assert await client.closed_by_server()


@pytest.mark.parametrize("chunked", [False, True])
async def test_who_sends_much_before_it_reads_gets_to_read_its_refusal(chunked: bool) -> None:
    """More than the buffers between the two hold."""
    size = 20_000_000
    async with open_front(config=NodeConfig(max_request_size=1000)) as front:
        client = await front.connect()
        if chunked:
            await client.send(CHUNKED + chunk(bytes(size)))
        else:
            head = b"POST /invoke/fn1 HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
            await client.send(head % size + bytes(size))
        answer = await client.answer()
        assert (answer.status, answer.headers["connection"]) == (413, "close")
        assert await client.closed_by_server()


@pytest.mark.parametrize("end", ["bytes", "quiet", "total", "drain"])
async def test_a_refused_client_is_listened_to_within_limits(
    end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if end == "bytes":
        monkeypatch.setattr(server, "LINGER_BYTES", 100_000)
    elif end == "quiet":
        monkeypatch.setattr(server, "LINGER_SECONDS", 0.05)
    elif end == "total":
        monkeypatch.setattr(server, "LINGER_TOTAL_SECONDS", 0.05)
    else:
        monkeypatch.setattr(server, "LINGER_DRAIN_SECONDS", 0.05)
    async with open_front(config=NodeConfig(max_request_size=1000), grace=60) as front:
        client = await front.connect()
        await client.send(
            b"POST /invoke/fn1 HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n"
        )
        assert (await client.answer()).status == 413
        if end == "drain":
            front.shutdown.set()
            await front.done.wait()
        with contextlib.suppress(trio.BrokenResourceError):
            while end in ("bytes", "total"):
                await client.send(bytes(10_000))
        await front.wait_connections(0)


async def test_chunked_size_over_the_limit_is_413() -> None:
    async with open_front(config=NodeConfig(max_request_size=1000)) as front:
        client = await front.connect()
        await client.send(CHUNKED + chunk(b"x" * 600) + chunk(b"x" * 600))
        assert (await client.answer()).status == 413


async def test_connection_goes_on_after_413_of_a_complete_request() -> None:
    async with open_front(config=NodeConfig(max_request_size=2)) as front:
        client = await front.connect()
        assert (await client.post(b"xxx")).status == 413
        assert (await client.post(b"x")).status == 200


HEAD = b"GET /version HTTP/1.1\r\nHost: x\r\nX-Long: "
END = b"\r\n\r\n"


async def test_a_head_of_exactly_the_limit_is_taken() -> None:
    async with open_front(config=NodeConfig(max_request_header_size=1000)) as front:
        client = await front.connect()
        await client.send(HEAD + b"x" * (1000 - len(HEAD + END)) + END)
        assert (await client.answer()).status == 200


@pytest.mark.parametrize(
    "head",
    [HEAD + b"x" * 1000, HEAD + b"x" * (1001 - len(HEAD + END)) + END],
    ids=["endless", "whole at once, one byte more"],
)
async def test_head_over_the_limit_is_431(head: bytes) -> None:
    async with open_front(config=NodeConfig(max_request_header_size=1000)) as front:
        client = await front.connect()
        await client.send(head)
        answer = await client.answer()
        assert answer.status == 431
        assert answer.headers["content-type"] == "application/json; charset=utf-8"
        assert "Request header too large for this server, max 1000 bytes" in answer.body.decode()
        assert await client.closed_by_server()


async def test_an_expectation_that_is_not_known_is_417_and_the_body_is_not_wanted() -> None:
    async with open_front() as front:
        for expected, status in ((b"100-Continue", 200), (b"", 200), (b"202-accepted", 417)):
            client = await front.connect()
            await client.send(
                b"POST /invoke/fn1 HTTP/1.1\r\nHost: h\r\nExpect: " + expected + b"\r\n"
                b"Content-Length: 2\r\n\r\nhi"
            )
            answer = await client.answer()
            assert answer.status == status
        assert "the only expectation that this server knows is 100-continue" in answer.body.decode()
        assert await client.closed_by_server()
        assert len(front.agent.submitted) == 2


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\nHost: h\r\nb\xff ad\r\n\r\n", b"it's \"no\" 'request'\r\n\r\n"]
)
async def test_what_a_client_sent_is_not_shown_as_python_shows_it(data: bytes) -> None:
    async with open_front() as front:
        client = await front.connect()
        await client.send(data)
        answer = await client.answer()
        assert answer.status == 400
        assert "illegal" in answer.body.decode()
        for part in ("bytearray", "b'", 'b\\"', "\\x"):
            assert part not in answer.body.decode()


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01\x02\x00 this is TLS\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST /invoke/fn1 HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /invoke/fn1 HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
        b"POST /invoke/fn1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
    ],
)
async def test_what_is_no_http_request_is_refused(request_bytes: bytes) -> None:
    async with open_front() as front:
        client = await front.connect()
        await client.send(request_bytes)
        answer = await client.answer()
        assert 400 <= answer.status <= 505
        other = await front.connect()
        assert (await other.post(b"x")).status == 200


async def test_bad_chunk_ends_the_call_and_is_a_400() -> None:
    agent = ScriptedAgent(hang)
    async with open_front(agent) as front:
        client = await front.connect()
        await client.send(CHUNKED + chunk(b"x"))
        await agent.entered.wait()
        await client.send(b"nonsense\r\n")
        assert (await client.answer()).status == 400
    assert agent.record == ["cancelled"]


async def test_request_may_come_byte_by_byte() -> None:
    async with open_front() as front:
        client = await front.connect()
        for byte in CHUNKED + chunk(b"one") + chunk(b"two") + b"0\r\n\r\n":
            await client.send(bytes([byte]))
            await trio.testing.wait_all_tasks_blocked()
        assert (await client.answer()).body == b"onetwo"


async def test_mutilated_requests_hurt_nobody_but_themselves() -> None:
    whole = CHUNKED + chunk(b"one") + chunk(b"two") + b"0\r\n\r\n"
    rng = random.Random(7)
    async with open_front() as front:
        good = await front.connect()
        for _ in range(300):
            data = bytearray(whole)
            for _ in range(rng.randint(1, 3)):
                at = rng.randrange(len(data))
                data[at : at + rng.randint(0, 2)] = rng.randbytes(rng.randint(0, 2))
            client = await front.connect()
            await client.send(bytes(data))
            await client.stream.send_eof()
            with contextlib.suppress(trio.BrokenResourceError):
                await client.read_all()
            await client.stream.aclose()
        assert (await good.post(b"x")).body == b"x"
        await front.wait_connections(1)


async def test_slow_head_is_408() -> None:
    async with open_front(config=NodeConfig(request_header_read_timeout=0.1)) as front:
        client = front.connect_with(b"POST / HTTP/1.1\r\n")
        assert (await client.answer()).status == 408
        assert await client.closed_by_server()


async def test_idle_connection_is_closed() -> None:
    async with open_front(config=NodeConfig(http_idle_timeout=0.1)) as front:
        fresh, used = (
            await front.connect(),
            front.connect_with(b"POST /invoke/fn1 HTTP/1.1\r\nHost: x\r\n\r\n"),
        )
        assert (await used.answer()).status == 200
        assert await used.closed_by_server()
        assert await fresh.closed_by_server()


@pytest.mark.parametrize("served", [False, True])
async def test_a_request_that_came_while_the_process_stood_still_is_served(
    mock_clock: trio.testing.MockClock, served: bool
) -> None:
    """Who learns of a request and of the end of its time at once takes the request."""
    mock_clock.rate = 0.1  # slow, so that nobody is late before it jumps
    config = NodeConfig(http_idle_timeout=20, request_header_read_timeout=20)
    async with open_front(config=config) as front:
        clients = [await front.connect() for _ in range(20)]
        await front.wait_connections(len(clients))
        if served:
            for client in clients:
                await client.post()
        await until(lambda: front.server.statistics().idle == len(clients))
        for client in clients:
            os.write(client.stream.socket.fileno(), b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n")
        mock_clock.jump(30)
        for client in clients:
            assert (await client.answer()).status == 200


async def test_connections_without_a_request_make_room_for_others(
    monkeypatch: pytest.MonkeyPatch, logs: Logs
) -> None:
    """One client has as many as the process may have. Those go first that never had a request."""
    agent = ScriptedAgent()
    async with open_front(agent) as front:
        used = await front.connect()
        assert (await used.post(b"x")).body == b"x"
        agent.handler = hang
        busy = front.connect_with(CHUNKED + chunk(b"x"))
        await until(lambda: agent.running == 1)
        agent.handler = echo
        limit = (busy.stream.socket.fileno() + 20) * 4 // 3
        monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
        silent = [await front.connect() for _ in range(30)]
        assert await silent[0].closed_by_server()
        other = front.connect_with(b"POST /invoke/fn1 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await other.answer()).status == 200
        assert (await used.post(b"y")).body == b"y"
        assert agent.running == 1
        assert front.server.statistics().connections < len(silent)
    assert logs.with_event("no room for another connection")
