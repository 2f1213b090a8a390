"""Chains of middleware, in the API and around a whole node."""

from __future__ import annotations

from typing import Any

import pytest
import structlog
import trio
from structlog.contextvars import get_contextvars, merge_contextvars

from hostler.api import Middleware, api_app, json_reply, with_middleware
from hostler.config import NodeConfig
from hostler.errors import APIError
from hostler.front import ASGIApp, node_app
from tests.conftest import Logs
from tests.front._asgi_client import AsgiRequest
from tests.tracing.recorder import TRACE

from ._client import NO_STORE, Client


class Recorder:
    """Middleware that tells when it was passed, in both directions."""

    def __init__(self) -> None:
        self.record: list[str] = []

    def named(self, name: str) -> Middleware:
        def wrap(app: ASGIApp) -> ASGIApp:
            async def wrapped(scope: Any, receive: Any, send: Any) -> None:
                self.record.append(f"{name} in")
                await app(scope, receive, send)
                self.record.append(f"{name} out")

            return wrapped

        return wrap


def raising(error: Exception) -> Middleware:
    def wrap(_app: ASGIApp) -> ASGIApp:
        async def wrapped(_scope: Any, _receive: Any, _send: Any) -> None:
            await trio.lowlevel.checkpoint()
            raise error

        return wrapped

    return wrap


def answering(_app: ASGIApp) -> ASGIApp:
    async def wrapped(_scope: Any, _receive: Any, send: Any) -> None:
        await json_reply("mine", 202).send(send)

    return wrapped


async def test_the_first_sees_a_request_first_and_the_answer_last() -> None:
    recorder = Recorder()
    chain = [recorder.named("a"), recorder.named("b")]
    answer = await Client(api_app(NO_STORE, middleware=chain)).get("/v2/fns/f/calls")
    assert answer.status == 410
    assert recorder.record == ["a in", "b in", "b out", "a out"]


async def test_one_may_answer_itself() -> None:
    recorder = Recorder()
    chain = [answering, recorder.named("behind")]
    answer = await Client(api_app(NO_STORE, middleware=chain)).get("/v2/apps")
    assert (answer.status, answer.json, recorder.record) == (202, "mine", [])


async def test_one_may_change_the_request_and_replace_its_body() -> None:
    def wrap(app: ASGIApp) -> ASGIApp:
        async def wrapped(scope: Any, receive: Any, send: Any) -> None:
            assert (await receive())["body"] == b"sent"

            async def replaced() -> Any:
                await trio.lowlevel.checkpoint()
                return {"type": "http.request", "body": b"{", "more_body": False}

            await app({**scope, "path": "/v2/apps"}, replaced, send)

        return wrapped

    answer = await Client(api_app(NO_STORE, middleware=[wrap])).post("/v2/other", b"sent")
    assert answer.fails(400, "Invalid JSON")


async def test_a_fault_is_a_500_that_tells_nothing(logs: Logs) -> None:
    chain = [raising(RuntimeError("secret"))]
    answer = await Client(api_app(NO_STORE, middleware=chain)).get("/v2/apps")
    assert answer.fails(500, "internal server error")
    assert logs.expect_error("request failed")["path"] == "/v2/apps"


async def test_an_api_error_is_the_answer() -> None:
    chain = [raising(APIError(401, "Who are you?"))]
    answer = await Client(api_app(NO_STORE, middleware=chain)).get("/v2/apps")
    assert answer.fails(401, "Who are you?")


async def test_root_middleware_is_around_everything_that_a_node_has() -> None:
    recorder = Recorder()
    client = Client(with_middleware(node_app(), [recorder.named("root")]))
    assert (await client.get("/version")).status == 200
    assert (await client.get("/nowhere")).status == 404
    assert recorder.record == ["root in", "root out"] * 2


async def test_an_answer_that_has_begun_is_broken_off(logs: Logs) -> None:
    async def late(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise RuntimeError("late")

    request = await AsgiRequest("/x").run(with_middleware(late, []))
    assert (request.content, request.complete) == (b"half", False)
    logs.expect_error("request failed")
    assert logs.with_event("answer broken off")


async def test_a_client_that_has_gone_is_the_servers_business() -> None:
    request = AsgiRequest("/v2/fns/f/calls", method="GET").body()
    request.send_error = OSError("gone")
    with pytest.raises(OSError, match="gone"):
        await request.run(api_app(NO_STORE))


@pytest.mark.parametrize(
    ("headers", "labels"),
    [
        ([("x-rid", "r1"), ("traceparent", TRACE)], {"request_id": "r1", "trace_id": TRACE[3:35]}),
        ([("x-rid", "r1"), ("traceparent", "nonsense")], {"request_id": "r1"}),
    ],
)
async def test_what_is_logged_for_a_request_names_it(
    logs: Logs, headers: list[tuple[str, str]], labels: dict[str, str]
) -> None:
    processors = [merge_contextvars, *structlog.get_config()["processors"]]
    structlog.configure(processors=processors)
    config = NodeConfig(rid_header="X-Rid")
    app = api_app(NO_STORE, config=config, middleware=[raising(ValueError())])
    request = await AsgiRequest("/v2/apps", method="GET", headers=headers).run(app)
    assert request.status == 500
    line = logs.expect_error("request failed")
    assert {name: line[name] for name in ("request_id", "trace_id") if name in line} == labels
    assert get_contextvars() == {}


async def test_a_request_without_a_name_gets_one_if_names_are_on(logs: Logs) -> None:
    seen: list[dict[str, Any]] = []

    def noting(_app: ASGIApp) -> ASGIApp:
        async def noted(_scope: Any, _receive: Any, send: Any) -> None:
            seen.append(get_contextvars())
            await json_reply("").send(send)

        return noted

    for rid_header in ("", "X-Rid"):
        config = NodeConfig(rid_header=rid_header)
        app = api_app(NO_STORE, config=config, middleware=[noting])
        await AsgiRequest("/v2/apps", method="GET").run(app)
    assert seen[0] == {}
    assert len(seen[1].pop("request_id")) == 26
    assert seen[1] == {}
