"""What becomes a span of requests and calls, and what functions are told of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from hostler.agent import Agent
from hostler.api import api_app
from hostler.api_client import open_api_client
from hostler.calls import PendingCall
from hostler.config import StoreConfig
from hostler.drivers.sim import SimHandler, SimRequest, SimResponse, open_sim_driver
from hostler.drivers.sim import echo as echo_function
from hostler.errors import ServerBusy
from hostler.front import invoke_app
from hostler.functions import open_cached_functions
from hostler.options import from_model
from hostler.store import open_datastore
from hostler.tracing import PlaceSpans, RunSpans, traced_app
from tests.agent.nodes import call_model, open_node
from tests.api._served import serving
from tests.front._agent import TABLE, ScriptedAgent
from tests.front._asgi_client import AsgiRequest
from tests.lb.bench import open_bench
from tests.pool.fakes import FakeRunner
from tests.store.things import a_fn, an_app

from .recorder import TRACE, Recorder


@asynccontextmanager
async def open_traced(
    recorder: Recorder, iofs: Path, handler: SimHandler = echo_function, **launch: float
) -> AsyncIterator[Agent]:
    """An agent with the image of `TABLE`'s function. ``launch``: how long its stages take."""
    async with open_sim_driver() as driver, open_node(driver, iofs) as node:
        driver.add_image("echo:1", handler, **launch)
        node.agent.add_listener(RunSpans(recorder))
        yield node.agent


async def sleep(request: SimRequest) -> SimResponse:
    await trio.sleep_forever()


async def ask(recorder: Recorder, agent: object, path: str = "/invoke/fn1", **headers: str) -> int:
    app = traced_app(invoke_app(agent, TABLE, triggers=TABLE), recorder)  # type: ignore[arg-type]
    request = AsgiRequest(path, headers=list(headers.items()))
    return (await request.body(b"hi").run(app)).status


async def test_a_request_is_the_parent_of_its_call() -> None:
    recorder, agent = Recorder(), ScriptedAgent()
    assert await ask(recorder, agent, traceparent=TRACE, tracestate="a=1") == 200
    [span] = recorder.spans
    assert (span.name, span.kind, span.parent) == ("POST /invoke", "server", TRACE)
    [call] = agent.submitted
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
    assert "Tracestate" not in agent.submitted[0].model.headers


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


async def test_a_request_that_is_cancelled_ends_its_span(autojump_clock: object) -> None:
    recorder = Recorder()
    async with open_bench(FakeRunner(seconds=5), listeners=(PlaceSpans(recorder),)) as bench:
        with trio.move_on_after(1) as scope:
            await ask(recorder, bench.agent)
    assert scope.cancelled_caught
    assert recorder.named("POST /invoke").error == recorder.named("place").error == "cancelled"
    assert not recorder.open
    assert recorder.named("place").attributes["fn.attempts"] == 1


async def test_a_call_that_a_load_balancer_refuses_is_a_span() -> None:
    recorder = Recorder()
    async with open_bench(FakeRunner(), listeners=(PlaceSpans(recorder),)) as bench:
        bench.agent.close_admission()
        assert await ask(recorder, bench.agent) == 503
    assert recorder.named("place").error == str(ServerBusy())
    assert recorder.named("place").parent == recorder.named("POST /invoke").traceparent


async def test_without_a_tracer_nothing_is_in_between() -> None:
    app = invoke_app(ScriptedAgent(), TABLE)
    assert traced_app(app, None) is app


