"""Requests to the API are counted as those of calls are."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from hostler.api import AppListener, api_app
from hostler.datastore import Datastore
from hostler.front import FrontMetrics, invoke_app
from tests.conftest import Logs
from tests.front._agent import ScriptedAgent
from tests.front._asgi_client import AsgiRequest

from ._client import Client


class Faulty(AppListener):
    async def before_get(self, id: str) -> None:
        raise RuntimeError("secret")


def answered(registry: CollectorRegistry) -> dict[tuple[str, str, str, str], float]:
    return {
        tuple(sample.labels[name] for name in ("method", "path", "status", "blame")): sample.value  # type: ignore[misc]
        for metric in registry.collect()
        if metric.name == "fn_api_response_count"
        for sample in metric.samples
    }


async def test_requests_are_counted_by_route_and_outcome(store: Datastore, logs: Logs) -> None:
    registry = CollectorRegistry()
    metrics = FrontMetrics(registry)
    app = api_app(store, metrics=metrics, listeners=[Faulty()])
    client = Client(app)
    await client.made("/v2/apps", {"name": "a"})
    await client.post("/v2/apps", {"name": "a"})
    await client.post("/v2/apps", b"{")
    await client.get("/v2/apps/x")
    logs.expect_error("request failed")
    await client.get("/v2/fns/f/calls/c/log")
    await client.get("/v2/runner/apps/a/triggerBySource/http//s")
    await client.get("/v2/unknown")
    gone = AsgiRequest("/v2/apps").body(b"{", more=True)
    gone.disconnect()
    await gone.run(app)
    assert answered(registry) == {
        ("POST", "/v2/apps", "200", "user"): 1,
        ("POST", "/v2/apps", "409", "service"): 1,
        ("POST", "/v2/apps", "400", "service"): 1,
        ("POST", "/v2/apps", "444", "service"): 1,
        ("GET", "/v2/apps/:app_id", "500", "service"): 1,
        ("GET", "/v2/fns/:fn_id/calls/:call_id/log", "410", "service"): 1,
        (
            "GET",
            "/v2/runner/apps/:app_id/triggerBySource/:trigger_type/*trigger_source",
            "404",
            "service",
        ): 1,
    }


async def test_a_node_counts_calls_and_its_api_together(store: Datastore) -> None:
    registry = CollectorRegistry()
    metrics = FrontMetrics(registry)
    agent = ScriptedAgent()  # no function is found, so none is called
    node = Client(
        invoke_app(
            agent,
            store,
            mounts={"/v2": api_app(store, metrics=metrics)},
            registry=registry,
            metrics=metrics,
        )
    )
    assert (await node.post("/invoke/none", b"")).fails(404, "Fn not found")
    assert (await node.get("/v2/apps")).status == 200
    told = (await node.get("/metrics")).content.decode()
    assert 'fn_api_request_count{method="GET",path="/v2/apps"} 1.0' in told
    assert 'fn_api_request_count{method="POST",path="/invoke/:fn_id"} 1.0' in told
