"""Nodes of each type, as processes: a full one, an API, an LB that asks it, and Fn's variables."""

from __future__ import annotations

import signal
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from hostler.cli.command import command_of
from hostler.errors import ConfigError
from hostler.nodes.parts import choose_driver
from tests.conftest import Logs
from tests.functions.build import fnt_path
from tests.support.ports import free_port

from ..cli._process import END_SECONDS, SCRIPT, clean_env, ends, open_node
from .client import asking


def serve(folder: Path, *args: str, **options: Any) -> Any:
    command = ("serve", "--driver", "process", "--bind", "127.0.0.1:0")
    return open_node(*command, *args, cwd=folder, **options)


async def test_a_full_node_needs_nothing(tmp_path: Path) -> None:
    async with serve(tmp_path) as process, asking(process.url) as node:
        assert (await node.client.get("/t/shop/pay")).json() == {"message": "App not found"}
        app, fn, trigger = await node.deploy()
        # At once, though it has just been looked for in vain.
        answer = await node.client.put("/t/shop/pay?x", content=b"triggered")
        assert (answer.status_code, answer.content) == (200, b"triggered")
        assert answer.headers["fn-call-id"]
        assert (await node.invoke(fn)).content == b"hello"
        await node.client.put(f"/v2/apps/{app['id']}", json={"config": {"SHARED": "changed"}})
        assert '"SHARED":"changed"' in (await node.invoke(fn, **{"Fnt-Do": "env"})).text.replace(
            " ", ""
        )
        gone = await node.client.delete(f"/v2/triggers/{trigger['id']}")
        assert gone.status_code == 204
        answer = await node.client.get("/t/shop/pay")
        assert (answer.status_code, answer.json()) == (404, {"message": "Trigger not found"})
        detached = await node.invoke(fn, **{"Fn-Invoke-Type": "detached"})
        assert (detached.status_code, detached.content) == (202, b"")
        counted = (await node.client.get("/metrics")).text
        assert 'fn_api_request_count{method="POST",path="/v2/apps"} 1.0' in counted
        assert 'fn_api_request_count{method="POST",path="/invoke/:fn_id"}' in counted
        assert await ends(process) == 0
        assert not [line for line in process.lines() if line["level"] == "error"]
    assert (tmp_path / "data" / "fn.db").exists()
    async with serve(tmp_path) as process, asking(process.url) as node:
        assert (await node.invoke(fn)).content == b"hello"


async def test_a_node_with_declared_functions_has_no_api(tmp_path: Path) -> None:
    functions = tmp_path / "functions.yaml"
    functions.write_text(
        f"apps: [{{name: a, fns: [{{name: f, image: '{fnt_path()}'}}],"
        " triggers: [{name: t, source: /, fn: f}]}]"
    )
    async with (
        serve(tmp_path, "--functions", str(functions)) as process,
        asking(process.url) as node,
    ):
        assert (await node.client.post("/t/a", content=b"x")).content == b"x"
        assert (await node.client.get("/v2/apps")).status_code == 404
    assert not (tmp_path / "data").exists()


async def test_api_lb_and_runner(tmp_path: Path) -> None:
    short = {"FN_LOOKUP_TTL": "100ms"}
    async with (
        open_node("api", "--bind", "127.0.0.1:0", cwd=tmp_path) as api,
        open_node("runner", "--driver", "process", "--bind", "127.0.0.1:0") as runner,
        open_node(
            *("lb", "--bind", "127.0.0.1:0", "--runners", runner.ready["grpc"]),
            *("--api-url", api.url),
            env=short,
        ) as lb,
        asking(api.url) as there,
        asking(lb.url) as node,
    ):
        _, fn, _ = await there.deploy()
        assert (await node.invoke(fn)).content == b"hello"
        assert (await node.client.post("/t/shop/pay", content=b"x")).content == b"x"
        assert (await there.client.post("/t/shop/pay")).status_code == 404  # takes no calls
        assert (await node.client.get("/v2/apps")).status_code == 404  # has no API
        none = await node.client.post("/invoke/none")
        assert (none.status_code, none.json()) == (404, {"message": "Fn not found"})
        detached = await node.invoke(fn, **{"Fn-Invoke-Type": "detached"})
        assert detached.status_code == 202
        assert await ends(api) == 0
        await trio.sleep(0.2)  # what was looked up has become old
        assert (await node.invoke(fn)).content == b"hello"
        unknown = await node.client.post("/invoke/other")
        assert (unknown.status_code, unknown.json()["message"]) == (
            503,
            "API unavailable, try again later",
        )
        await lb.wait_line("look-ups fail")
        assert await ends(lb) == 0


async def test_cross_origin_requests_are_for_all_of_a_node(tmp_path: Path) -> None:
    cors = {"FN_API_CORS_ORIGINS": "https://page.example"}
    async with serve(tmp_path, env=cors) as process, asking(process.url) as node:
        for path in ("/v2/apps", "/t/shop/none", "/version"):
            page = await node.client.get(path, headers={"Origin": "https://page.example"})
            assert page.headers["access-control-allow-origin"] == "https://page.example"
            other = await node.client.get(path, headers={"Origin": "https://other.example"})
            assert other.status_code == 403