async def test_a_cold_call_has_the_stages_of_its_launch(
    autojump_clock: object, tmp_path: Path
) -> None:
    recorder = Recorder()
    heads: list[str | None] = []

    async def look(request: SimRequest) -> SimResponse:
        heads.append(request.header("traceparent"))
        return SimResponse()

    async with open_traced(recorder, tmp_path, look, pull_time=1, create_time=2) as agent:
        await ask(recorder, agent, traceparent=TRACE)
    request, run = recorder.named("POST /invoke"), recorder.named("run")
    container, create = recorder.named("container"), recorder.named("create")
    function = recorder.named("function")
    assert run.parent == request.traceparent
    assert container.parent == function.parent == run.traceparent
    assert create.parent == recorder.named("pull").parent == container.traceparent
    assert container.ended is not None
    assert container.ended - container.began == pytest.approx(3, abs=0.01)
    assert create.ended is not None
    assert create.began - container.began == pytest.approx(1, abs=0.01)
    assert create.ended - create.began == pytest.approx(2, abs=0.01)
    assert container.attributes == {"fn.cold": True}
    assert heads == [function.traceparent]
    assert not recorder.open


async def test_a_hot_call_has_none(autojump_clock: object, tmp_path: Path) -> None:
    recorder = Recorder()
    async with open_traced(recorder, tmp_path) as agent:
        await ask(Recorder(), agent)
        recorder.spans.clear()
        await ask(recorder, agent)
    names = [span.name for span in recorder.spans]
    assert names == ["POST /invoke", "run", "container", "function"]
    assert recorder.named("container").attributes == {"fn.cold": False}


async def test_a_triggers_code_finds_the_functions_span(
    autojump_clock: object, tmp_path: Path
) -> None:
    recorder = Recorder()
    heads: list[str | None] = []

    async def look(request: SimRequest) -> SimResponse:
        heads.extend(map(request.header, ("traceparent", "fn-http-h-traceparent")))
        return SimResponse()

    async with open_traced(recorder, tmp_path, look) as agent:
        await ask(recorder, agent, "/t/app/", traceparent=TRACE)
    assert heads == [recorder.named("function").traceparent] * 2


async def test_an_error_of_the_function_is_on_all_that_had_it(
    autojump_clock: object, tmp_path: Path
) -> None:
    recorder = Recorder()
    async with open_traced(recorder, tmp_path, sleep) as agent:
        assert await ask(recorder, agent) == 504
    errors = {span.name: span.error for span in recorder.spans}
    assert errors["function"] == errors["run"] == "Timed out"
    assert errors["container"] == ""


async def test_a_call_that_gets_no_container_has_no_function(
    autojump_clock: object, tmp_path: Path
) -> None:
    recorder = Recorder()
    async with open_traced(recorder, tmp_path) as agent:
        agent.close_admission()
        assert await ask(recorder, agent) == 503
        call = agent.get_call(from_model(call_model("echo:1")))
        assert agent.refuse(call)
    assert [(span.name, span.error) for span in recorder.spans[1:]] == [
        ("run", str(ServerBusy())),
        ("container", str(ServerBusy())),
    ] * 2


@pytest.mark.parametrize("seconds", [0.5, 2, 3.5])
async def test_cancelled_anywhere_no_span_is_left_open(
    autojump_clock: object, tmp_path: Path, seconds: float
) -> None:
    recorder = Recorder()
    async with open_traced(recorder, tmp_path, sleep, pull_time=1, create_time=2) as agent:
        with trio.move_on_after(seconds):
            await ask(recorder, agent)
    assert not recorder.open
    assert len(recorder.spans) >= 3


async def test_a_look_up_in_the_api_is_a_part_of_its_request(tmp_path: Path) -> None:
    """At the API, too. Of an answer that is known, nothing is asked."""
    recorder, apis = Recorder(), Recorder()
    async with open_datastore(StoreConfig(db_url=f"sqlite3://{tmp_path}/fn.db")) as store:
        app = await store.apps.create(an_app())
        fn = await store.fns.create(a_fn(app))
        async with (
            serving(traced_app(api_app(store), apis)) as url,
            open_api_client(url) as client,
            open_cached_functions(client) as functions,
        ):
            front = traced_app(invoke_app(ScriptedAgent(), functions), recorder)
            for _ in range(2):
                await AsgiRequest(f"/invoke/{fn.id}").body(b"hi").run(front)
            await client.apps.get(app.id)  # for no request
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
