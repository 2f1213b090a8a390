"""``POST /invoke/{fn_id}`` as an ASGI application, without a server."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from hostler._asgi import ON_DISCONNECT, READ_AHEAD, error_document
from hostler.abc import CallRequest
from hostler.bodies import BodyBudget
from hostler.call import PendingCall
from hostler.config import BodyConfig, NodeConfig
from hostler.errors import (
    APIError,
    CallTimeout,
    ClientCancelled,
    FunctionResponseTooBig,
    HostlerError,
    ServerBusy,
)
from hostler.front import ASGIApp, invoke_app
from hostler.models import App, Call, Fn
from tests.conftest import Logs

from ._agent import TABLE, Handler, ScriptedAgent, echo
from ._asgi_client import AsgiRequest


def app_of(agent: ScriptedAgent, config: NodeConfig | None = None) -> ASGIApp:
    return invoke_app(agent, TABLE, config=config)


def error_of(request: AsgiRequest) -> str:
    assert request.headers["content-type"] == "application/json; charset=utf-8"
    assert request.content.endswith(b"}\n")
    assert request.headers["content-length"] == str(len(request.content))
    assert request.complete
    return str(json.loads(request.content)["message"])


def raising(error: Exception) -> Handler:
    async def handler(call: PendingCall) -> None:
        await trio.lowlevel.checkpoint()
        raise error

    return handler


def answering(*chunks: bytes, headers: list[tuple[str, str]] | None = None) -> Handler:
    async def handler(call: PendingCall) -> None:
        await call.writer.start(200, headers or [])
        for chunk in chunks:
            await call.writer.write(chunk)

    return handler


def without_trace(headers: Mapping[str, list[str]]) -> dict[str, list[str]]:
    return {name: values for name, values in headers.items() if name != "Traceparent"}


# --- success ---------------------------------------------------------------------------------


async def test_echo_with_the_functions_headers_and_the_call_id() -> None:
    agent = ScriptedAgent()
    request = AsgiRequest(headers=[("content-length", "5")]).body(b"hello")
    await request.run(app_of(agent))
    assert request.status == 200
    assert request.content == b"hello"
    assert request.complete
    assert request.headers["content-type"] == "text/plain"
    assert request.headers["x-from"] == "function"
    assert request.headers["fn-call-id"] == agent.calls[0].model.id


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
    model = agent.calls[0].model
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
    assert agent.calls[0].model.headers["X-Name"] == ["süß"]


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
    assert without_trace(agent.calls[0].model.headers) == {"X-O": ["1"]}
    assert set(request.headers) == {"fn-call-id"}


async def test_functions_content_length_is_kept_and_its_call_id_is_not() -> None:
    agent = ScriptedAgent(answering(b"ab", headers=[("content-length", "2"), ("fn-call-id", "x")]))
    request = await AsgiRequest().body().run(app_of(agent))
    assert request.headers["content-length"] == "2"
    assert request.headers["fn-call-id"] == agent.calls[0].model.id
    assert len(request.sent[0]["headers"]) == 2


async def test_detached_call_is_answered_202_and_its_response_is_nobodys() -> None:
    agent = ScriptedAgent()
    request = AsgiRequest(headers=[("fn-invoke-type", "detached"), ("content-length", "5")])
    await request.body(b"hello").run(app_of(agent))
    assert agent.calls[0].model.type == "detached"
    assert agent.record == ["finished"]
    assert (request.status, request.content) == (202, b"")
    assert request.headers["content-length"] == "0"
    assert request.headers["fn-call-id"] == agent.calls[0].model.id
    assert "x-from" not in request.headers


async def test_detached_call_that_is_not_acknowledged_is_an_error() -> None:
    agent = ScriptedAgent(raising(ServerBusy()))
    request = AsgiRequest(headers=[("fn-invoke-type", "detached")]).body()
    assert (await request.run(app_of(agent))).status == 503


async def raising_nothing(call: PendingCall) -> None:
    await trio.lowlevel.checkpoint()


async def test_only_the_exact_value_detaches() -> None:
    agent = ScriptedAgent()
    await AsgiRequest(headers=[("fn-invoke-type", "Detached")]).body().run(app_of(agent))
    assert agent.calls[0].model.type == "sync"


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
    request_id = agent.calls[0].request_id
    assert (request_id == given_id) if kept else len(request_id) == 26


# --- streaming -------------------------------------------------------------------------------


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


# --- errors ----------------------------------------------------------------------------------


async def test_api_error_has_its_code_its_text_and_the_call_id() -> None:
    agent = ScriptedAgent(raising(CallTimeout()))
    request = await AsgiRequest().body().run(app_of(agent))
    assert request.status == 504
    assert error_of(request) == "Timed out"
    assert request.headers["fn-call-id"] == agent.calls[0].model.id
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
    (call,) = agent.calls
    assert call.deadline == pytest.approx(trio.current_time() + seconds)
    await AsgiRequest().body().run(app_of(agent))
    assert agent.calls[1].deadline == float("inf")


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
    assert entry["call_id"] == agent.calls[0].model.id
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
    assert agent.calls == []


@pytest.mark.parametrize(("error", "status"), [(APIError(418, "no tea"), 418), (ValueError(), 500)])
async def test_overriders_error_ends_the_call(error: Exception, status: int, logs: Logs) -> None:
    def overrider(
        request: CallRequest, model: Call, extensions: Mapping[str, str]
    ) -> Mapping[str, str]:
        raise error

    agent = ScriptedAgent(overrider=overrider)
    request = await AsgiRequest().body().run(app_of(agent))
    assert request.status == status
    assert agent.calls == []


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


# --- size limits -----------------------------------------------------------------------------

LIMIT = NodeConfig(max_request_size=100)


async def test_declared_length_over_the_limit_is_413_before_anything_is_read() -> None:
    agent = ScriptedAgent()
    request = AsgiRequest(headers=[("content-length", "101")])
    await request.run(app_of(agent, LIMIT))
    assert request.status == 413
    assert error_of(request) == "Content-Length too large for this server, 101 > max 100"
    assert agent.calls == []


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
    assert agent.calls == []


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


# --- clients that leave ----------------------------------------------------------------------


async def hang(call: PendingCall) -> None:
    await trio.sleep_forever()


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
    assert (entry["status"], entry["call_id"]) == (444, agent.calls[0].model.id)


async def test_a_client_that_leaves_with_the_whole_answer_has_not_cancelled(logs: Logs) -> None:
    """The server tells it in the moment in which the exchange ends, and the rest of the body is
    still awaited."""
    told: list[Callable[[], None]] = []

    class Leaving(AsgiRequest):
        async def _send(self, message: Any) -> None:
            await super()._send(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                told[0]()

    async def answer(call: PendingCall) -> None:
        await call.writer.start(200, [("Content-Length", "2")])
        await call.writer.write(b"ok")

    request = Leaving(headers=[("transfer-encoding", "chunked")]).body(b"x", more=True)
    extensions: Any = {ON_DISCONNECT: {"call": told.append}}
    request.scope["extensions"] = extensions
    await request.run(app_of(ScriptedAgent(answer)))
    assert (request.status, request.content) == (200, b"ok")
    assert not logs.with_event("client cancelled")


async def test_disconnect_before_the_body_is_complete_makes_no_call(logs: Logs) -> None:
    agent = ScriptedAgent()
    request = AsgiRequest(headers=[("content-length", "5")]).body(b"x", more=True)
    request.disconnect()
    await request.run(app_of(agent))
    assert agent.calls == []
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
