"""Detached calls on a node that runs functions itself."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from hostler.abc import CallListener, CallRequest, RunnerAgent
from hostler.bodies import ReplayBody
from hostler.call import CallOption, PendingCall
from hostler.errors import CallTimeout, RequestTooBig, ServerBusy
from hostler.front import invoke_app
from hostler.nodes.serve import open_detaching
from hostler.options import from_http_fn_request, invoke_detached
from tests.conftest import Logs
from tests.front._agent import TABLE, Handler, ScriptedAgent, echo
from tests.front._asgi_client import AsgiRequest


class ListeningAgent(ScriptedAgent, RunnerAgent):
    """A scripted agent that tells its listeners of each call once it has a slot."""

    def __init__(self, handler: Handler = echo) -> None:
        super().__init__(handler)
        self.listeners: list[CallListener] = []
        self.slot = trio.Event()
        self.slot.set()

    def add_listener(self, listener: CallListener) -> None:
        self.listeners.append(listener)

    def close_admission(self) -> None:
        raise AssertionError("not asked for")

    async def submit(self, call: PendingCall) -> None:
        await self.slot.wait()
        for listener in self.listeners:
            await listener.before_call(call)
        await super().submit(call)


def detached(body: bytes = b"") -> AsgiRequest:
    headers = [("fn-invoke-type", "detached"), ("content-length", str(len(body)))]
    return AsgiRequest(headers=headers).body(body)


async def test_weakness_05_10_detached_answers_when_the_function_starts() -> None:
    go_on = trio.Event()
    seen: list[bytes] = []

    async def handler(call: PendingCall) -> None:
        await go_on.wait()
        seen.append(bytes(await call.body.open().receive_some()))

    agent = ListeningAgent(handler)
    async with open_detaching(agent, body_limit=100, grace=5) as detaching:
        request = await detached(b"body").run(invoke_app(detaching, TABLE))
        assert request.status == 202
        assert detaching.detached == 1
        go_on.set()
    assert seen == [b"body"]
    assert agent.record == ["finished"]


async def test_waits_for_the_slot_and_is_cancelled_with_its_client_until_then() -> None:
    agent = ListeningAgent()
    agent.slot = trio.Event()
    async with open_detaching(agent, body_limit=100, grace=5) as detaching:
        request = detached()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(request.run, invoke_app(detaching, TABLE))
            await trio.testing.wait_all_tasks_blocked()
            assert request.sent == []
            request.disconnect()
        assert detaching.detached == 0
        assert agent.calls == []


async def test_error_before_the_slot_is_the_clients() -> None:
    agent = ListeningAgent()

    async def refuse(call: PendingCall) -> None:
        await trio.lowlevel.checkpoint()
        raise ServerBusy

    agent.submit = refuse  # type: ignore[method-assign]
    async with open_detaching(agent, body_limit=100, grace=5) as detaching:
        request = await detached().run(invoke_app(detaching, TABLE))
        assert request.status == 503


async def test_error_after_it_is_only_logged(logs: Logs) -> None:
    async def handler(call: PendingCall) -> None:
        await trio.lowlevel.checkpoint()
        raise CallTimeout

    async with open_detaching(ListeningAgent(handler), body_limit=100, grace=5) as detaching:
        assert (await detached().run(invoke_app(detaching, TABLE))).status == 202
    assert logs.with_event("detached call failed")


async def test_an_internal_error_after_it_is_logged_with_its_cause(logs: Logs) -> None:
    async def handler(call: PendingCall) -> None:
        await trio.lowlevel.checkpoint()
        raise RuntimeError("a bug")

    async with open_detaching(ListeningAgent(handler), body_limit=100, grace=5) as detaching:
        assert (await detached().run(invoke_app(detaching, TABLE))).status == 202
    assert "a bug" in str(logs.expect_error("detached call failed")["exception"])


async def test_a_call_that_has_run_is_never_refused() -> None:
    """Whoever is told that there was no room tries again."""
    agent = ListeningAgent()
    async with open_detaching(agent, body_limit=100, grace=5) as detaching:
        agent.listeners.clear()
        assert (await detached().run(invoke_app(detaching, TABLE))).status == 202
    assert agent.record == ["finished"]


async def test_body_has_to_fit_into_memory() -> None:
    agent = ListeningAgent()
    async with open_detaching(agent, body_limit=10, grace=5) as detaching:
        request = await detached(b"x" * 11).run(invoke_app(detaching, TABLE))
        assert request.status == 413
        source, sink = trio.testing.memory_stream_one_way_pair()
        call = agent.get_call(*_options())
        call.body = ReplayBody(sink)
        await source.send_all(b"x" * 11)
        with pytest.raises(RequestTooBig):
            await detaching.submit(call)


def _options() -> list[CallOption]:
    app, fn = TABLE.lookup("fn1")
    request = CallRequest(method="POST", url="/", headers={})
    return [from_http_fn_request(app, fn, request), invoke_detached()]


async def test_grace_is_bounded(autojump_clock: trio.testing.MockClock) -> None:
    async def handler(call: PendingCall) -> None:
        await trio.sleep_forever()

    agent = ListeningAgent(handler)
    async with open_detaching(agent, body_limit=10, grace=5) as detaching:
        assert (await detached().run(invoke_app(detaching, TABLE))).status == 202
    assert trio.current_time() == 5
    assert agent.record == ["cancelled"]


async def test_other_calls_pass_through() -> None:
    async with open_detaching(ListeningAgent(), body_limit=1, grace=5) as detaching:
        request = AsgiRequest(headers=[("content-length", "5")]).body(b"hello")
        assert (await request.run(invoke_app(detaching, TABLE))).content == b"hello"
        assert detaching.detached == 0
