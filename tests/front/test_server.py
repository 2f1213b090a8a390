"""The HTTP/1.1 server with the front end on real sockets."""

from __future__ import annotations

import contextlib
import errno
import random
import socket
from typing import Any

import h11
import pytest
import trio
import trio.testing

from hostler.call import PendingCall
from hostler.config import NodeConfig
from hostler.errors import ConfigError, FunctionResponseTooBig
from hostler.front import open_listeners, parse_bind, serve_http
from tests.conftest import Logs

from ._agent import ScriptedAgent, echo
from ._sockets import open_front

CHUNKED = b"POST /invoke/fn1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


async def hang(call: PendingCall) -> None:
    await trio.sleep_forever()


# --- exchanges -------------------------------------------------------------------------------


async def test_many_requests_on_one_connection() -> None:
    async with open_front() as front:
        client = await front.connect()
        for number in range(20):
            body = b"%d" % number
            answer = await client.post(body)
            assert (answer.status, answer.body) == (200, body)
            assert "date" in answer.headers
        assert front.server.statistics().connections == 1


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with open_front() as front:
        client = await front.connect()
        request = b"POST /invoke/fn1 HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n%d"
        await client.send(b"".join(request % number for number in range(5)))
        assert [(await client.answer()).body for _ in range(5)] == [b"%d" % n for n in range(5)]


async def test_large_bodies_both_ways() -> None:
    async with open_front() as front:
        client = await front.connect()
        body = bytes(range(256)) * 20_000
        head = b"POST /invoke/fn1 HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, head % len(body) + body)
            assert (await client.answer()).body == body


async def test_response_streams_while_the_request_does() -> None:
    async with open_front() as front:
        client = await front.connect()
        await client.send(CHUNKED + chunk(b"one"))
        assert isinstance(await client.event(), h11.Response)
        first = await client.event()
        assert isinstance(first, h11.Data)
        assert bytes(first.data) == b"one"
        await client.send(chunk(b"two"))
        second = await client.event()
        assert isinstance(second, h11.Data)
        assert bytes(second.data) == b"two"
        await client.send(b"0\r\n\r\n")
        assert isinstance(await client.event(), h11.EndOfMessage)


async def test_expect_continue_is_answered_when_the_body_is_wanted() -> None:
    async with open_front() as front:
        client = await front.connect()
        await client.send(
            b"POST /invoke/fn1 HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
            b"Expect: 100-continue\r\n\r\n"
        )
        event = await client.event()
        assert isinstance(event, h11.InformationalResponse)
        assert event.status_code == 100
        await client.send(b"ok")
        assert (await client.answer()).body == b"ok"


async def test_expect_continue_is_refused_without_the_body() -> None:
    async with open_front(config=NodeConfig(max_request_size=10)) as front:
        client = await front.connect()
        await client.send(
            b"POST /invoke/fn1 HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n"
            b"Expect: 100-continue\r\n\r\n"
        )
        answer = await client.answer()
        assert answer.status == 413
        assert answer.headers["connection"] == "close"


async def test_http10_client_gets_the_connection_closed() -> None:
    async with open_front() as front:
        client = await front.connect()
        await client.send(b"POST /invoke/fn1 HTTP/1.0\r\nContent-Length: 2\r\n\r\nok")
        received = await client.read_all()
        assert received.startswith(b"HTTP/1.1 200")
        assert received.endswith(b"\r\n\r\nok")
        assert b"chunked" not in received


