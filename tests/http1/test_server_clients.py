"""The HTTP/1.1 server and clients that leave or stall while a call runs."""

from __future__ import annotations

import signal
import socket
import sys
from contextlib import suppress
from functools import partial

import h11
import pytest
import trio
import trio.testing

from hostler._asgi import request_body
from hostler.bodies import BodyBudget
from hostler.calls import PendingCall
from hostler.config import BodyConfig, NodeConfig
from hostler.front import invoke_app
from hostler.http1 import server
from tests.conftest import Logs
from tests.front._sockets import CHUNKED, chunk

from ..front._agent import TABLE, ScriptedAgent, echo, hang
from ..front._sockets import open_front, until


async def test_disconnect_during_a_long_call_cancels_it_at_once(logs: Logs) -> None:
    agent = ScriptedAgent(hang)
    async with open_front(agent) as front:
        client = await front.connect()
        await client.send(b"POST /invoke/fn1 HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")
        await agent.entered.wait()
        await client.stream.aclose()
        with trio.fail_after(60):
            await agent.left.wait()
        assert agent.record == ["cancelled"]
        await front.wait_connections(0)
    assert logs.with_event("client cancelled")[0]["status"] == 444


async def test_a_call_whose_body_is_here_is_lent_the_scope_of_its_connection(logs: Logs) -> None:
    """An agent that ends before the call may cancel it, which ends that connection only."""
    agent = ScriptedAgent(hang)
    whole = b"POST /invoke/fn1 HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx"
    async with open_front(agent) as front:
        clients = [await front.connect() for _ in range(3)]
        for client, request in zip(clients, (whole, whole, CHUNKED + chunk(b"x")), strict=True):
            agent.entered = trio.Event()
            await client.send(request)
            await agent.entered.wait()
        first, second, third = (call.scope for call in agent.submitted)
        assert first is not None
        assert second is not None
        assert third is None
        first.cancel()
        assert (await clients[0].answer()).status == 500
        assert await clients[0].closed_by_server()
        assert agent.running == 2
        assert not second.cancel_called
        for client in clients:
            await client.stream.aclose()


ONE = b"POST /invoke/fn1 HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx"
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"


@pytest.mark.parametrize("what", ["whole", "chunked", "large"])
async def test_who_closes_its_side_only_waits_for_its_answer(
    what: str, monkeypatch: pytest.MonkeyPatch, logs: Logs
) -> None:
    """It is asked from time to time whether it is still there, which HTTP/1.1 allows."""
    monkeypatch.setattr(server, "FIRST_PROBE_SECONDS", 0.01)
    monkeypatch.setattr(server, "PROBE_SECONDS", 0.01)
    body = bytes(200_000) if what == "large" else b"abc"
    agent, go_on = ScriptedAgent(), trio.Event()

    async def late(call: PendingCall) -> None:
        await go_on.wait()
        await echo(call)

    agent.handler = late
    async with open_front(agent) as front:
        client = await front.connect()
        await client.send(request(len(body), chunked=what == "chunked", body=body))
        await client.stream.send_eof()
        received = b""
        # (The end of a large one is behind what the server does not read yet.)
        while what != "large" and received.count(INTERIM) < 3:
            received += await client.stream.receive_some()
        go_on.set()
        received += await client.read_all()
    assert agent.record == ["finished"]
    assert not logs.with_event("client cancelled")
    client.h11.receive_data(received)
    client.h11.receive_data(b"")
    event = await client.event()
    while isinstance(event, h11.InformationalResponse):
        event = await client.event()
    assert isinstance(event, h11.Response)
    assert event.status_code == 200
    answered = b""
    while isinstance(event := await client.event(), h11.Data):
        answered += event.data
    assert answered == body


async def test_who_closes_its_side_with_several_requests_gets_all_answers() -> None:
    """And sees nothing else, if they do not take long."""
    async with open_front() as front:
        client = await front.connect()
        await client.send(ONE * 3)
        await client.stream.send_eof()
        received = await client.read_all()
    assert received.count(b"HTTP/1.1 200 OK\r\n") == received.count(b"HTTP/1.1 ") == 3
    assert front.agent.record == ["finished"] * 3


async def test_who_has_closed_its_side_and_leaves_then_is_noticed(
    monkeypatch: pytest.MonkeyPatch, logs: Logs
) -> None:
    monkeypatch.setattr(server, "FIRST_PROBE_SECONDS", 0.01)
    monkeypatch.setattr(server, "PROBE_SECONDS", 0.01)
    agent = ScriptedAgent(hang)
    async with open_front(agent) as front:
        client = await front.connect()
        await client.send(ONE)
        await client.stream.send_eof()
        assert await client.stream.receive_some() == INTERIM
        await client.stream.aclose()
        await agent.left.wait()
        await front.wait_connections(0)
    assert agent.record == ["cancelled"]
    assert [entry["status"] for entry in logs.with_event("client cancelled")] == [444]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_the_client_of_a_killed_process_has_gone(number: int) -> None:
    """The kernel ends its side as if it had closed just that."""
    agent = ScriptedAgent(hang)
    program = (
        "import socket, sys; client = socket.create_connection(('127.0.0.1', int(sys.argv[1])));"
        f"client.sendall({ONE!r}); client.recv(1)"
    )
    async with open_front(agent) as front, trio.open_nursery() as nursery:
        command = [sys.executable, "-c", program, str(front.port)]
        process = await nursery.start(partial(trio.run_process, command, check=False))
        await agent.entered.wait()
        process.send_signal(number)
        await agent.left.wait()
        await front.wait_connections(0)
    assert agent.record == ["cancelled"]


