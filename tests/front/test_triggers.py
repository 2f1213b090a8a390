"""``/t/{app}/{source}``: header rewriting both ways, statuses, look-up."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import trio
from prometheus_client import CollectorRegistry, generate_latest

from hostler.calls import PendingCall
from hostler.config import NodeConfig
from hostler.errors import APIError, CallTimeout, FunctionFailed, ServerBusy
from hostler.front import invoke_app
from tests.conftest import Logs

from ._agent import TABLE, Handler, ScriptedAgent, echo
from ._asgi_client import AsgiRequest, Pairs
from ._handlers import app_with_triggers

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def answering(*headers: tuple[str, str], body: bytes = b"") -> Handler:
    async def handler(call: PendingCall) -> None:
        await call.writer.start(200, headers)
        await call.writer.write(body)

    return handler


async def ask(
    handler: Handler = echo,
    path: str = "/t/app/",
    method: str = "GET",
    headers: Pairs | None = None,
) -> tuple[AsgiRequest, ScriptedAgent]:
    agent = ScriptedAgent(handler)
    request = AsgiRequest(path, method=method, headers=headers)
    await request.body().run(app_with_triggers(agent))
    return request, agent


def pairs_of(request: AsgiRequest) -> list[tuple[str, str]]:
    return [(name.decode(), value.decode()) for name, value in request.sent[0]["headers"]]


# --- the request -----------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"])
async def test_any_method_reaches_the_function(method: str) -> None:
    answer, agent = await ask(method=method)
    assert answer.status == 200
    assert agent.submitted[0].model.headers["Fn-Http-Method"] == [method]
    assert agent.submitted[0].model.method == method


async def test_the_clients_headers_are_prefixed_and_the_requests_own_are_told() -> None:
    agent = ScriptedAgent()
    request = AsgiRequest(
        "/t/app",
        method="POST",
        headers=[
            ("host", "lb.example:8080"),
            ("content-length", "2"),
            ("content-type", "a/b"),
            ("test-header", "1"),
            ("test-header", "2"),
            ("keep-alive", "300"),
            ("connection", "x-mine"),
            ("x-mine", "1"),
            ("traceparent", TRACE),
            ("tracestate", "a=1"),
        ],
        query="q=1&r",
    )
    await request.body(b"hi").run(app_with_triggers(agent))
    model = agent.submitted[0].model
    assert model.headers == {
        "Content-Type": ["a/b"],
        "Fn-Http-H-Content-Length": ["2"],
        "Fn-Http-H-Test-Header": ["1", "2"],
        "Fn-Http-H-Traceparent": [TRACE],
        "Fn-Http-H-Tracestate": ["a=1"],
        "Fn-Http-Method": ["POST"],
        "Fn-Http-Request-Url": ["http://lb.example:8080/t/app?q=1&r"],
        "Fn-Intent": ["httprequest"],
        "Traceparent": [TRACE],
        "Tracestate": ["a=1"],
    }
    assert model.url == "http://lb.example:8080/t/app?q=1&r"
    assert (model.trigger_id, model.fn_id, model.app_id, model.type) == (
        "t1",
        "fn1",
        "app1",
        "sync",
    )
    assert request.content == b"hi"


async def test_a_client_can_neither_detach_nor_forge() -> None:
    forged = [
        ("fn-invoke-type", "detached"),
        ("fn-intent", "forged"),
        ("fn-http-method", "FORGED"),
        ("fn-http-request-url", "forged"),
        ("fn-call-id", "forged"),
        ("fn-deadline", "forged"),
        ("fn-http-h-x", "twice"),
    ]
    answer, agent = await ask(headers=forged)
    model = agent.submitted[0].model
    assert (answer.status, model.type) == (200, "sync")
    assert model.headers["Fn-Intent"] == ["httprequest"]
    assert model.headers["Fn-Http-Method"] == ["GET"]
    assert model.headers["Fn-Http-Request-Url"] == ["/t/app/"]
    assert not {"Fn-Call-Id", "Fn-Deadline", "Fn-Invoke-Type"} & set(model.headers)
    assert model.headers["Fn-Http-H-Fn-Intent"] == ["forged"]
    assert model.headers["Fn-Http-H-Fn-Http-H-X"] == ["twice"]


# --- look-up ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "trigger"),
    [("/t/app", "t1"), ("/t/app/", "t1"), ("/t/app/a b/ü", "t2"), ("/t/app/s/", "t3")],
)
async def test_the_source_is_the_rest_of_the_path(path: str, trigger: str) -> None:
    answer, agent = await ask(path=path)
    assert answer.status == 200
    assert agent.submitted[0].model.trigger_id == trigger


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/t/other/a", "App not found"),
        ("/t/App/", "App not found"),
        ("/t/app/unknown", "Trigger not found"),
        ("/t/app/a b/ü/", "Trigger not found"),
        ("/t/app/s", "Trigger not found"),
        ("/t/app//", "Trigger not found"),
        ("/t/app/a b", "Trigger not found"),
        ("/t/", "Path not found: {method} /t/"),
        ("/t", "Path not found: {method} /t"),
        ("/t//a", "Path not found: {method} /t//a"),
    ],
)
async def test_weakness_05_5_what_is_not_there_is_404(method: str, path: str, text: str) -> None:
    answer, agent = await ask(path=path, method=method)
    assert (answer.status, agent.submitted) == (404, [])
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert json.loads(answer.content) == {"message": text.format(method=method)}


async def test_a_node_without_triggers_has_no_such_path() -> None:
    answer = (
        await AsgiRequest("/t/app/", method="GET").body().run(invoke_app(ScriptedAgent(), TABLE))
    )
    assert answer.status == 404


async def test_a_source_may_fail_in_its_own_way() -> None:
    class Down:
        async def find_trigger(self, app_name: str, source: str) -> Any:
            raise APIError(503, f"cannot look up {app_name} {source}")

    app = invoke_app(ScriptedAgent(), TABLE, triggers=Down())
    answer = await AsgiRequest("/t/a/b", method="GET").body().run(app)
    assert (answer.status, json.loads(answer.content)["message"]) == (503, "cannot look up a /b")


# --- the response ----------------------------------------------------------------------------


async def test_the_functions_headers_lose_their_prefix_and_others_are_dropped() -> None:
    answer, agent = await ask(
        answering(
            ("Fn-Http-H-Return-Header", "one"),
            ("fn-http-h-return-header", "two"),
            ("Fn-Http-H-Set-Cookie", "a=1"),
            ("Fn-Http-H-", "nameless"),
            ("Fn-Http-H-Connection", "close"),
            ("Fn-Http-H-Transfer-Encoding", "chunked"),
            ("Fn-Http-H-Fn-Call-Id", "forged"),
            ("Content-Type", "text/plain"),
            ("Content-Length", "2"),
            ("Fn-Fdk-Version", "x"),
            ("Date", "gone"),
            ("X-Gone", "1"),
            body=b"ok",
        )
    )
    assert sorted(pairs_of(answer)) == [
        ("content-length", "2"),
        ("content-type", "text/plain"),
        ("fn-call-id", agent.submitted[0].model.id),
        ("return-header", "one"),
        ("return-header", "two"),
        ("set-cookie", "a=1"),
    ]
    assert answer.content == b"ok"


async def test_the_functions_own_content_type_wins() -> None:
    answer, _ = await ask(
        answering(("Content-Type", "kit/kit"), ("Fn-Http-H-Content-Type", "own/own"))
    )
    assert [value for name, value in pairs_of(answer) if name == "content-type"] == ["own/own"]


@pytest.mark.parametrize(
    ("told", "status"),
    [
        ("202", 202),
        ("404", 404),
        ("503", 503),
        ("+201", 201),
        ("299", 299),
        ("999", 999),
        ("0", 200),
        ("-1", 200),
        ("", 200),
        ("teapot", 200),
        ("2_0_2", 200),
        ("202.0", 200),
    ],
)
async def test_the_functions_status_is_the_clients(told: str, status: int) -> None:
    answer, _ = await ask(answering(("Fn-Http-Status", told), body=b"x"))
    assert (answer.status, answer.content) == (status, b"x")


@pytest.mark.parametrize("told", ["1", "99", "100", "101", "199", "1000", "9" * 18])
async def test_weakness_05_3_a_status_that_no_response_can_have_is_502(told: str) -> None:
    answer, _ = await ask(answering(("Fn-Http-Status", told), ("Fn-Http-H-X", "1"), body=b"x"))
    assert answer.status == 502
    assert json.loads(answer.content) == {"message": "invalid function response"}
    assert "x" not in answer.headers


async def test_invoke_passes_a_status_on_as_a_header_only() -> None:
    agent = ScriptedAgent(answering(("Fn-Http-Status", "1"), ("Fn-Http-H-X", "y")))
    answer = await AsgiRequest().body().run(app_with_triggers(agent))
    assert answer.status == 200
    assert (answer.headers["fn-http-status"], answer.headers["fn-http-h-x"]) == ("1", "y")


async def test_a_redirect_is_the_clients_to_follow() -> None:
    answer, _ = await ask(
        answering(("Fn-Http-Status", "302"), ("Fn-Http-H-Location", "https://x.example/y?z"))
    )
    assert (answer.status, answer.headers["location"]) == (302, "https://x.example/y?z")


@pytest.mark.parametrize("status", [204, 304])
async def test_a_status_without_a_body_has_none(status: int) -> None:
    answer, _ = await ask(
        answering(("Fn-Http-Status", str(status)), ("Content-Length", "3"), body=b"abc")
    )
    assert (answer.status, answer.content, answer.complete) == (status, b"", True)
    assert "content-length" not in answer.headers


async def test_head_tells_the_length_of_what_get_would_give() -> None:
    answer, _ = await ask(
        answering(("Fn-Http-H-Content-Length", "1000"), ("Content-Length", "0")), method="HEAD"
    )
    assert (answer.status, answer.headers["content-length"]) == (200, "1000")
    assert (answer.content, answer.complete) == (b"", True)


@pytest.mark.parametrize(("own", "status"), [("2", 200), ("3", 502), ("x", 502)])
async def test_a_length_of_the_functions_own_has_to_be_true(own: str, status: int) -> None:
    handler = answering(("Fn-Http-H-Content-Length", own), ("Content-Length", "2"), body=b"ab")
    answer, _ = await ask(handler)
    assert answer.status == status
    assert answer.headers["content-length"] == str(len(answer.content))


@pytest.mark.parametrize(
    "error", [CallTimeout(), FunctionFailed(), ServerBusy(), APIError(418, "teapot")]
)
async def test_weakness_05_4_a_triggers_error_has_none_of_the_functions_headers(
    error: APIError,
) -> None:
    async def handler(call: PendingCall) -> None:
        await call.writer.start(
            200, [("Fn-Http-Status", "202"), ("Fn-Http-H-X", "1"), ("Content-Length", "9")]
        )
        raise error

    answer, agent = await ask(handler)
    assert answer.status == error.code
    assert json.loads(answer.content) == {"message": error.message}
    assert answer.headers["fn-call-id"] == agent.submitted[0].model.id
    assert "x" not in answer.headers
    assert answer.headers["content-length"] == str(len(answer.content))


async def test_bodies_stream_both_ways() -> None:
    agent = ScriptedAgent()
    request = AsgiRequest("/t/app/", method="POST", headers=[("transfer-encoding", "chunked")])
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(request.run, app_with_triggers(agent))
            for sofar in (b"a", b"ab", b"abc"):
                request.body(sofar[-1:], more=True)
                await request.wait_body(sofar)
            request.body()
    assert request.complete


async def test_a_client_that_leaves_cancels_the_triggers_call(logs: Logs) -> None:
    async def forever(call: PendingCall) -> None:
        await trio.sleep_forever()

    agent = ScriptedAgent(forever)
    request = AsgiRequest("/t/app/", method="GET").body()
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(request.run, app_with_triggers(agent))
            await agent.entered.wait()
            request.disconnect()
    assert agent.record == ["cancelled"]
    (line,) = logs.with_event("client cancelled")
    assert (line["fn_id"], line["call_id"]) == ("fn1", agent.submitted[0].model.id)


async def test_a_body_over_the_limit_is_413() -> None:
    app = app_with_triggers(ScriptedAgent(), config=NodeConfig(max_request_size=3))
    for request in (
        AsgiRequest("/t/app/", method="PUT", headers=[("content-length", "4")]).body(b"abcd"),
        AsgiRequest("/t/app/", method="PUT", headers=[("transfer-encoding", "chunked")]).body(
            b"abcd"
        ),
    ):
        assert (await request.run(app)).status == 413


async def test_metrics_know_the_route_and_the_clients_status() -> None:
    registry = CollectorRegistry()
    agent = ScriptedAgent(answering(("Fn-Http-Status", "202"), ("Fn-Fdk-Version", "py/1")))
    app = app_with_triggers(agent, registry=registry)
    await AsgiRequest("/t/app/", method="GET").body().run(app)
    labels = {
        "path": "/t/:app_name/*trigger_source",
        "method": "GET",
        "status": "202",
        "blame": "user",
        "fn_fdk_version": "py/1",
    }
    assert registry.get_sample_value("fn_api_response_count", labels) == 1


async def test_functions_cannot_make_metrics_grow_by_inventing_versions() -> None:
    registry = CollectorRegistry()
    agent = ScriptedAgent(answering())
    app = app_with_triggers(agent, registry=registry)
    for number in range(150):
        agent.handler = answering(("Fn-Fdk-Version", f"v/{number}"))
        await AsgiRequest("/t/app/", method="GET").body().run(app)
    text = generate_latest(registry).decode()
    versions = set(re.findall(r'fn_api_response_count\{.*fn_fdk_version="([^"]*)"', text))
    assert "other" in versions
    assert len(versions) == 100


async def test_clients_cannot_make_metrics_grow_by_inventing_methods() -> None:
    registry = CollectorRegistry()
    app = app_with_triggers(ScriptedAgent(answering()), registry=registry)
    for number in range(50):
        await AsgiRequest("/t/app/", method=f"M{number}").body().run(app)
    labels = {"path": "/t/:app_name/*trigger_source", "method": "other"}
    assert registry.get_sample_value("fn_api_request_count", labels) == 50
    answered = {**labels, "status": "200", "blame": "user", "fn_fdk_version": ""}
    assert registry.get_sample_value("fn_api_latency_count", answered) == 50
    assert b"M7" not in generate_latest(registry)
