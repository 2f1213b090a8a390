"""What becomes a span of requests and calls, and what functions are told of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from hostler.api import api_app
from hostler.api_client import open_api_client
from hostler.call import PendingCall, stopwatch
from hostler.config import StoreConfig
from hostler.errors import CallTimeout, ServerBusy
from hostler.front import invoke_app
from hostler.functions import open_cached_functions
from hostler.store import open_datastore
from hostler.tracing import traced_agent, traced_app, traced_runner
from tests.api._served import serving
from tests.front._agent import TABLE, Handler, ScriptedAgent, echo
from tests.front._asgi_client import AsgiRequest
from tests.nodes.cluster import PlayedAgent
from tests.store.things import a_fn, an_app

from .recorder import TRACE, Recorder


class SlotAgent(PlayedAgent):
    """Has a container after a launch of 3 s, tells the listener so, and runs ``handler``."""

    def __init__(self, handler: Handler = echo, cold: bool = True) -> None:
        super().__init__(handler)
        self._cold = cold

    async def submit(self, call: PendingCall) -> None:
        await trio.sleep(1)
        if self._cold:
            with stopwatch(call.timings, "ctr_create_ns"):
                await trio.sleep(2)
        await self.listener.before_call(call)
        try:
            await super().submit(call)
        except Exception as error:
            call.model.error = str(error)
            raise
        finally:
            await self.listener.after_call(call)


async def ask(recorder: Recorder, agent: object, path: str = "/invoke/fn1", **headers: str) -> int:
    app = traced_app(invoke_app(agent, TABLE, triggers=TABLE), recorder)  # type: ignore[arg-type]
    request = AsgiRequest(path, headers=list(headers.items()))
    return (await request.body(b"hi").run(app)).status


async def test_a_request_is_the_parent_of_its_call() -> None:
    recorder, agent = Recorder(), ScriptedAgent()
    assert await ask(recorder, agent, traceparent=TRACE, tracestate="a=1") == 200
    [span] = recorder.spans
    assert (span.name, span.kind, span.parent) == ("POST /invoke", "server", TRACE)
    [call] = agent.calls
    assert call.model.headers["Traceparent"] == [span.traceparent]
    assert call.model.headers["Tracestate"] == ["a=1"]
    assert span.attributes == {
        "http.request.method": "POST",
        "url.path": "/invoke/fn1",
        "http.response.status_code": 200,
        "fn.call_id": call.model.id,
    }
    assert not recorder.open


async def test_what_is_no_context_begins_a_trace_and_its_state_is_dropped() -> None:
    recorder, agent = Recorder(), ScriptedAgent()
    await ask(recorder, agent, traceparent="nonsense", tracestate="a=1")
    assert recorder.spans[0].parent == ""
    assert "Tracestate" not in agent.calls[0].model.headers


async def test_what_is_polled_is_no_span() -> None:
    recorder = Recorder()
    app = traced_app(invoke_app(ScriptedAgent(), TABLE), recorder)
    for path in ("/", "/version", "/metrics", "/healthz", "/readyz", "/ui/state"):
        await AsgiRequest(path, method="GET").body().run(app)
    assert recorder.spans == []


async def test_failures_of_the_service_are_errors_and_those_of_clients_are_not() -> None:
    async def busy(call: PendingCall) -> None:
        raise ServerBusy

    recorder = Recorder()
    assert await ask(recorder, ScriptedAgent(), "/invoke/none") == 404
    assert await ask(recorder, ScriptedAgent(busy)) == 503
    assert [span.error for span in recorder.spans] == ["", "status 503"]


async def test_a_request_that_is_cancelled_ends_its_span() -> None:
    async def hang(call: PendingCall) -> None:
        await trio.sleep_forever()

    recorder, agent = Recorder(), ScriptedAgent(hang)
    with trio.move_on_after(1) as scope:
        await ask(recorder, traced_agent(agent, recorder))
    assert scope.cancelled_caught
    assert [(span.name, span.error) for span in recorder.spans] == [
        ("POST /invoke", "cancelled"),
        ("place", "cancelled"),
    ]


async def test_without_a_tracer_nothing_is_in_between() -> None:
    agent, runner = ScriptedAgent(), PlayedAgent()
    app = invoke_app(agent, TABLE)
    assert traced_app(app, None) is app
    assert traced_agent(agent, None) is agent
    assert traced_runner(runner, None) is runner


async def test_a_cold_call_has_the_stages_of_its_launch(autojump_clock: object) -> None:
    recorder = Recorder()
    agent = SlotAgent()
    await ask(recorder, traced_runner(agent, recorder), traceparent=TRACE)
    request, run = recorder.named("POST /invoke"), recorder.named("run")
    container, create = recorder.named("container"), recorder.named("create")
    function = recorder.named("function")
    assert run.parent == request.traceparent
    assert container.parent == function.parent == run.traceparent
    assert create.parent == container.traceparent
    assert container.ended is not None
    assert container.ended - container.began == 3
    assert create.ended is not None
    assert (create.began - container.began, create.ended - create.began) == (1, 2)
    assert container.attributes == {"fn.cold": True}
    assert agent.calls[0].model.headers["Traceparent"] == [function.traceparent]
    assert not recorder.open


async def test_a_hot_call_has_none(autojump_clock: object) -> None:
    recorder = Recorder()
    await ask(recorder, traced_runner(SlotAgent(cold=False), recorder))
    names = [span.name for span in recorder.spans]
    assert names == ["POST /invoke", "run", "container", "function"]
    assert recorder.named("container").attributes == {"fn.cold": False}


async def test_a_triggers_code_finds_the_functions_span(autojump_clock: object) -> None:
    recorder, agent = Recorder(), SlotAgent()
    await ask(recorder, traced_runner(agent, recorder), "/t/app/", traceparent=TRACE)
    parent = [recorder.named("function").traceparent]
    headers = agent.calls[0].model.headers
    assert headers["Traceparent"] == headers["Fn-Http-H-Traceparent"] == parent


async def test_an_error_of_the_function_is_on_all_that_had_it(autojump_clock: object) -> None:
    async def fail(call: PendingCall) -> None:
        raise CallTimeout

    recorder = Recorder()
    await ask(recorder, traced_runner(SlotAgent(fail), recorder))
    errors = {span.name: span.error for span in recorder.spans}
    assert errors["function"] == errors["run"] == "Timed out"
    assert errors["container"] == ""


async def test_a_call_that_gets_no_container_has_no_function(autojump_clock: object) -> None:
    class Full(PlayedAgent):
        async def submit(self, call: PendingCall) -> None:
            raise ServerBusy

    recorder = Recorder()
    await ask(recorder, traced_runner(Full(), recorder))
    errors = {span.name: span.error for span in recorder.spans}
    assert "function" not in errors
    assert errors["container"] == errors["run"] != ""


@pytest.mark.parametrize("seconds", [0.5, 2, 3.5])
async def test_cancelled_anywhere_no_span_is_left_open(
    autojump_clock: object, seconds: float
) -> None:
    async def hang(call: PendingCall) -> None:
        await trio.sleep_forever()

    recorder = Recorder()
    with trio.move_on_after(seconds):
        await ask(recorder, traced_runner(SlotAgent(hang), recorder))
    assert not recorder.open
    assert len(recorder.spans) >= 3


async def test_a_look_up_in_the_api_is_a_part_of_its_request(tmp_path: Path) -> None:
    """At the API, too. Of an answer that is known, nothing is asked."""
    recorder, apis = Recorder(), Recorder()
    async with open_datastore(StoreConfig(db_url=f"sqlite3://{tmp_path}/fn.db")) as store:
        app = await store.create_app(an_app())
        fn = await store.create_fn(a_fn(app))
        async with (
            serving(traced_app(api_app(store), apis)) as url,
            open_api_client(url) as client,
            open_cached_functions(client) as functions,
        ):
            front = traced_app(invoke_app(ScriptedAgent(), functions), recorder)
            for _ in range(2):
                await AsgiRequest(f"/invoke/{fn.id}").body(b"hi").run(front)
            await client.get_app(app.id)  # for no request
    request, of_fn, of_app, second = recorder.spans
    assert (of_fn.name, of_fn.kind, of_fn.parent) == ("look up", "client", request.traceparent)
    assert of_fn.attributes == {"http.request.method": "GET", "url.path": f"/v2/fns/{fn.id}"}
    assert of_app.parent == request.traceparent
    assert second.name == "POST /invoke"
    assert not recorder.open
    parents = [span.parent for span in apis.spans]
    assert parents == [of_fn.traceparent, of_app.traceparent, ""]


async def test_a_look_up_that_fails_is_told_as_such() -> None:
    recorder = Recorder()
    async with (
        open_api_client("http://127.0.0.1:1") as client,
        open_cached_functions(client) as functions,
    ):
        front = traced_app(invoke_app(ScriptedAgent(), functions), recorder)
        assert (await AsgiRequest().body().run(front)).status == 503
    assert [span.error for span in recorder.spans] == [
        "status 503",
        "API unavailable, try again later",
    ]
