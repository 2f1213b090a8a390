"""Everything beside ``/invoke``: documents, health, metrics, unknown paths."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import trio
import trio.testing
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from hostler.bodies import BodyBudget
from hostler.bodies.disk import SpillFile
from hostler.config import BodyConfig
from hostler.front import invoke_app, node_app

from ._agent import TABLE, ScriptedAgent
from ._asgi_client import AsgiRequest


def app_with(registry: CollectorRegistry | None = None, ready: bool = True) -> Any:
    return invoke_app(ScriptedAgent(), TABLE, registry=registry, ready=lambda: ready)


async def get(path: str, *, method: str = "GET", app: Any = None) -> AsgiRequest:
    return await AsgiRequest(path, method=method).run(app or app_with())


async def test_greeting_is_fns() -> None:
    answer = await get("/")
    assert answer.content == b'{"goto":"https://github.com/fnproject/fn","hello":"world!"}'
    assert answer.headers["content-type"] == "application/json; charset=utf-8"


async def test_version() -> None:
    assert set(json.loads((await get("/version")).content)) == {"version"}


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/nothing"), ("GET", "/invoke"), ("POST", "/invoke/"), ("POST", "/invoke/a/b")],
)
async def test_unknown_path(method: str, path: str) -> None:
    answer = await get(path, method=method)
    assert answer.status == 404
    assert answer.content == b'{"message":"Path not found: %s %s"}\n' % (
        method.encode(),
        path.encode(),
    )


@pytest.mark.parametrize(
    ("method", "path"), [("PUT", "/invoke/fn1"), ("GET", "/invoke/fn1"), ("POST", "/version")]
)
async def test_wrong_method(method: str, path: str) -> None:
    answer = await get(path, method=method)
    assert answer.status == 405
    assert json.loads(answer.content) == {"message": f"Method not allowed: {method} {path}"}


@pytest.mark.parametrize(
    ("method", "path", "status", "location"),
    [("GET", "/version/", 301, "/version"), ("POST", "/invoke/fn1/", 307, "/invoke/fn1")],
)
async def test_trailing_slash_is_redirected(
    method: str, path: str, status: int, location: str
) -> None:
    answer = await get(path, method=method)
    assert (answer.status, answer.headers["location"]) == (status, location)


async def test_redirect_keeps_the_query_and_never_leaves_the_host() -> None:
    request = AsgiRequest("/version/", method="GET", query="a=1")
    assert (await request.run(app_with())).headers["location"] == "/version?a=1"
    assert (await get("//version/")).status == 404


@pytest.mark.parametrize(("ready", "status"), [(True, 200), (False, 503)])
async def test_readiness_follows_the_node_and_liveness_does_not(ready: bool, status: int) -> None:
    assert (await get("/readyz", app=app_with(ready=ready))).status == status
    assert (await get("/healthz", app=app_with(ready=ready))).status == 200


async def test_metrics_count_requests_by_route() -> None:
    registry = CollectorRegistry()
    app = app_with(registry)
    await AsgiRequest().body().run(app)
    await AsgiRequest("/invoke/unknown").body().run(app)
    text = (await get("/metrics", app=app)).content.decode()
    assert 'fn_api_request_count{method="POST",path="/invoke/:fn_id"} 2.0' in text
    labels = {"path": "/invoke/:fn_id", "method": "POST", "fn_fdk_version": ""}
    count = registry.get_sample_value
    ok = {**labels, "status": "200", "blame": "user"}
    missing = {**labels, "status": "404", "blame": "service"}
    assert count("fn_api_response_count", ok) == 1
    assert count("fn_api_response_count", missing) == 1
    assert count("fn_api_latency_count", ok) == 1


async def test_a_call_counts_before_the_file_of_its_body_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """That may take as long as the disk wants, and is no part of the call's latency."""
    registry, counts = CollectorRegistry(), []
    close = SpillFile.close

    def counted(file: SpillFile) -> None:
        labels = {"path": "/invoke/:fn_id", "method": "POST", "fn_fdk_version": ""}
        ok = {**labels, "status": "200", "blame": "user"}
        counts.append(registry.get_sample_value("fn_api_latency_count", ok))
        close(file)

    monkeypatch.setattr(SpillFile, "close", counted)
    bodies = BodyBudget(BodyConfig(body_spill_size=1))
    app = invoke_app(ScriptedAgent(), TABLE, registry=registry, bodies=bodies)
    request = AsgiRequest(headers=[("transfer-encoding", "chunked")])
    answer = await request.body(b"abc", more=True).body().run(app)
    assert (answer.content, counts) == (b"abc", [1])


async def test_a_scrape_holds_up_no_call() -> None:
    """With a thousand functions it takes seconds, and programs have collectors of their own."""
    registry = CollectorRegistry()
    go_on = threading.Event()

    class Slow(Collector):
        def collect(self) -> Iterator[Metric]:
            assert go_on.wait(60)
            yield Metric("slow", "", "gauge")

    app = app_with(registry)
    registry.register(Slow())
    scrape = AsgiRequest("/metrics", method="GET")
    with trio.fail_after(120):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(scrape.run, app)
            await trio.testing.wait_all_tasks_blocked()
            assert (await AsgiRequest().body().run(app)).status == 200
            assert not scrape.sent
            go_on.set()
    assert scrape.status == 200
    assert b"# HELP slow" in scrape.content


async def test_node_without_calls_has_no_invoke_route() -> None:
    answer = await get("/invoke/fn1", method="POST", app=node_app())
    assert answer.status == 404


async def test_lifespan_is_served_and_websockets_are_closed() -> None:
    app = app_with()
    feed, fed = trio.open_memory_channel[Any](5)
    sent: list[str] = []

    async def send(message: Any) -> None:
        await trio.lowlevel.checkpoint()
        sent.append(message["type"])

    feed.send_nowait({"type": "lifespan.startup"})
    feed.send_nowait({"type": "lifespan.shutdown"})
    await app({"type": "lifespan"}, fed.receive, send)
    await app({"type": "websocket"}, fed.receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete", "websocket.close"]


async def test_metrics_may_be_on_a_port_of_their_own() -> None:
    """The program makes a second application for it, and takes the route from the first."""
    registry = CollectorRegistry()
    closed = node_app()

    async def gone(scope: Any, receive: Any, send: Any) -> None:
        await closed({**scope, "path": "/none"}, receive, send)

    public = invoke_app(ScriptedAgent(), TABLE, registry=registry, mounts={"/metrics": gone})
    admin = node_app(registry=registry)
    assert (await AsgiRequest().body().run(public)).status == 200
    assert (await get("/metrics", app=public)).status == 404
    assert (
        b'fn_api_request_count{method="POST",path="/invoke/:fn_id"}'
        in (await get("/metrics", app=admin)).content
    )
    assert (await get("/invoke/fn1", method="POST", app=admin)).status == 404
