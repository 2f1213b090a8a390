"""Spans of real nodes at real collectors, and collectors that are slow, wrong or not there."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import trio
from opentelemetry.exporter.zipkin.json import ZipkinExporter

from hostler.config import NodeConfig
from hostler.errors import ConfigError
from hostler.functions import load_functions
from hostler.tracing import open_tracer
from hostler.tracing.export import QUEUE_SPANS
from tests.cli._process import END_SECONDS, NodeProcess, open_node
from tests.conftest import Logs
from tests.functions.build import fnt_path
from tests.support.ids import fn_by_name

from .collector import Seen, open_collector, read_otlp, read_zipkin
from .recorder import TRACE

BOTH = pytest.mark.parametrize(
    ("variable", "path", "read"),
    [
        ("FN_ZIPKIN_URL", "/api/v2/spans", read_zipkin),
        ("FN_JAEGER_URL", "/v1/traces", read_otlp),
    ],
    ids=["zipkin", "jaeger"],
)


def senders() -> list[str]:
    """The threads that send spans."""
    return [thread.name for thread in threading.enumerate() if "Otel" in thread.name]


async def end(*nodes: NodeProcess) -> None:
    for node in nodes:
        node.process.send_signal(signal.SIGTERM)
        with trio.fail_after(END_SECONDS):
            assert await node.process.wait() == 0


@BOTH
async def test_a_call_is_one_trace_from_the_client_to_the_function(
    tmp_path: Path, variable: str, path: str, read: Callable[[bytes], list[Seen]]
) -> None:
    functions = tmp_path / "functions.yaml"
    functions.write_text(f"apps:\n- name: app\n  fns:\n  - {{name: fnt, image: '{fnt_path()}'}}\n")
    fn_id = fn_by_name(load_functions(functions), "app", "fnt").id
    local = ("--bind", "127.0.0.1:0")
    async with open_collector(read) as collector:
        env = {variable: collector.url}
        async with (
            open_node("runner", "--driver", "process", *local, env=env) as runner,
            open_node(
                *("lb", "--functions", str(functions), "--runners", runner.ready["grpc"]),
                *local,
                env=env,
            ) as lb,
            httpx.AsyncClient(base_url=lb.url, timeout=60) as client,
        ):
            headers = {"traceparent": TRACE, "Fnt-Do": "env"}
            answer = await client.post(f"/invoke/{fn_id}", headers=headers)
            assert answer.status_code == 200
            await end(lb, runner)
        spans = await collector.wait_for(
            *("POST /invoke", "place", "engage", "run", "container", "create", "start", "function")
        )
    request, place, engage, run, container, create, start, function = spans
    assert collector.paths == {path}
    assert {span.trace for span in spans} == {TRACE.split("-")[1]}
    assert request.parent == TRACE.split("-")[2]
    assert place.parent == request.id
    assert engage.parent == run.parent == place.id
    assert container.parent == function.parent == run.id
    assert create.parent == start.parent == container.id
    assert [span.service for span in (request, place, engage, run, function)] == [
        *["hostler-lb"] * 3,
        *["hostler-runner"] * 2,
    ]
    assert [span.kind for span in (request, place, engage)] == ["server", "internal", "client"]
    assert not any(span.failed for span in spans)
    assert request.attributes["fn.call_id"] == answer.headers["fn-call-id"]
    assert request.attributes["http.response.status_code"] == "200"
    assert engage.attributes["fn.runner"] == place.attributes["fn.runner"] == runner.ready["grpc"]
    assert run.attributes["fn.image"] == str(fnt_path())
    assert request.seconds > place.seconds > run.seconds > function.seconds > 0
    assert run.seconds > container.seconds > create.seconds
    found = {name.lower(): value for name, value in answer.json()["headers"]}
    assert found["traceparent"] == f"00-{function.trace}-{function.id}-01"


async def test_a_full_node_and_its_api(tmp_path: Path) -> None:
    async with open_collector(read_otlp) as collector:
        own_path = f"{collector.url}/mine"
        command = ("serve", "--driver", "process", "--bind", "127.0.0.1:0")
        async with (
            open_node(*command, env={"FN_JAEGER_URL": own_path}, cwd=tmp_path) as node,
            httpx.AsyncClient(base_url=node.url, timeout=60) as client,
        ):
            app = (await client.post("/v2/apps", json={"name": "app"})).json()
            fn = {"name": "fnt", "app_id": app["id"], "image": "/none/such"}
            made = (await client.post("/v2/fns", json=fn)).json()
            failed = await client.post(f"/invoke/{made['id']}")
            assert failed.status_code >= 400
            await end(node)
        api, request, run = await collector.wait_for("POST /v2", "POST /invoke", "run")
    assert collector.paths == {"/mine"}
    assert api.trace != request.trace
    assert run.parent == request.id
    assert run.failed


@pytest.mark.parametrize("setting", ["zipkin_url", "jaeger_url"])
async def test_a_collector_that_is_not_there_is_told_once(
    setting: str, logs: Logs, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hostler.tracing import export

    monkeypatch.setattr(export, "SEND_SECONDS", 1)
    config = NodeConfig(**{setting: "http://127.0.0.1:9"})  # type: ignore[arg-type]
    async with open_tracer(config, "lb") as tracer:
        assert tracer is not None
        assert senders()
        tracer.start("lost").end()
    assert len(logs.with_event("spans can't be delivered")) == 1
    assert not caplog.records  # OpenTelemetry would tell each attempt
    assert not senders()


async def test_one_that_refuses_and_then_takes_is_told_twice(logs: Logs) -> None:
    from hostler.tracing import export

    async with open_collector(read_zipkin) as collector:
        exporter = export._Telling(ZipkinExporter(endpoint=collector.url))
        refusing = export._Telling(ZipkinExporter(endpoint="http://127.0.0.1:9"))
        for _ in range(3):
            await trio.to_thread.run_sync(refusing.export, [])
        refusing._inner = exporter
        for _ in range(3):
            await trio.to_thread.run_sync(refusing.export, [])
    assert len(logs.with_event("can't be delivered")) == 1
    assert len(logs.with_event("are delivered again")) == 1


async def test_a_collector_that_never_answers_holds_nothing_up(
    logs: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor do more spans than the queue has room for."""
    from hostler.tracing import export

    monkeypatch.setattr(export, "CLOSE_SECONDS", 0.3)
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    async with listeners[0]:
        with trio.fail_after(60):
            async with open_tracer(NodeConfig(jaeger_url=f"http://127.0.0.1:{port}"), "lb") as it:
                assert it is not None
                for _ in range(QUEUE_SPANS + 2000):
                    it.start("many").end()
    assert logs.with_event("spans were lost")
    with trio.fail_after(60):
        while senders():  # noqa: ASYNC110  (what was abandoned has an end, too)
            await trio.sleep(0.01)


async def test_without_collectors_opentelemetry_is_not_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "hostler.tracing.export", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    async with open_tracer(NodeConfig(), "lb") as tracer:
        assert tracer is None
    with pytest.raises(ConfigError, match=r"pip install 'hostler\[tracing\]'"):
        async with open_tracer(NodeConfig(zipkin_url="http://c"), "lb"):
            raise AssertionError
