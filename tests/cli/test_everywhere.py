"""What holds on nodes of each type: limits, for the defaults and by files, and request ids."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import h11
import httpx
import msgspec
import pytest
import trio

from hostler.functions import load_functions
from tests.functions.build import fnt_path
from tests.support.ids import fn_by_name

from ._process import NodeProcess, open_node

NODES = ("full", "api", "lb", "runner")
BODIES = {"full": "/invoke/f", "api": "/v2/apps", "lb": "/t/app"}
"""Where a node of the type takes a body; a runner takes none by HTTP."""
KIB, MIB = 1024, 1024 * 1024


@asynccontextmanager
async def node_of(kind: str, folder: Path, env: Mapping[str, str]) -> AsyncIterator[NodeProcess]:
    local = ("--bind", "127.0.0.1:0")
    functions = folder / "functions.yaml"
    functions.write_text(
        "apps: [{name: app, fns: [{name: f, id: f, image: 'true'}],"
        " triggers: [{name: t, source: /, fn: f}]}]"
    )
    declared = ("--functions", str(functions))
    arguments = {
        "full": ("serve", "--driver", "process", *local, *declared),
        "api": ("api", *local),
        "lb": ("lb", *local, *declared, "--runners", "127.0.0.1:9"),
        "runner": ("runner", *local, "--driver", "process", "--http-bind", "127.0.0.1:0"),
    }
    async with open_node(*arguments[kind], env=env, cwd=folder) as node:
        yield node


async def answer_to(node: NodeProcess, data: bytes) -> tuple[int, str]:
    """Status and message that a connection gets which sends ``data``, and no more."""
    host, _, port = node.url.removeprefix("http://").rpartition(":")
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
    status, body = 0, b""
    with trio.fail_after(60):
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            with contextlib.suppress(trio.BrokenResourceError):  # refused before it was read
                await stream.send_all(data)
            while not isinstance(event := connection.next_event(), h11.EndOfMessage):
                if event is h11.NEED_DATA:
                    connection.receive_data(await stream.receive_some())
                elif isinstance(event, h11.Response):
                    status = event.status_code
                elif isinstance(event, h11.Data):
                    body += event.data
    return status, msgspec.json.decode(body, type=dict[str, str])["message"]


def head_of(size: int) -> bytes:
    """A whole request head of so many bytes."""
    start = b"GET /version HTTP/1.1\r\nHost: localhost\r\nX-Fill: "
    return start + b"x" * (size - len(start) - 4) + b"\r\n\r\n"


async def check_limits(node: NodeProcess, kind: str, *, head: int, body: int) -> None:
    async with httpx.AsyncClient(base_url=node.url, timeout=60) as client:
        fits = await client.get("/version", headers={"X-Fill": "x" * (head - 500)})
        assert fits.status_code == 200
    assert (await answer_to(node, head_of(head + 1000)))[0] == 431
    if kind not in BODIES:
        return
    post = f"POST {BODIES[kind]} HTTP/1.1\r\nHost: localhost\r\n".encode()
    assert await answer_to(node, post + b"Content-Length: %d\r\n\r\n" % (body + 1)) == (
        413,
        f"Content-Length too large for this server, {body + 1} > max {body}",
    )


@pytest.mark.parametrize("kind", NODES)
async def test_limits_are_on_by_default(kind: str, tmp_path: Path) -> None:
    async with node_of(kind, tmp_path, {}) as node:
        await check_limits(node, kind, head=64 * KIB, body=6 * MIB)


@pytest.mark.parametrize("kind", NODES)
async def test_limits_may_be_in_files(kind: str, tmp_path: Path) -> None:
    settings = {
        "FN_MAX_REQUEST_HEADER_SIZE": "2000",
        "FN_MAX_REQUEST_SIZE": "1000",
        "FN_REQUEST_HEADER_READ_TIMEOUT": "1s",
        "FN_REQUEST_BODY_READ_TIMEOUT": "1000ms",
    }
    env = {}
    for name, value in settings.items():
        (tmp_path / name).write_text(f"{value}\n")
        env[f"{name}_FILE"] = str(tmp_path / name)
    async with node_of(kind, tmp_path, env) as node:
        await check_limits(node, kind, head=2000, body=1000)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(check_slow_head, node)
            if kind in BODIES:
                await check_bodies(
                    node, f"POST {BODIES[kind]} HTTP/1.1\r\nHost: localhost\r\n".encode()
                )


async def check_slow_head(node: NodeProcess) -> None:
    slow_head = await answer_to(node, b"GET / HTTP/1.1\r\nHost:")
    assert slow_head == (408, "Request header read timed out")


async def check_bodies(node: NodeProcess, post: bytes) -> None:
    slow_body = await answer_to(node, post + b"Content-Length: 10\r\n\r\nx")
    assert slow_body == (408, "Request body read timed out")
    chunked = post + b"Transfer-Encoding: chunked\r\n\r\n" + b"1f4\r\n" + b"x" * 500
    assert (await answer_to(node, chunked + b"\r\n1f5\r\n" + b"x" * 501))[0] == 413


async def test_a_request_id_is_in_the_logs_of_both_ends(tmp_path: Path) -> None:
    functions = tmp_path / "functions.yaml"
    functions.write_text(f"apps: [{{name: a, fns: [{{name: f, image: '{fnt_path()}'}}]}}]")
    fn_id = fn_by_name(load_functions(functions), "a", "f").id
    local, debug = ("--bind", "127.0.0.1:0"), ("--log-level", "debug")
    rid = {"FN_RID_HEADER": "x-request"}
    async with (
        open_node("runner", "--driver", "process", *local, *debug) as runner,
        open_node(
            *("lb", "--functions", str(functions), "--runners", runner.ready["grpc"]),
            *local,
            env=rid,
        ) as lb,
        httpx.AsyncClient(base_url=lb.url, timeout=60) as client,
    ):
        answer = await client.post(f"/invoke/{fn_id}", headers={"X-Request": "rid-1"})
        for node in (lb, runner):
            with trio.fail_after(60):
                line = await node.wait_line("call finished")
            assert (line["call_id"], line["request_id"]) == (
                answer.headers["fn-call-id"],
                "rid-1",
            )