# --- Fn's variables ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env", "arguments"),
    [
        ({}, []),
        ({"FN_TOKEN": "secret", "FN_API_URL": "http://h", "FN_DB_URL": ""}, []),
        ({"FN_DB_URL": "sqlite3://fn.db"}, ["serve", "--bind", ":8080"]),
        ({"FN_DB_URL_FILE": "/run/secrets/url", "FN_PORT": "81"}, ["serve", "--bind", ":81"]),
        ({"FN_NODE_TYPE": "full"}, ["serve", "--bind", ":8080"]),
        ({"FN_NODE_TYPE": "", "FN_PORT": "81"}, ["serve", "--bind", ":81"]),
        ({"FN_NODE_TYPE": "full", "FN_HTTP_BIND": "h:1"}, ["serve"]),
        ({"FN_NODE_TYPE": "API"}, ["api"]),
        ({"FN_NODE_TYPE": "lb"}, ["lb"]),
        ({"FN_NODE_TYPE": "pure-runner"}, ["runner", "--http-bind", ":8080"]),
        ({"FN_NODE_TYPE": "runner", "FN_PORT": "81"}, ["runner", "--http-bind", ":81"]),
        ({"FN_NODE_TYPE": "runner", "FN_HTTP_BIND": "h:1"}, ["runner"]),
    ],
)
def test_the_node_type_is_a_command(env: dict[str, str], arguments: list[str]) -> None:
    assert command_of(env) == arguments


def test_the_node_type_may_be_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "type").write_text("api\n")
    assert command_of({"FN_NODE_TYPE_FILE": str(tmp_path / "type")}) == ["api"]
    with pytest.raises(ConfigError, match="FN_NODE_TYPE_FILE"):
        command_of({"FN_NODE_TYPE_FILE": str(tmp_path / "none")})


@asynccontextmanager
async def by_variables(folder: Path, env: Mapping[str, str]) -> AsyncIterator[str]:
    """``hostler`` without any argument. Yields its URL once it answers."""
    port = free_port()
    async with trio.open_nursery() as nursery:
        process = await trio.lowlevel.open_process(
            [str(SCRIPT)], env=clean_env({**env, "FN_PORT": str(port)}), cwd=folder
        )
        try:
            with trio.fail_after(60):
                await _answers(f"http://127.0.0.1:{port}", process)
            yield f"http://127.0.0.1:{port}"
            process.send_signal(signal.SIGTERM)
            with trio.fail_after(END_SECONDS):
                assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
        nursery.cancel_scope.cancel()


async def _answers(url: str, process: trio.Process) -> None:
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        while True:
            assert process.poll() is None
            try:
                assert (await client.get("/readyz")).status_code == 200
            except (httpx.TransportError, AssertionError):
                await trio.sleep(0.02)
            else:
                return


async def test_an_environment_of_fns_is_enough(tmp_path: Path) -> None:
    (tmp_path / "url").write_text(f"sqlite3://{tmp_path}/fn.db\n")
    database = {"FN_DB_URL_FILE": str(tmp_path / "url")}
    process_driver = {"FN_DRIVER": "process", "FN_INSECURE": "true"}
    async with by_variables(tmp_path, {"FN_NODE_TYPE": "api", **database}) as api:
        async with asking(api) as node:
            _, fn, _ = await node.deploy()
        grpc = free_port()
        runner = {"FN_NODE_TYPE": "pure-runner", "FN_GRPC_PORT": str(grpc), **process_driver}
        lb = {"FN_NODE_TYPE": "lb", "FN_RUNNER_API_URL": f"{api}/v1?a", "FN_PLACER": "ch"}
        async with (
            by_variables(tmp_path, runner) as common,
            by_variables(tmp_path, {**lb, "FN_RUNNER_ADDRESSES": f"127.0.0.1:{grpc}"}) as front,
            asking(front) as node,
            httpx.AsyncClient(base_url=common, timeout=60) as client,
        ):
            assert (await node.invoke(fn)).content == b"hello"
            assert (await client.get("/version")).status_code == 200
            assert (await client.post(f"/invoke/{fn['id']}")).status_code == 404
    full = {"FN_NODE_TYPE": "", **database, **process_driver}
    async with by_variables(tmp_path, full) as url, asking(url) as node:
        assert (await node.invoke(fn)).content == b"hello"


# --- the driver ------------------------------------------------------------------------------


def test_a_driver_that_was_named_is_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_driver("process", ":8080") == "process"
    monkeypatch.setenv("DOCKER_HOST", "unix:///none/docker.sock")
    assert choose_driver("auto", "127.0.0.1:0") == "docker"  # whoever sets that wants Docker


@pytest.mark.parametrize("bind", ["127.0.0.1:0", "localhost:1", "[::1]:1"])
def test_without_an_engine_it_is_processes_and_a_notice(
    bind: str, monkeypatch: pytest.MonkeyPatch, logs: Logs
) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr("hostler.nodes.parts.DEFAULT_SOCKET", "/none/docker.sock")
    assert choose_driver("auto", bind) == "process"
    assert logs.with_event("without isolation")


@pytest.mark.parametrize("bind", [":8080", "0.0.0.0:1", "[::]:1", "192.0.2.1:1", "node:1"])
def test_but_never_on_a_node_that_others_can_reach(
    bind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr("hostler.nodes.parts.DEFAULT_SOCKET", "/none/docker.sock")
    with pytest.raises(ConfigError, match="there is no Docker engine"):
        choose_driver("auto", bind)


def test_an_engine_that_answers_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    path = str(tmp_path / "docker.sock")
    monkeypatch.setattr("hostler.nodes.parts.DEFAULT_SOCKET", path)
    with socket.socket(socket.AF_UNIX) as engine:
        engine.bind(path)
        engine.listen()
        assert choose_driver("auto", ":8080") == "docker"
