"""``POST /invoke/{fn_id}`` where a call, a function or a client's header is wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from hostler._asgi.replies import error_document
from hostler.abc import CallRequest
from hostler.calls import PendingCall
from hostler.errors import (
    APIError,
    CallTimeout,
    ClientCancelled,
    FunctionResponseTooBig,
    ServerBusy,
)
from hostler.front import invoke_app
from hostler.models import App, Call, Fn
from tests.conftest import Logs

from ._agent import ScriptedAgent
from ._asgi_client import AsgiRequest
from ._handlers import answering, app_of, error_of, raising, raising_nothing


async def test_api_error_has_its_code_its_text_and_the_call_id() -> None:
    agent = ScriptedAgent(raising(CallTimeout()))
    request = await AsgiRequest().body().run(app_of(agent))
    assert request.status == 504
    assert error_of(request) == "Timed out"
    assert request.headers["fn-call-id"] == agent.submitted[0].model.id
    assert "retry-after" not in request.headers


async def test_only_server_busy_says_when_to_come_back() -> None:
    busy = await AsgiRequest().body().run(app_of(ScriptedAgent(raising(ServerBusy()))))
    assert (busy.status, busy.headers["retry-after"]) == (503, "15")
    other = await AsgiRequest().body().run(app_of(ScriptedAgent(raising(APIError(503, "no")))))
    assert other.status == 503
    assert "retry-after" not in other.headers


async def test_a_busy_agents_own_advice_is_rounded_up() -> None:
    agent = ScriptedAgent(raising(ServerBusy.after(3.2)))
    assert (await AsgiRequest().body().run(app_of(agent))).headers["retry-after"] == "4"
    agent = ScriptedAgent(raising(ServerBusy.after(0.01)))
    assert (await AsgiRequest().body().run(app_of(agent))).headers["retry-after"] == "1"


@pytest.mark.parametrize(("text", "seconds"), [("30", 30.0), ("300ms", 0.3), (" 1m30s", 90.0)])
async def test_the_clients_patience_is_the_calls_deadline(
    autojump_clock: trio.testing.MockClock, text: str, seconds: float
) -> None:
    agent = ScriptedAgent()
    await AsgiRequest(headers=[("Fn-Request-Timeout", text)]).body().run(app_of(agent))
    (call,) = agent.submitted
    assert call.deadline == pytest.approx(trio.current_time() + seconds)
    await AsgiRequest().body().run(app_of(agent))
    assert agent.submitted[1].deadline == float("inf")


@pytest.mark.parametrize("text", ["", "soon", "-1", "1 s"])
async def test_a_patience_that_is_no_time_is_400(text: str) -> None:
    request = AsgiRequest(headers=[("Fn-Request-Timeout", text)]).body()
    await request.run(app_of(ScriptedAgent()))
    assert request.status == 400
    assert error_of(request).startswith("invalid Fn-Request-Timeout")


async def test_internal_error_is_a_bare_500_and_logged_once(logs: Logs) -> None:
    agent = ScriptedAgent(raising(RuntimeError("secret detail")))
    request = await AsgiRequest().body().run(app_of(agent))
    assert request.status == 500
    assert error_of(request) == "internal server error"
    entry = logs.expect_error("internal error")
    assert entry["call_id"] == agent.submitted[0].model.id
    assert isinstance(entry["exc_info"], RuntimeError)


@pytest.mark.parametrize(("code", "shown"), [(0, 500), (200, 500), (999, 500), (302, 302)])
async def test_codes_that_are_no_errors_become_500(code: int, shown: int) -> None:
    agent = ScriptedAgent(raising(APIError(code, "text")))
    request = await AsgiRequest().body().run(app_of(agent))
    assert request.status == shown


async def test_weakness_05_4_error_after_the_head_has_none_of_the_functions_headers() -> None:
    async def handler(call: PendingCall) -> None:
        await call.writer.start(200, [("X-Leak", "1"), ("Content-Length", "40000")])
        raise FunctionResponseTooBig()

    request = await AsgiRequest().body().run(app_of(ScriptedAgent(handler)))
    assert request.status == 502
    assert error_of(request) == "function response body too large"
    assert "x-leak" not in request.headers


async def test_error_after_the_first_byte_leaves_the_response_incomplete(logs: Logs) -> None:
    async def handler(call: PendingCall) -> None:
        await call.writer.start(200, [])
        await call.writer.write(b"part")
        raise FunctionResponseTooBig()

    request = await AsgiRequest().body().run(app_of(ScriptedAgent(handler)))
    assert request.content == b"part"
    assert not request.complete
    assert logs.with_event("response broken off")[0]["status"] == 502


async def test_response_shorter_than_its_length_is_broken_off() -> None:
    agent = ScriptedAgent(answering(b"abc", headers=[("Content-Length", "10")]))
    request = await AsgiRequest().body().run(app_of(agent))
    assert not request.complete


async def test_empty_response_that_promised_bytes_is_an_error() -> None:
    agent = ScriptedAgent(answering(headers=[("Content-Length", "10")]))
    request = await AsgiRequest().body().run(app_of(agent))
    assert request.status == 502
    assert error_of(request) == "error receiving function response"


async def test_response_longer_than_its_length_is_an_error() -> None:
    agent = ScriptedAgent(answering(b"abc", headers=[("Content-Length", "2")]))
    request = await AsgiRequest().body().run(app_of(agent))
    assert request.status == 502


@pytest.mark.parametrize(
    "headers",
    [
        [("X-A", "one\r\nX-B: two")],
        [("X A", "1")],
        [("X-A", "\x00")],
        [("Content-Length", "-1")],
        [("Content-Length", "1"), ("Content-Length", "2")],
    ],
)
async def test_headers_that_would_split_the_response_are_refused(
    headers: list[tuple[str, str]],
) -> None:
    request = await AsgiRequest().body().run(app_of(ScriptedAgent(answering(headers=headers))))
    assert request.status == 502
    assert error_of(request) == "invalid function response"


async def test_call_without_a_response_is_internal(logs: Logs) -> None:
    request = await AsgiRequest().body().run(app_of(ScriptedAgent(raising_nothing)))
    assert request.status == 500
    logs.expect_error("internal error")


async def test_unknown_function_is_404_without_a_call_id() -> None:
    agent = ScriptedAgent()
    request = await AsgiRequest("/invoke/nothing").body().run(app_of(agent))
    assert request.status == 404
    assert error_of(request) == "Fn not found"
    assert "fn-call-id" not in request.headers
    assert agent.submitted == []


@pytest.mark.parametrize(("error", "status"), [(APIError(418, "no tea"), 418), (ValueError(), 500)])
async def test_overriders_error_ends_the_call(error: Exception, status: int, logs: Logs) -> None:
    def overrider(
        request: CallRequest, model: Call, extensions: Mapping[str, str]
    ) -> Mapping[str, str]:
        raise error

    agent = ScriptedAgent(overrider=overrider)
    request = await AsgiRequest().body().run(app_of(agent))
    assert request.status == status
    assert agent.submitted == []
    if status == 500:  # once
        logs.expect_error("call overrider failed")


async def test_function_source_may_fail_in_its_own_way() -> None:
    class Source:
        async def find(self, fn_id: str) -> tuple[App, Fn]:
            await trio.lowlevel.checkpoint()
            raise APIError(429, f"too often: {fn_id}")

    request = await AsgiRequest().body().run(invoke_app(ScriptedAgent(), Source()))
    assert request.status == 429
    assert error_of(request) == "too often: fn1"


async def test_client_cancelled_has_no_body() -> None:
    request = await AsgiRequest().body().run(app_of(ScriptedAgent(raising(ClientCancelled()))))
    assert (request.status, request.content, request.complete) == (444, b"", True)


@given(st.text())
def test_error_document_is_json_for_any_text(text: str) -> None:
    document = error_document(text)
    assert not set(b"<>&") & set(document)
    assert json.loads(document) == {
        "message": "".join("\ufffd" if 0xD800 <= ord(char) < 0xE000 else char for char in text)
    }


def test_error_document_is_escaped_as_go_does() -> None:
    assert error_document('a<b> & "c"\u2028\n') == (
        b'{"message":"a\\u003cb\\u003e \\u0026 \\"c\\"\\u2028\\n"}\n'
    )
