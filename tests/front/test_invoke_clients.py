"""``POST /invoke/{fn_id}`` with bodies over the limit and clients that are slow or leave."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from hostler._asgi.types import as_extension
from hostler.bodies import BodyBudget
from hostler.calls import PendingCall
from hostler.config import BodyConfig, NodeConfig
from hostler.errors import (
    APIError,
    HostlerError,
    ServerBusy,
)
from hostler.front import invoke_app
from tests.conftest import Logs

from ._agent import TABLE, ScriptedAgent, echo, hang
from ._asgi_client import AsgiRequest
from ._handlers import app_of, error_of, raising
from ._own_server import FakeServer

LIMIT = NodeConfig(max_request_size=100)


async def test_declared_length_over_the_limit_is_413_before_anything_is_read() -> None:
    agent = ScriptedAgent()
    request = AsgiRequest(headers=[("content-length", "101")])
    await request.run(app_of(agent, LIMIT))
    assert request.status == 413
    assert error_of(request) == "Content-Length too large for this server, 101 > max 100"
    assert agent.submitted == []


async def test_body_of_exactly_the_limit_passes() -> None:
    request = AsgiRequest(headers=[("content-length", "100")]).body(b"x" * 100)
    assert (await request.run(app_of(ScriptedAgent(), LIMIT))).status == 200


async def test_weakness_05_6_chunked_body_over_the_limit_is_413() -> None:
    async def handler(call: PendingCall) -> None:
        stream = call.body.open()
        try:
            while await stream.receive_some():
                pass
        except APIError as error:  # what an agent may make of a body that fails
            raise HostlerError("reading the body failed") from error

    agent = ScriptedAgent(handler)
    request = AsgiRequest(headers=[("transfer-encoding", "chunked")])
    request.body(b"x" * 60, more=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(request.run, app_of(agent, LIMIT))
        await agent.entered.wait()
        request.body(b"x" * 60, more=True)
    assert request.status == 413
    assert error_of(request) == "Request content too large"
    assert agent.record == ["HostlerError"]


async def test_chunked_body_over_the_limit_in_its_first_piece_makes_no_call() -> None:
    agent = ScriptedAgent()
    request = AsgiRequest(headers=[("transfer-encoding", "chunked")]).body(b"x" * 101, more=True)
    await request.run(app_of(agent, LIMIT))
    assert request.status == 413
    assert agent.submitted == []


async def test_body_that_is_too_slow_is_408(autojump_clock: trio.testing.MockClock) -> None:
    request = AsgiRequest(headers=[("content-length", "9")]).body(b"x", more=True)
    await request.run(app_of(ScriptedAgent(), NodeConfig(request_body_read_timeout=5)))
    assert request.status == 408
    assert error_of(request) == "Request body read timed out"
    assert trio.current_time() >= 5


async def test_slow_call_is_not_a_slow_body(autojump_clock: trio.testing.MockClock) -> None:
    async def handler(call: PendingCall) -> None:
        await trio.sleep(50)
        await echo(call)

    request = AsgiRequest(headers=[("content-length", "1")]).body(b"x")
    config = NodeConfig(request_body_read_timeout=5)
    assert (await request.run(app_of(ScriptedAgent(handler), config))).status == 200


@pytest.mark.parametrize("body", ["complete", "missing"])
async def test_disconnect_cancels_the_call(body: str, logs: Logs) -> None:
    agent = ScriptedAgent(hang)
    request = AsgiRequest(headers=[("transfer-encoding", "chunked")])
    request.body(b"x", more=body == "missing")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(request.run, app_of(agent))
        await agent.entered.wait()
        request.disconnect()
    assert agent.record == ["cancelled"]
    assert request.sent == []
    entry = logs.with_event("client cancelled")[0]
    assert (entry["status"], entry["call_id"]) == (444, agent.submitted[0].model.id)


async def test_a_client_that_leaves_with_the_whole_answer_has_not_cancelled(logs: Logs) -> None:
    """The server tells it in the moment in which the exchange ends, and the rest of the body is
    still awaited."""
    server = FakeServer()

    class Leaving(AsgiRequest):
        async def _send(self, message: Any) -> None:
            await super()._send(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                server.told[0].note_gone()

    async def answer(call: PendingCall) -> None:
        await call.writer.start(200, [("Content-Length", "2")])
        await call.writer.write(b"ok")

    request = Leaving(headers=[("transfer-encoding", "chunked")]).body(b"x", more=True)
    extensions: Any = as_extension(server)
    request.scope["extensions"] = extensions
    await request.run(app_of(ScriptedAgent(answer)))
    assert (request.status, request.content) == (200, b"ok")
    assert not logs.with_event("client cancelled")


async def test_disconnect_before_the_body_is_complete_makes_no_call(logs: Logs) -> None:
    agent = ScriptedAgent()
    request = AsgiRequest(headers=[("content-length", "5")]).body(b"x", more=True)
    request.disconnect()
    await request.run(app_of(agent))
    assert agent.submitted == []
    assert request.sent == []
    assert logs.with_event("client cancelled")[0]["status"] == 444


async def test_client_that_is_gone_while_it_is_sent_the_response(logs: Logs) -> None:
    request = AsgiRequest().body()

    async def handler(call: PendingCall) -> None:
        await call.writer.start(200, [])
        await call.writer.write(b"one")
        request.send_error = ConnectionResetError("gone")
        await call.writer.write(b"two")

    agent = ScriptedAgent(handler)
    await request.run(app_of(agent))
    assert agent.record == ["cancelled"]
    assert logs.with_event("client cancelled")


async def test_function_that_reads_on_never_sees_a_regular_end_of_a_broken_body() -> None:
    ends: list[bytes] = []

    async def handler(call: PendingCall) -> None:
        stream = call.body.open()
        with trio.CancelScope(shield=True):
            while chunk := await stream.receive_some():
                ends.append(bytes(chunk))
        ends.append(b"")

    agent = ScriptedAgent(handler)
    request = AsgiRequest(headers=[("transfer-encoding", "chunked")]).body(b"x", more=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(request.run, app_of(agent))
        await agent.entered.wait()
        request.disconnect()
    assert b"" not in ends
    assert agent.record == ["BodyBroken"]


async def test_cancellation_from_outside_is_passed_on() -> None:
    agent = ScriptedAgent(hang)
    request = AsgiRequest().body()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(request.run, app_of(agent))
        await agent.entered.wait()
        nursery.cancel_scope.cancel()
    assert agent.record == ["cancelled"]
    assert request.sent == []


async def test_an_answer_while_the_body_still_comes_does_not_wait_for_it() -> None:
    agent = ScriptedAgent(raising(ServerBusy()))
    request = AsgiRequest(headers=[("transfer-encoding", "chunked")]).body(b"x", more=True)
    await request.run(app_of(agent))
    assert request.status == 503


async def test_small_body_is_replayable_and_counts_until_its_call_ends() -> None:
    budget = BodyBudget()

    async def handler(call: PendingCall) -> None:
        assert budget.memory == 1
        for _ in range(2):
            assert await call.body.open().receive_some() == b"x"
        await echo(call)

    app = invoke_app(ScriptedAgent(handler), TABLE, bodies=budget)
    request = await AsgiRequest(headers=[("content-length", "1")]).body(b"x").run(app)
    assert (request.content, budget.memory) == (b"x", 0)


@pytest.mark.parametrize("taken", [False, True])
async def test_client_that_leaves_takes_what_was_kept_of_its_body_along(taken: bool) -> None:
    budget = BodyBudget(BodyConfig(body_spill_size=1))
    reading = trio.Event()

    async def handler(call: PendingCall) -> None:
        if taken:
            await call.body.open().receive_some()
        reading.set()
        await trio.sleep_forever()

    app = invoke_app(ScriptedAgent(handler), TABLE, bodies=budget)
    request = AsgiRequest(headers=[("transfer-encoding", "chunked")]).body(b"abc", more=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(request.run, app)
        await reading.wait()
        assert budget.disk == (3 if taken else 0)
        request.disconnect()
    assert (budget.memory, budget.disk) == (0, 0)
