"""A server that stops loses no request: neither of those that it has connected, nor of those that
the kernel has connected for it."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import partial
from typing import Any

import h11
import pytest
import trio
import trio.testing

from hostler.api import json_reply
from hostler.calls import PendingCall
from hostler.front import HttpServer, invoke_app, open_listeners, serve_http
from hostler.front.listeners import address_of
from hostler.front.server import HANDSHAKE_SECONDS
from hostler.http1.server import FIRST_SECONDS

from ._agent import TABLE, ScriptedAgent, hang
from ._sockets import Client, connect_late, open_front, until

REQUEST = b"POST /invoke/fn1 HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx"


async def test_clients_in_the_kernels_queue_are_served_and_later_ones_refused() -> None:
    shutdown = trio.Event()
    shutdown.set()
    app = invoke_app(ScriptedAgent(), TABLE)
    with trio.fail_after(60):
        async with open_listeners("127.0.0.1:0") as listeners, trio.open_nursery() as nursery:
            port = int(address_of(listeners[0]).rpartition(":")[2])
            clients = [Client(await trio.open_tcp_stream("127.0.0.1", port)) for _ in range(20)]
            for client in clients:
                await client.send(REQUEST)

            async def serve(task_status: trio.TaskStatus[HttpServer]) -> None:
                await serve_http(app, listeners, shutdown=shutdown, task_status=task_status)

            server: HttpServer = await nursery.start(serve)
            for client in clients:
                assert (await client.answer()).body == b"x"
                await client.stream.aclose()
            with pytest.raises(OSError):
                await trio.open_tcp_stream("127.0.0.1", port)
        assert server.statistics().connections == 0


async def test_clients_that_have_begun_to_connect_are_served(
    mock_clock: trio.testing.MockClock,
) -> None:
    shutdown = trio.Event()
    app = invoke_app(ScriptedAgent(), TABLE)
    async with open_listeners("127.0.0.1:0") as listeners, trio.open_nursery() as nursery:
        connect_late(listeners[0])
        port = int(address_of(listeners[0]).rpartition(":")[2])
        nursery.start_soon(partial(serve_http, app, listeners, shutdown=shutdown))
        client = Client(await trio.open_tcp_stream("127.0.0.1", port))
        shutdown.set()
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(OSError):
            await trio.open_tcp_stream("127.0.0.1", port)
        await client.send(REQUEST)
        assert (await client.answer()).body == b"x"
        await client.stream.aclose()
        mock_clock.jump(HANDSHAKE_SECONDS)


async def test_the_first_request_of_a_new_connection_may_be_on_its_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hostler.http1.server.FIRST_SECONDS", 60)
    async with open_front() as front:
        client = await front.connect()
        await front.wait_connections(1)
        front.shutdown.set()
        await trio.testing.wait_all_tasks_blocked(0.05)
        await client.send(REQUEST)
        answer = await client.answer()
        assert (answer.body, answer.headers["connection"]) == (b"x", "close")
        await front.done.wait()


async def test_a_new_connection_without_a_request_holds_nothing_up_for_long() -> None:
    async with open_front(grace=60) as front:
        client = await front.connect()
        await front.wait_connections(1)
        began = trio.current_time()
        front.shutdown.set()
        assert await client.closed_by_server()
        await front.done.wait()
        assert trio.current_time() - began >= FIRST_SECONDS


async def test_a_kept_connection_is_closed_at_once_unless_a_request_has_arrived(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On the second one, the request is in the kernel's buffer as the drain begins."""
    monkeypatch.setattr("hostler.http1.server.FIRST_SECONDS", 60)
    async with open_front() as front:
        idle, asking = await front.connect(), await front.connect()
        for client in (idle, asking):
            assert (await client.post(b"1")).body == b"1"
        await trio.testing.wait_all_tasks_blocked()
        os.write(asking.stream.socket.fileno(), REQUEST)
        front.server.drain()  # the server's tasks have not run since
        with trio.fail_after(30):
            assert await idle.closed_by_server()
        assert (await asking.answer()).body == b"x"
        assert await asking.closed_by_server()


