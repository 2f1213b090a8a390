"""``POST /invoke/{fn_id}`` as an ASGI application, without a server."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import trio
import trio.testing

from hostler._asgi.request_body import READ_AHEAD
from hostler.calls import PendingCall
from hostler.config import NodeConfig
from hostler.errors import (
    FunctionResponseTooBig,
    ServerBusy,
)

from ._agent import ScriptedAgent, echo
from ._asgi_client import AsgiRequest
from ._handlers import answering, app_of, raising


def without_trace(headers: Mapping[str, list[str]]) -> dict[str, list[str]]:
    return {name: values for name, values in headers.items() if name != "Traceparent"}


async def test_echo_with_the_functions_headers_and_the_call_id() -> None:
    agent = ScriptedAgent()
    request = AsgiRequest(headers=[("content-length", "5")]).body(b"hello")
    await request.run(app_of(agent))
    assert request.status == 200
    assert request.content == b"hello"
    assert request.complete
    assert request.headers["content-type"] == "text/plain"
    assert request.headers["x-from"] == "function"
    assert request.headers["fn-call-id"] == agent.submitted[0].model.id


async def test_small_body_is_in_memory_even_if_it_comes_in_pieces() -> None:
    held: list[bytes | None] = []

    async def handler(call: PendingCall) -> None:
        held.append(call.body.data)
        await echo(call)

    request = AsgiRequest(headers=[("content-length", "6")])
    request.body(b"abc", more=True).body(b"def", more=True).body()
    await request.run(app_of(ScriptedAgent(handler)))
    assert held == [b"abcdef"]


async def test_request_without_a_body_does_not_wait_for_one() -> None:
    agent = ScriptedAgent()
    request = AsgiRequest().body()
    await request.run(app_of(agent))
    assert request.content == b""
    assert request.headers["content-length"] == "0"


async def test_call_is_made_of_the_request() -> None:
    agent = ScriptedAgent()
    request = AsgiRequest(
        headers=[
            ("host", "lb.example:8080"),
            ("content-length", "1"),
            ("x-two", "a"),
            ("X-TWO", "b"),
            ("x-name", "süß"),
        ],
        query="q=1&r",
    ).body(b"x")
    await request.run(app_of(agent))
    model = agent.submitted[0].model
    assert model.url == "http://lb.example:8080/invoke/fn1?q=1&r"
    assert (model.method, model.type, model.image) == ("POST", "sync", "echo:1")
    assert without_trace(model.headers) == {
        "Content-Length": ["1"],
        "X-Two": ["a", "b"],
        "X-Name": ["süß"],
    }
    assert model.config["A"] == "1"


async def test_header_bytes_that_are_not_utf8_are_read_as_latin1() -> None:
    agent = ScriptedAgent()
    request = AsgiRequest().body()
    request.scope["headers"] = [(b"x-name", b"s\xfc\xdf")]
    await request.run(app_of(agent))
    assert agent.submitted[0].model.headers["X-Name"] == ["süß"]


async def test_hop_by_hop_headers_stop_here_in_both_directions() -> None:
    agent = ScriptedAgent(
        answering(
            b"x",
            headers=[("keep-alive", "timeout=5"), ("Connection", "X-Gone"), ("X-Gone", "1")],
        )
    )
    request = AsgiRequest(
        headers=[("keep-alive", "300"), ("connection", "x-mine"), ("x-mine", "1"), ("x-o", "1")]
    ).body()
    await request.run(app_of(agent))
    assert without_trace(agent.submitted[0].model.headers) == {"X-O": ["1"]}
    assert set(request.headers) == {"fn-call-id"}


async def test_functions_content_length_is_kept_and_its_call_id_is_not() -> None:
    agent = ScriptedAgent(answering(b"ab", headers=[("content-length", "2"), ("fn-call-id", "x")]))
    request = await AsgiRequest().body().run(app_of(agent))
    assert request.headers["content-length"] == "2"
    assert request.headers["fn-call-id"] == agent.submitted[0].model.id
    assert len(request.sent[0]["headers"]) == 2


async def test_detached_call_is_answered_202_and_its_response_is_nobodys() -> None:
    agent = ScriptedAgent()
    request = AsgiRequest(headers=[("fn-invoke-type", "detached"), ("content-length", "5")])
    await request.body(b"hello").run(app_of(agent))
    assert agent.submitted[0].model.type == "detached"
    assert agent.record == ["finished"]
    assert (request.status, request.content) == (202, b"")
    assert request.headers["content-length"] == "0"
    assert request.headers["fn-call-id"] == agent.submitted[0].model.id
    assert "x-from" not in request.headers


async def test_detached_call_that_is_not_acknowledged_is_an_error() -> None:
    agent = ScriptedAgent(raising(ServerBusy()))
    request = AsgiRequest(headers=[("fn-invoke-type", "detached")]).body()
    assert (await request.run(app_of(agent))).status == 503


async def test_only_the_exact_value_detaches() -> None:
    agent = ScriptedAgent()
    await AsgiRequest(headers=[("fn-invoke-type", "Detached")]).body().run(app_of(agent))
    assert agent.submitted[0].model.type == "sync"


@pytest.mark.parametrize(
    ("given_id", "kept"),
    [("req-7", True), (None, False), ("", False), ("a b", False), ("ä", False), ("x" * 129, False)],
)
async def test_request_id_is_taken_from_the_configured_header(
    given_id: str | None, kept: bool
) -> None:
    agent = ScriptedAgent()
    headers = [] if given_id is None else [("x-rid", given_id)]
    await AsgiRequest(headers=headers).body().run(app_of(agent, NodeConfig(rid_header="X-Rid")))
    request_id = agent.submitted[0].request_id
    assert (request_id == given_id) if kept else len(request_id) == 26


async def test_response_is_passed_on_before_the_request_is_complete() -> None:
    agent = ScriptedAgent()
    request = AsgiRequest(headers=[("transfer-encoding", "chunked")])
    request.body(b"one", more=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(request.run, app_of(agent))
        await request.wait_body(b"one")
        request.body(b"two", more=True)
        await request.wait_body(b"onetwo")
        assert not request.complete
        request.body()
    assert request.complete


async def test_head_is_held_back_until_the_first_byte() -> None:
    go_on = trio.Event()

    async def handler(call: PendingCall) -> None:
        await call.writer.start(200, [("X-A", "1")])
        await go_on.wait()
        await call.writer.write(b"x")

    request = AsgiRequest().body()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(request.run, app_of(ScriptedAgent(handler)))
        await trio.testing.wait_all_tasks_blocked()
        assert request.sent == []
        go_on.set()
    assert request.content == b"x"


async def test_the_end_of_a_known_length_is_held_back_until_the_call_has_ended() -> None:
    """A client that has its whole response and leaves would look like one that cancels."""
    go_on = trio.Event()

    async def handler(call: PendingCall) -> None:
        await call.writer.start(200, [("Content-Length", "6")])
        await call.writer.write(b"abc")
        await call.writer.write(b"def")
        await go_on.wait()

    request = AsgiRequest().body()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(request.run, app_of(ScriptedAgent(handler)))
        await trio.testing.wait_all_tasks_blocked()
        assert request.content == b"abc"
        go_on.set()
    assert request.content == b"abcdef"
    assert request.complete


async def test_a_failure_after_a_whole_small_response_is_still_a_clean_error() -> None:
    async def handler(call: PendingCall) -> None:
        await call.writer.start(200, [("Content-Length", "3"), ("X-A", "1")])
        await call.writer.write(b"abc")
        raise FunctionResponseTooBig

    request = await AsgiRequest().body().run(app_of(ScriptedAgent(handler)))
    assert request.status == 502
    assert "x-a" not in request.headers
    assert b"function response body too large" in request.content


async def test_a_function_that_does_not_read_stops_the_client() -> None:
    go_on = trio.Event()

    async def handler(call: PendingCall) -> None:
        await go_on.wait()
        await echo(call)

    request = AsgiRequest(headers=[("content-length", str(100 * 16384))])
    for _ in range(100):
        request.body(b"x" * 16384, more=True)
    request.body()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(request.run, app_of(ScriptedAgent(handler)))
        await trio.testing.wait_all_tasks_blocked()
        assert request.received * 16384 == READ_AHEAD
        go_on.set()
    assert len(request.content) == 100 * 16384