async def test_head_request_has_no_body() -> None:
    async with open_front() as front:
        client = await front.connect()
        await client.send(b"HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        received = await client.read_all()
        assert received.startswith(b"HTTP/1.1 405")
        assert received.endswith(b"\r\n\r\n")


async def test_absolute_form_of_a_proxy() -> None:
    async with open_front() as front:
        client = await front.connect()
        await client.send(
            b"POST http://lb.example/invoke/fn1?a=1 HTTP/1.1\r\nHost: lb.example\r\n"
            b"Content-Length: 0\r\n\r\n"
        )
        assert (await client.answer()).status == 200
        assert front.agent.calls[0].model.url == "http://lb.example/invoke/fn1?a=1"


# --- clients that leave ----------------------------------------------------------------------


async def test_disconnect_during_a_long_call_cancels_it_at_once(logs: Logs) -> None:
    agent = ScriptedAgent(hang)
    async with open_front(agent) as front:
        client = await front.connect()
        await client.send(b"POST /invoke/fn1 HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")
        await agent.entered.wait()
        started = trio.current_time()
        await client.stream.aclose()
        await agent.left.wait()
        assert trio.current_time() - started < 0.5
        assert agent.record == ["cancelled"]
        await front.wait_connections(0)
    assert logs.with_event("client cancelled")[0]["status"] == 444


async def test_disconnect_is_seen_behind_a_pipelined_request() -> None:
    agent = ScriptedAgent(hang)
    async with open_front(agent) as front:
        client = await front.connect()
        request = b"POST /invoke/fn1 HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx"
        await client.send(request + request)
        await agent.entered.wait()
        await client.stream.aclose()
        await agent.left.wait()
        assert len(agent.calls) == 1


async def test_disconnect_in_the_middle_of_the_body(logs: Logs) -> None:
    agent = ScriptedAgent()
    async with open_front(agent) as front:
        client = await front.connect()
        await client.send(CHUNKED + chunk(b"x"))
        await agent.entered.wait()
        await client.stream.aclose()
        await agent.left.wait()
    assert agent.record in (["cancelled"], ["BodyBroken"])
    assert logs.with_event("client cancelled")


async def test_disconnect_is_seen_behind_a_body_that_the_function_does_not_read(
    logs: Logs,
) -> None:
    agent = ScriptedAgent(hang)
    async with open_front(agent) as front:
        client = await front.connect()
        await client.send(
            b"POST /invoke/fn1 HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\n\r\n"
        )
        await client.send(b"x" * 100_000)
        await agent.entered.wait()
        await trio.testing.wait_all_tasks_blocked()
        await client.stream.aclose()
        await agent.left.wait()
        await front.wait_connections(0)
    assert agent.record == ["cancelled"]
    assert logs.with_event("client cancelled")


async def test_who_leaves_is_not_watched_any_more() -> None:
    async with open_front() as front:
        clients = [await front.connect() for _ in range(3)]
        for client in clients:
            assert (await client.post(b"x")).body == b"x"
        assert len(front.server.departures) == 3
        for client in clients:
            await client.stream.aclose()
        await front.wait_connections(0)
        assert len(front.server.departures) == 0


async def test_small_body_that_is_too_slow_is_408_and_makes_no_call() -> None:
    config = NodeConfig(request_body_read_timeout=0.1)
    async with open_front(config=config) as front:
        client = await front.connect()
        await client.send(b"POST /invoke/fn1 HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nx")
        answer = await client.answer()
        assert (answer.status, answer.headers["connection"]) == (408, "close")
        assert b"Request body read timed out" in answer.body
        assert await client.closed_by_server()
        assert front.agent.calls == []


async def test_leaving_within_a_small_body_makes_no_call(logs: Logs) -> None:
    async with open_front() as front:
        for leave in (trio.SocketStream.aclose, trio.SocketStream.send_eof):
            client = await front.connect()
            await client.send(b"POST /invoke/fn1 HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nx")
            await front.wait_connections(1)
            await leave(client.stream)
            await front.wait_connections(0)
        assert front.agent.calls == []
    assert [entry["status"] for entry in logs.with_event("client cancelled")] == [444, 444]


async def test_reset_during_the_response_cancels_the_call() -> None:
    async def pour(call: PendingCall) -> None:
        await call.writer.start(200, [])
        while True:
            await call.writer.write(b"x" * 65536)

    agent = ScriptedAgent(pour)
    async with open_front(agent) as front:
        client = await front.connect()
        await client.send(b"POST /invoke/fn1 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        await client.stream.receive_some(10)
        await trio.aclose_forcefully(client.stream)
        await agent.left.wait()
    assert agent.record == ["cancelled"]


async def test_slow_reader_stops_the_function_and_then_gets_everything() -> None:
    size, pieces = 65536, 200
    written = 0

    async def pour(call: PendingCall) -> None:
        nonlocal written
        await call.writer.start(200, [])
        for _ in range(pieces):
            await call.writer.write(b"x" * size)
            written += size

    agent = ScriptedAgent(pour)
    async with open_front(agent) as front:
        client = await front.connect()
        client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        await client.send(b"POST /invoke/fn1 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        await agent.entered.wait()
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert written < size * pieces
        assert len((await client.answer()).body) == size * pieces


async def test_reader_that_stalls_is_given_up(logs: Logs) -> None:
    async def pour(call: PendingCall) -> None:
        await call.writer.start(200, [])
        while True:
            await call.writer.write(b"x" * 65536)

    agent = ScriptedAgent(pour)
    async with open_front(agent, config=NodeConfig(response_write_timeout=0.2)) as front:
        client = await front.connect()
        await client.send(b"POST /invoke/fn1 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        await agent.left.wait()
        await front.wait_connections(0)
        await client.stream.aclose()
    assert logs.with_event("client cancelled")


# --- broken responses ------------------------------------------------------------------------


async def part_then_error(call: PendingCall) -> None:
    await call.writer.start(200, [])
    await call.writer.write(b"part")
    raise FunctionResponseTooBig()


async def test_error_after_the_first_byte_is_seen_as_a_truncated_body() -> None:
    async with open_front(ScriptedAgent(part_then_error)) as front:
        client = await front.connect()
        with pytest.raises(h11.RemoteProtocolError, match="without sending complete message"):
            await client.post()


async def test_http10_client_sees_the_truncation_as_a_reset() -> None:
    async with open_front(ScriptedAgent(part_then_error)) as front:
        client = await front.connect()
        await client.send(b"POST /invoke/fn1 HTTP/1.0\r\nContent-Length: 0\r\n\r\n")
        with pytest.raises(trio.BrokenResourceError):
            await client.read_all()


# --- limits ----------------------------------------------------------------------------------


async def test_declared_size_over_the_limit_is_413_though_the_client_keeps_sending() -> None:
    async with open_front(config=NodeConfig(max_request_size=1000)) as front:
        client = await front.connect()
        await client.send(b"POST /invoke/fn1 HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
        await client.send(b"x" * 100_000)
        answer = await client.answer()
        assert answer.status == 413
        assert b"100000 \\u003e max 1000" in answer.body
        assert await client.closed_by_server()


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


async def test_head_over_the_limit_is_431() -> None:
    async with open_front(config=NodeConfig(max_request_header_size=1000)) as front:
        client = await front.connect()
        await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * 1000)
        answer = await client.answer()
        assert answer.status == 431
        assert answer.headers["content-type"] == "application/json; charset=utf-8"
        assert await client.closed_by_server()


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
        client = await front.connect()
        await client.send(b"POST / HTTP/1.1\r\n")
        assert (await client.answer()).status == 408
        assert await client.closed_by_server()


async def test_idle_connection_is_closed() -> None:
    async with open_front(config=NodeConfig(http_idle_timeout=0.1)) as front:
        fresh, used = await front.connect(), await front.connect()
        assert (await used.post(b"x")).status == 200
        assert await used.closed_by_server()
        assert await fresh.closed_by_server()


# --- listening and draining ------------------------------------------------------------------


async def test_taken_port_is_a_clear_error() -> None:
    async with open_listeners("127.0.0.1:0") as [listener]:
        port = listener.socket.getsockname()[1]
        with pytest.raises(OSError, match=rf"cannot listen on 127\.0\.0\.1:{port}: Addr") as info:
            await serve_http(_nothing, f"127.0.0.1:{port}")
        assert info.value.errno == errno.EADDRINUSE


async def _nothing(scope: Any, receive: Any, send: Any) -> None:
    await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("bind", [":0", "[::1]:0", "localhost:0"])
async def test_addresses_are_those_that_were_bound(bind: str) -> None:
    async with open_listeners(bind) as listeners:
        for listener in listeners:
            port = listener.socket.getsockname()[1]
            assert port
        if bind == ":0":
            assert len(listeners) == 1
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            await stream.aclose()


@pytest.mark.parametrize("bind", ["", "8080", "host", "host:99999", "a:b:1", "::1:80", "h:-1"])
def test_bad_addresses_are_refused(bind: str) -> None:
    with pytest.raises(ConfigError, match="no address to listen on"):
        parse_bind(bind)


async def test_drain_lets_the_running_call_finish_and_closes_the_idle_ones() -> None:
    go_on = trio.Event()

    async def handler(call: PendingCall) -> None:
        await go_on.wait()
        await echo(call)

    agent = ScriptedAgent(handler)
    async with open_front(agent) as front:
        idle, busy = await front.connect(), await front.connect()
        await busy.send(b"POST /invoke/fn1 HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")
        await agent.entered.wait()
        await front.wait_connections(2)
        front.shutdown.set()
        assert await idle.closed_by_server()
        with pytest.raises(OSError):
            await front.connect()
        go_on.set()
        answer = await busy.answer()
        assert (answer.body, answer.headers["connection"]) == (b"x", "close")
        await front.done.wait()
    assert agent.record == ["finished"]


async def test_drain_ends_after_the_grace_even_with_a_client_that_does_not_read() -> None:
    async def pour(call: PendingCall) -> None:
        await call.writer.start(200, [])
        while True:
            await call.writer.write(b"x" * 65536)

    agent = ScriptedAgent(pour)
    async with open_front(agent, grace=0.1) as front:
        client = await front.connect()
        await client.send(b"POST /invoke/fn1 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        await agent.entered.wait()
        front.shutdown.set()
        await front.done.wait()
        await client.stream.aclose()
    assert agent.record == ["cancelled"]


async def test_application_that_fails_is_a_500_and_does_not_hurt_others(logs: Logs) -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        await trio.lowlevel.checkpoint()
        if scope["path"] == "/bad":
            raise RuntimeError("bug")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    async with open_front(app=broken) as front:
        client = await front.connect()
        assert (await client.post(path="/bad")).status == 500
        assert (await client.post(path="/good")).body == b"ok"
    logs.expect_error("the application failed")


async def test_no_task_or_socket_is_left_after_many_clients() -> None:
    async with open_front() as front:
        await trio.testing.wait_all_tasks_blocked()
        before = trio.lowlevel.current_statistics().tasks_living

        async def visit() -> None:
            client = await front.connect()
            assert (await client.post(b"x")).status == 200
            await client.stream.aclose()

        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(visit)
        await front.wait_connections(0)
        await trio.testing.wait_all_tasks_blocked()  # the last task ends just after that
        assert trio.lowlevel.current_statistics().tasks_living == before