@pytest.mark.parametrize("why", ["its response has begun", "HTTP/1.0"])
async def test_who_closes_its_side_and_cannot_be_asked_has_gone_after_a_while(
    why: str, monkeypatch: pytest.MonkeyPatch, logs: Logs
) -> None:
    monkeypatch.setattr(server, "PROBE_SECONDS", 0.05)

    async def begin(call: PendingCall) -> None:
        if why != "HTTP/1.0":
            await call.writer.start(200, [])
            await call.writer.write(b"part")
        await trio.sleep_forever()

    agent = ScriptedAgent(begin)
    async with open_front(agent) as front:
        client = await front.connect()
        await client.send(ONE.replace(b"/1.1", b"/1.0") if why == "HTTP/1.0" else ONE)
        await agent.entered.wait()
        if why != "HTTP/1.0":
            assert await client.stream.receive_some()
        await client.stream.send_eof()
        await agent.left.wait()
    assert agent.record == ["cancelled"]
    assert [entry["status"] for entry in logs.with_event("client cancelled")] == [444]


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_who_closes_its_side_gets_all_of_a_response_that_goes_on(
    version: bytes, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it can't be asked any more."""
    monkeypatch.setattr(server, "PROBE_SECONDS", 0.5)
    agent, sent = ScriptedAgent(), trio.Event()

    async def stream(call: PendingCall) -> None:
        await sent.wait()
        if when == "before":
            await client.stream.send_eof()
        await call.writer.start(200, [])
        await call.writer.write(b"a")
        if when == "after":
            await client.stream.send_eof()
        for _ in range(15):
            await trio.sleep(0.05)
            await call.writer.write(b"b")

    agent.handler = stream
    async with open_front(agent) as front:
        client = await front.connect()
        await client.send(ONE.replace(b"1.1", version))
        sent.set()
        received = await client.read_all()
    assert agent.record == ["finished"]
    assert received.count(b"b\r\n" if version == b"1.1" else b"b") >= 15


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_who_closes_its_side_may_read_slowly(
    version: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it takes nothing it counts as there: one that has gone would have reset by now."""
    monkeypatch.setattr(server, "PROBE_SECONDS", 0.2)

    async def pour(call: PendingCall) -> None:
        await call.writer.start(200, [])
        for _ in range(SIZE // 50_000):
            await call.writer.write(bytes(50_000))

    agent = ScriptedAgent(pour)
    async with open_front(agent) as front:
        client = await front.connect()
        await client.send(ONE.replace(b"1.1", version))
        await client.stream.send_eof()
        with trio.move_on_after(0.7):
            await agent.left.wait()
        size = 0
        async for piece in client.stream:
            size += len(piece)
    assert size > SIZE
    assert agent.record == ["finished"]


@pytest.mark.parametrize("why", ["half-close", "the client's time", "the grace"])
async def test_http10_client_never_takes_a_part_for_the_whole(why: str) -> None:
    """The end of the connection is the end of its response."""
    agent = ScriptedAgent()

    async def begin(call: PendingCall) -> None:
        await call.writer.start(200, [])
        await call.writer.write(b"part")
        while why == "the client's time":
            await call.writer.write(b"x" * 65536)
        await trio.sleep_forever()

    agent.handler = begin
    config = NodeConfig(response_write_timeout=0.2)
    async with open_front(agent, config=config, grace=0.1) as front:
        client = await front.connect()
        await client.send(b"POST /invoke/fn1 HTTP/1.0\r\nContent-Length: 0\r\n\r\n")
        assert await client.stream.receive_some(1)
        if why == "half-close":
            await client.stream.send_eof()
        elif why == "the grace":
            front.shutdown.set()
        await agent.left.wait()
        await front.wait_connections(0)
        with pytest.raises(trio.BrokenResourceError):
            await client.read_all()


async def test_who_leaves_with_its_answer_has_not_cancelled(logs: Logs) -> None:
    async with open_front() as front:
        client = await front.connect()
        assert (await client.post(b"x")).body == b"x"
        await client.stream.aclose()
        await front.wait_connections(0)
    assert not logs.with_event("client cancelled")


async def test_who_leaves_in_a_drain_is_not_waited_for() -> None:
    agent = ScriptedAgent(hang)
    async with open_front(agent, grace=600) as front:
        client = await front.connect()
        await client.send(b"POST /invoke/fn1 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        await agent.entered.wait()
        front.shutdown.set()
        await trio.testing.wait_all_tasks_blocked()
        await client.stream.aclose()
        await front.done.wait()
    assert agent.record == ["cancelled"]


async def test_disconnect_is_seen_behind_a_pipelined_request() -> None:
    agent = ScriptedAgent(hang)
    async with open_front(agent) as front:
        client = await front.connect()
        request = b"POST /invoke/fn1 HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx"
        await client.send(request + request)
        await agent.entered.wait()
        await client.stream.aclose()
        await agent.left.wait()
        assert len(agent.submitted) == 1


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
        assert len(front.server.disconnects) == 3
        for client in clients:
            await client.stream.aclose()
        await front.wait_connections(0)
        assert len(front.server.disconnects) == 0


async def test_small_body_that_is_too_slow_is_408_and_makes_no_call() -> None:
    config = NodeConfig(request_body_read_timeout=0.1)
    async with open_front(config=config) as front:
        client = await front.connect()
        await client.send(b"POST /invoke/fn1 HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nx")
        answer = await client.answer()
        assert (answer.status, answer.headers["connection"]) == (408, "close")
        assert b"Request body read timed out" in answer.body
        assert await client.closed_by_server()
        assert front.agent.submitted == []


async def test_leaving_within_a_small_body_makes_no_call(logs: Logs) -> None:
    async with open_front() as front:
        for leave in (trio.SocketStream.aclose, trio.SocketStream.send_eof):
            client = await front.connect()
            await client.send(b"POST /invoke/fn1 HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nx")
            await front.wait_connections(1)
            await leave(client.stream)
            await front.wait_connections(0)
        assert front.agent.submitted == []
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


SIZE = 20_000_000
"""Bytes, more than the buffers between a client and the server hold."""


async def answer_first(call: PendingCall) -> None:
    """Answer in pieces before anything is read, then read it all."""
    await call.writer.start(200, [])
    for _ in range(SIZE // 50_000):
        await call.writer.write(bytes(50_000))
    received = 0
    async with call.body.open() as body:
        while piece := await body.receive_some():
            received += len(piece)
    await call.writer.write(b" %d" % received)


def request(size: int, *, chunked: bool, body: bytes = b"") -> bytes:
    """With ``size`` bytes of a body, zeros if there is none."""
    body = body or bytes(size)
    if chunked:
        return CHUNKED + chunk(body) + b"0\r\n\r\n"
    head = b"POST /invoke/fn1 HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
    return head % size + body


@pytest.mark.parametrize("chunked", [False, True])
async def test_who_reads_only_after_it_has_written_does_not_hang(chunked: bool) -> None:
    agent, budget = ScriptedAgent(answer_first), BodyBudget()
    config = NodeConfig(max_request_size=2 * SIZE)
    app = invoke_app(agent, TABLE, config=config, bodies=budget)
    async with open_front(agent, config=config, app=app) as front:
        client = await front.connect()
        await client.send(request(SIZE, chunked=chunked))
        assert 0 < budget.memory <= SIZE
        assert (await client.answer()).body == bytes(SIZE) + b" %d" % SIZE
    assert budget.memory == 0


async def test_who_writes_slowly_before_it_reads_has_not_stalled() -> None:
    """It may take longer than a client that takes nothing of its response."""
    agent = ScriptedAgent(answer_first)
    config = NodeConfig(max_request_size=2 * SIZE, response_write_timeout=0.4)
    async with open_front(agent, config=config) as front:
        client = await front.connect()
        data = request(SIZE, chunked=False)
        for at in range(0, len(data), len(data) // 10):
            await client.send(data[at : at + len(data) // 10])
            await trio.sleep(0.1)
        assert (await client.answer()).body == bytes(SIZE) + b" %d" % SIZE


@pytest.mark.parametrize("limit", ["a body's", "all bodies'"])
async def test_what_is_held_for_such_clients_has_a_limit(
    limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each, and of all."""
    budget = BodyBudget()
    if limit == "a body's":
        monkeypatch.setattr(request_body, "HELD_WHILE_STUCK", 200_000)
    else:
        budget = BodyBudget(BodyConfig(body_memory=200_000))
    agent = ScriptedAgent(answer_first)
    config = NodeConfig(max_request_size=2 * SIZE, response_write_timeout=1)
    app = invoke_app(agent, TABLE, config=config, bodies=budget)
    async with open_front(agent, config=config, app=app) as front:
        client = await front.connect()
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                with suppress(trio.BrokenResourceError):
                    await client.send(request(SIZE, chunked=False))

            nursery.start_soon(send)
            await until(lambda: budget.memory > 200_000 - 64 * 1024)
            await agent.left.wait()
            assert agent.record == ["cancelled"]
            await front.wait_connections(0)
            nursery.cancel_scope.cancel()
    assert budget.memory == 0


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
