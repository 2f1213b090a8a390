"""`hostler.respond`: an ASGI handler of a program answers a request with a function."""

from __future__ import annotations

import pytest
import trio

from hostler import App, Fn, respond
from hostler.errors import ConfigError, HostlerError, RunnerFailed
from hostler.front import ASGIApp
from tests.conftest import Logs

from ._agent import ScriptedAgent, echo, hang
from ._asgi_client import AsgiRequest
from ._handlers import error_of, raising

APP = App(id="app1", name="app")
FN = Fn(id="fn1", name="fn", app_id="app1", image="fn")


def handler_of(agent: ScriptedAgent, *, detached: bool = False) -> ASGIApp:
    async def handler(scope, receive, send):  # type: ignore[no-untyped-def]
        await respond(agent, APP, FN, scope, receive, send, detached=detached)

    return handler


async def test_the_function_gets_the_request_and_the_client_its_response() -> None:
    agent = ScriptedAgent(echo)
    request = AsgiRequest("/orders/7", method="PUT", headers=[("x-a", "1")], query="q=1")
    await request.body(b"Ada").run(handler_of(agent))
    assert (request.status, request.content) == (200, b"Ada")
    model = agent.submitted[0].model
    assert (model.method, model.fn_id, model.type) == ("PUT", "fn1", "sync")
    assert model.url.endswith("/orders/7?q=1")
    assert request.headers["fn-call-id"] == model.id


async def test_a_client_that_leaves_ends_the_call() -> None:
    agent = ScriptedAgent(hang)
    request = AsgiRequest(headers=[("transfer-encoding", "chunked")]).body(b"x", more=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(request.run, handler_of(agent))
        await agent.entered.wait()
        request.disconnect()
    assert agent.record == ["cancelled"]


async def test_a_client_can_not_detach_the_call_but_the_program_can() -> None:
    agent = ScriptedAgent(echo)
    request = AsgiRequest(headers=[("fn-invoke-type", "detached")]).body(b"")
    await request.run(handler_of(agent))
    assert (request.status, agent.submitted[0].model.type) == (200, "sync")
    request = AsgiRequest().body(b"")
    await request.run(handler_of(agent, detached=True))
    assert (request.status, agent.submitted[1].model.type) == (202, "detached")


async def test_a_failed_runner_is_a_bare_500_that_is_logged_with_its_cause(logs: Logs) -> None:
    failure = RunnerFailed()
    failure.__cause__ = HostlerError("the stream broke at 10.0.0.7")
    request = AsgiRequest().body(b"")
    await request.run(handler_of(ScriptedAgent(raising(failure))))
    assert (request.status, error_of(request)) == (500, "internal server error")
    entry = logs.expect_error("internal error in a call")
    assert entry["exc_info"] is failure


async def test_what_is_no_request_and_no_function_is_refused() -> None:
    request = AsgiRequest()
    request.scope["type"] = "websocket"
    with pytest.raises(HostlerError, match="respond: takes an HTTP request, not 'websocket'"):
        await request.run(handler_of(ScriptedAgent()))
    with pytest.raises(ConfigError, match="respond: fn: takes a Fn, not the text"):
        await respond(ScriptedAgent(), APP, "fn1", {}, None, None)  # type: ignore[arg-type]
