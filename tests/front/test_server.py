"""The HTTP/1.1 server with the front end on real sockets."""

from __future__ import annotations

import errno
from typing import Any

import h11
import pytest
import trio
import trio.testing

from hostler.calls import PendingCall
from hostler.config import NodeConfig
from hostler.errors import ConfigError, FunctionResponseTooBig
from hostler.front import open_listeners, parse_bind, serve_http
from tests.conftest import Logs

from ._agent import ScriptedAgent, echo
from ._handlers import answering
from ._sockets import CHUNKED, chunk, open_front


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


async def test_a_functions_date_is_kept() -> None:
    date = "Thu, 01 Jan 2026 00:00:00 GMT"
    agent = ScriptedAgent(answering(b"x", headers=[("Date", date)]))
    async with open_front(agent) as front:
        answer = await (await front.connect()).post(b"")
        assert answer.headers["date"] == date


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
        assert front.agent.submitted[0].model.url == "http://lb.example/invoke/fn1?a=1"


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


async def test_application_that_goes_on_after_its_answer_spoils_no_other(logs: Logs) -> None:
    """What it says then would be taken for the answer to the next request."""

    async def talkative(scope: Any, receive: Any, send: Any) -> None:
        path = scope["raw_path"]
        headers = [(b"content-length", b"%d" % len(path))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": path})
        await send({"type": "http.response.body", "body": path})

    async with open_front(app=talkative) as front:
        client = await front.connect()
        for path in ("/one", "/two"):
            assert (await client.post(path=path)).body == path.encode()
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