HEAD = b"POST /invoke/fn1 HTTP/1.1\r\nHost: x\r\n"
HANGING = {
    "all of it has come": HEAD + b"Content-Length: 1\r\n\r\nx",
    "the client still sends": HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n",
    "a large body has come in part": HEAD + b"Content-Length: 100000\r\n\r\n" + bytes(70_000),
    "the client wants to be asked": HEAD
    + b"Expect: 100-continue\r\nContent-Length: 100000\r\n\r\n",
}


@pytest.mark.parametrize("name", HANGING)
@pytest.mark.parametrize("placed", [True, False])
async def test_a_call_that_outlasts_the_grace_is_answered(name: str, placed: bool) -> None:
    """With 503 only if it certainly did not run: clients try again then."""

    async def hang(call: PendingCall) -> None:
        try:
            await trio.sleep_forever()
        finally:
            call.never_placed = not placed

    agent = ScriptedAgent(hang)
    async with open_front(agent, grace=0.1) as front:
        client = await front.connect()
        await client.send(HANGING[name])
        if "asked" not in name:
            await agent.entered.wait()
        else:
            await front.wait_connections(1)
        front.shutdown.set()
        answer = await client.answer()
        ran = placed and "asked" not in name
        assert answer.status == (500 if ran else 503)
        assert answer.headers["connection"] == "close"
        assert await client.closed_by_server()
        await front.done.wait()
    assert agent.record in (["cancelled"], [])


async def test_a_request_of_any_application_is_answered_when_the_grace_is_over() -> None:
    entered = trio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        entered.set()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await trio.sleep_forever()

    async with open_front(app=app, grace=0.1) as front:
        client = await front.connect()
        await client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await entered.wait()
        front.shutdown.set()
        answer = await client.answer()
        assert (answer.status, answer.headers["connection"]) == (503, "close")
        assert await client.closed_by_server()
        await front.done.wait()


async def test_a_response_that_has_begun_is_cut_off_when_the_grace_is_over() -> None:
    async def begin(call: PendingCall) -> None:
        await call.writer.start(200, [])
        await call.writer.write(b"begun")
        await trio.sleep_forever()

    async with open_front(ScriptedAgent(begin), grace=0.1) as front:
        client = await front.connect()
        await client.send(REQUEST)
        assert isinstance(await client.event(), h11.Response)
        front.shutdown.set()
        with pytest.raises(h11.RemoteProtocolError):
            await client.answer()
        await front.done.wait()


async def test_clients_that_take_no_answer_do_not_hold_the_end_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One does not read, one has gone, one sends and sends."""
    async with open_front(ScriptedAgent(hang), grace=0.1) as front:
        silent, gone, sends = [await front.connect() for _ in range(3)]
        for client in (silent, gone):
            await client.send(REQUEST)
        await until(lambda: front.agent.running == 2)
        await gone.stream.aclose()
        await sends.send(HANGING["the client still sends"])
        await until(lambda: front.agent.running == 2)
        front.shutdown.set()
        with trio.fail_after(10):
            with suppress(trio.BrokenResourceError):
                while not front.done.is_set():
                    await sends.send(b"1\r\nx\r\n")
                    await trio.sleep(0.001)
            await front.done.wait()


async def test_a_program_can_have_a_route_that_stops_its_server() -> None:
    """Fn's ``/shutdown``, which a program has to ask for there, too."""
    shutdown = trio.Event()

    async def stop(scope: Any, receive: Any, send: Any) -> None:
        shutdown.set()
        await json_reply("shutting down").send(send)

    app = invoke_app(ScriptedAgent(), TABLE, mounts={"/shutdown": stop})
    with trio.fail_after(60):
        async with open_listeners("127.0.0.1:0") as listeners, trio.open_nursery() as nursery:
            port = int(address_of(listeners[0]).rpartition(":")[2])
            nursery.start_soon(partial(serve_http, app, listeners, shutdown=shutdown))
            client = Client(await trio.open_tcp_stream("127.0.0.1", port))
            await client.send(b"GET /shutdown HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = await client.answer()
            assert (answer.status, answer.body) == (200, b'"shutting down"')
            await client.stream.aclose()
