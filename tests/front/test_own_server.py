"""What hostler's own server does for the front end beside ASGI, and who is in between."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import trio
import trio.testing

from hostler._asgi.middleware import with_middleware
from hostler._asgi.types import ASGIApp, Message, Receive, Scope, Send
from hostler.calls import PendingCall
from hostler.config import NodeConfig
from hostler.errors import ServerBusy
from hostler.front import invocation, invoke_app
from tests.conftest import Logs

from ._agent import TABLE, ScriptedAgent, echo
from ._asgi_client import AsgiRequest
from ._handlers import answering, app_of, raising
from ._own_server import FakeServer
from ._sockets import open_front, until


async def whole(call: PendingCall) -> None:
    """The echo, in an answer of known length."""
    data = await call.body.open().receive_some()
    await call.writer.start(200, [("Content-Length", str(len(data))), ("X-From", "function")])
    await call.writer.write(bytes(data))


async def test_a_whole_answer_is_handed_over_in_one_step() -> None:
    server = FakeServer(body=b"abc")
    agent = ScriptedAgent(whole)
    await app_of(agent)(server.scope(), server.receive, server.send)
    headers = [
        (b"fn-call-id", agent.submitted[0].model.id.encode()),
        (b"x-from", b"function"),
        (b"content-length", b"3"),
    ]
    assert server.answers == [(200, headers, b"abc")]
    assert server.received == 0
    assert not server.connection_scope.cancel_called


@pytest.mark.parametrize("body", [b"abc", None])
async def test_what_a_call_was_made_of_goes_with_it(body: bytes | None) -> None:
    """Nothing is left for the collector of cycles, which would have to look for it in a pause, and
    meanwhile the bodies would stay."""
    server, writers = FakeServer(body=body), []

    async def noting(call: PendingCall) -> None:
        writers.append(weakref.ref(call.writer))
        await whole(call)

    agent = ScriptedAgent(noting)
    gc.disable()
    try:
        await app_of(agent)(server.scope(), server.receive, server.send)
        agent.submitted.clear()
        server.told.clear()
        assert [writer() for writer in writers] == [None]
    finally:
        gc.enable()


async def test_a_body_over_the_limit_is_refused_all_the_same() -> None:
    server = FakeServer(body=b"abc")
    headers = [(b"transfer-encoding", b"chunked")]
    app = app_of(ScriptedAgent(whole), NodeConfig(max_request_size=2))
    await app(server.scope(headers=headers), server.receive, server.send)
    assert server.sent[0]["status"] == 413


async def test_who_wraps_send_sees_the_answer() -> None:
    server, other = FakeServer(body=b"abc"), AsgiRequest()
    await app_of(ScriptedAgent(whole))(server.scope(), server.receive, other._send)
    assert server.answers == []
    assert (other.status, other.content) == (200, b"abc")


async def test_who_wraps_receive_sees_and_changes_the_body() -> None:
    server, other = FakeServer(body=b"abc"), AsgiRequest().body(b"x", more=True).body(b"yz")
    await app_of(ScriptedAgent(whole))(server.scope(), other._receive, server.send)
    assert [body for _, _, body in server.answers] == [b"xyz"]
    assert other.received == 2


async def test_an_answer_in_pieces_is_sent_in_pieces() -> None:
    server = FakeServer(body=b"")
    agent = ScriptedAgent(answering(b"a", b"b"))
    await app_of(agent)(server.scope(), server.receive, server.send)
    assert server.answers == []
    assert [message.get("body") for message in server.sent] == [None, b"a", b"b", b""]


@pytest.mark.parametrize("handler", [whole, echo, raising(ServerBusy())])
async def test_middleware_changes_answers_of_the_server(handler: Any) -> None:
    def marking(app: ASGIApp) -> ASGIApp:
        async def marked(scope: Scope, receive: Receive, send: Send) -> None:
            async def adding(message: Message) -> None:
                if message["type"] == "http.response.start":
                    message = {**message, "headers": [*message["headers"], (b"x-mark", b"1")]}
                await send(message)

            await app(scope, receive, adding)

        return marked

    agent = ScriptedAgent(handler)
    app = with_middleware(invoke_app(agent, TABLE), [marking])
    async with open_front(agent, app=app) as front:
        client = await front.connect()
        for _ in range(2):
            assert (await client.post(b"abc")).headers["x-mark"] == "1"


@pytest.mark.parametrize("extensions", [None, {}, {"http.response.debug": {}}])
async def test_other_servers_have_other_extensions_or_none(extensions: Any) -> None:
    request = AsgiRequest().body(b"abc")
    request.scope["extensions"] = extensions
    await request.run(app_of(ScriptedAgent(whole)))
    assert (request.status, request.content) == (200, b"abc")


async def test_headers_of_answers_are_those_of_each_call() -> None:
    """Also where they are remembered."""
    agent = ScriptedAgent()
    async with open_front(agent) as front:
        client = await front.connect()
        for headers in ([("X", "1")], [("X", "2")], [("X", "1"), ("Y", "1")], [("X", "1")]):
            agent.handler = answering(b"ok", headers=[*headers, ("Content-Length", "2")])
            found = (await client.post(b"")).headers
            assert found.pop("fn-call-id") == agent.submitted[-1].model.id
            del found["date"]
            assert found == {name.lower(): value for name, value in headers} | {
                "content-length": "2"
            }


async def test_a_client_that_left_before_its_answer_was_ready_has_cancelled(logs: Logs) -> None:
    async def finish_anyway(call: PendingCall) -> None:
        with trio.CancelScope(shield=True):
            await client.stream.aclose()
            scope = call.scope
            assert scope is not None
            await until(lambda: scope.cancel_called)
            await whole(call)

    agent = ScriptedAgent(finish_anyway)
    async with open_front(agent) as front:
        client = await front.connect()
        await client.send(b"POST /invoke/fn1 HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")
        await agent.left.wait()
        await front.wait_connections(0)
    assert agent.record == ["finished"]
    assert [entry["status"] for entry in logs.with_event("client cancelled")] == [444]


@pytest.mark.parametrize("whole", [True, False])
async def test_headers_of_applications_need_not_be_tuples(whole: bool) -> None:
    """ASGI wants pairs that can be iterated, and many have lists."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        headers = [[b"content-type", b"text/plain"], [b"content-length", b"2"]]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if not whole:
            await send({"type": "http.response.body", "body": b"o", "more_body": True})
        await send({"type": "http.response.body", "body": b"ok" if whole else b"k"})

    async with open_front(app=app) as front:
        answer = await (await front.connect()).post(b"abc")
    assert (answer.status, answer.body) == (200, b"ok")
    assert answer.headers["content-type"] == "text/plain"


async def test_a_piece_of_nothing_behind_the_last_one_takes_nothing_away() -> None:
    async def handler(call: PendingCall) -> None:
        assert isinstance(call.writer, invocation.AsgiWriter)
        assert call.writer.start_now(200, [("Content-Length", "2")])
        assert call.writer.write_now(b"ok")
        if not call.writer.write_now(b""):
            await call.writer.write(b"")

    server = FakeServer(body=b"")
    await app_of(ScriptedAgent(handler))(server.scope(), server.receive, server.send)
    assert [body for _, _, body in server.answers] == [b"ok"]


@pytest.mark.parametrize("name", ["Connection", "Fn-Call-Id", "X-Long"])
async def test_no_long_headers_of_functions_are_remembered(name: str) -> None:
    """Nor those that the client never gets."""
    server = FakeServer(body=b"")
    headers = [(name, "x" * 5000), ("Content-Length", "0")]
    agent = ScriptedAgent(answering(b"", headers=headers))
    await app_of(agent)(server.scope(), server.receive, server.send)
    assert [status for status, _, _ in server.answers] == [200]
    assert tuple(headers) not in invocation._known
