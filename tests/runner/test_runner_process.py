"""``hostler runner`` as a process: status, metrics, log streams, and its end."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from hostler import wire
from hostler.protocol import (
    ClientEngagement,
    Data,
    Finished,
    LogAck,
    LogReady,
    LogStart,
    RunnerFrame,
)
from hostler.wire import ConnectOptions, GrpcRunnerClient
from tests.cli._process import END_SECONDS, NodeProcess, ends_at_once, open_node, run
from tests.functions.build import fnt_path

from .runners import try_call

pytestmark = pytest.mark.process

HOOKS = """
from hostler.runner import Hooks

async def check():
    return {"disk": "ok"}

def hooks():
    return Hooks(health_checker=check, kdumps_on_disk=lambda: 2)
"""


@asynccontextmanager
async def open_runner(
    *args: str, **options: Any
) -> AsyncIterator[tuple[NodeProcess, GrpcRunnerClient]]:
    """A runner process on local processes, and a client of it."""
    command = ("runner", "--driver", "process", "--bind", "127.0.0.1:0", *args)
    with trio.fail_after(40):
        async with wire.open_loop() as loop, open_node(*command, **options) as node:
            client = GrpcRunnerClient(
                node.ready["grpc"], ConnectOptions(connect_timeout=60), loop=loop
            )
            try:
                yield node, client
            finally:
                with trio.CancelScope(shield=True):
                    await client.aclose()


def fnt_call(orders: str = "", **model: Any) -> Any:
    return try_call(str(fnt_path()), headers={"Fnt-Do": [orders]}, **model)


async def outcome(engagement: ClientEngagement) -> Finished:
    frames: list[RunnerFrame] = []
    while (frame := await engagement.receive()) is not None:
        frames.append(frame)
    assert isinstance(frames[-1], Finished)
    return frames[-1]


async def call(client: GrpcRunnerClient, orders: str = "", **model: Any) -> Finished:
    async with client.engage(fnt_call(orders, **model), first=Data(b"", eof=True)) as engagement:
        return await outcome(engagement)


async def ends(node: NodeProcess) -> int:
    with trio.fail_after(END_SECONDS):
        return await node.process.wait()


async def metrics_of(node: NodeProcess) -> dict[str, float]:
    async with httpx.AsyncClient(timeout=60) as http:
        text = (await http.get(f"{node.url}/metrics")).text
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


async def test_status_with_image_checker_and_barrier_and_the_metrics(tmp_path: Path) -> None:
    (tmp_path / "provider.py").write_text(HOOKS)
    options = ["--status-image", str(fnt_path()), "--network-barrier", str(tmp_path / "up")]
    options += ["--hooks", "provider:hooks", "--http-bind", "127.0.0.1:0"]
    async with open_runner(*options, cwd=tmp_path) as (node, client):
        status = await client.status('{"k":1}')
        assert (status.failed, status.details) == (False, '{"k":1}')
        assert (status.is_network_disabled, status.kdumps_on_disk) == (True, 2)
        assert status.custom_status == {"disk": "ok"}
        assert (await client.status('{"k":1}')).cached
        assert (await call(client)).error_text == "Invalid Fn image"
        shown = await metrics_of(node)
        assert shown['fn_status_call{cached="true",network="false",success="true"}'] == 1
        assert shown["fn_calls"] == shown["fn_completed"] == 1
        assert shown["fn_util_mem_used"] == 0
        assert shown["fn_util_mem_avail"] > 0
        assert shown["fn_container_launches"] == 1


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 6, 8])
async def test_a_call_that_finds_no_file_descriptor_is_refused(count: int) -> None:
    """However far its container comes with those that are left."""
    async with open_runner() as (node, client):
        assert (await call(client)).success
        pid = node.process.pid
        used = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
        free = [number for number in range(max(used) + 20) if number not in used]
        soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (free[count], hard))
        short = await call(client, fn_id="another")
        assert short.success or (short.error_code, short.error_user) == (503, False)
        assert count or not short.success
        assert (await call(client)).success  # what runs has what it needs
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
        assert (await call(client, fn_id="another")).success


async def test_log_lines_of_a_call_reach_a_collector() -> None:
    async with open_runner("--stream-logs") as (_, client), client.stream_logs() as collector:
        await collector.send(LogStart())
        await collector.send(LogReady())
        assert (await call(client, "out=to stdout;err=to stderr", id="call-1")).success
        lines: set[tuple[str, bytes, bool]] = set()
        while len(lines) < 2:
            batch = await collector.receive()
            assert batch is not None
            for container in batch:
                assert (container.app_id, container.fn_id) == ("app", f"fn-{fnt_path()}")
                for request in container.requests:
                    lines |= {(request.request_id, x.data, x.stderr) for x in request.lines}
            await collector.send(LogAck())
        assert lines == {("call-1", b"to stdout", False), ("call-1", b"to stderr", True)}


async def test_a_load_balancer_that_falls_silent_is_given_up() -> None:
    """It keeps its connection and answers no ping, as a process that was stopped."""
    env = {"FN_RUNNER_KEEPALIVE_INTERVAL": "100ms", "FN_RUNNER_KEEPALIVE_TIMEOUT": "2s"}
    async with open_runner(env=env) as (node, client):
        host, _, port = node.ready["grpc"].rpartition(":")
        async with await trio.open_tcp_stream(host, int(port)) as silent:
            await silent.send_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\4" + bytes(5))
            line = await node.wait_line("peer has vanished")
            assert line["reason"] == "no answer to a ping within 2 s"
            with contextlib.suppress(trio.BrokenResourceError):  # closed or reset
                while await silent.receive_some():
                    pass
        assert (await call(client)).success  # who answers is left alone


async def test_without_the_option_there_is_no_streamer() -> None:
    async with open_runner() as (_, client), client.stream_logs() as collector:
        await collector.send(LogStart())
        with pytest.raises(Exception, match="runner not configured with logStreamer"):
            await collector.receive()


async def test_a_first_signal_drains_and_exits_with_0() -> None:
    """One container at most. The running call is in the test's hand: its body is not complete."""
    env = {"FN_MAX_TOTAL_MEMORY_BYTES": "200000000", "FN_ENABLE_NB_RESOURCE_TRACKER": "false"}
    async with (
        open_runner("--stream-logs", "--http-bind", "127.0.0.1:0", env=env) as (node, client),
        client.stream_logs() as collector,
        client.engage(fnt_call("out=running"), first=Data(b"a")) as first,
    ):
        await collector.send(LogStart())
        await collector.send(LogReady())
        batch = await collector.receive()
        assert batch is not None
        assert [line.data for line in batch[0].requests[0].lines] == [b"running"]
        async with client.engage(fnt_call(), first=Data(b"", eof=True)) as second:
            while (await client.status()).active < 2:  # noqa: ASYNC110  (nothing tells)
                await trio.sleep(0.01)
            node.process.send_signal(signal.SIGTERM)
            assert (await outcome(second)).error_code == 503
        await node.wait_line("runner drains")
        async with httpx.AsyncClient(timeout=60) as http:
            assert (await http.get(f"{node.url}/readyz")).status_code == 503
        assert (await metrics_of(node))["fn_running"] == 1
        await first.send(Data(b"b", eof=True))
        assert (await outcome(first)).success
        await collector.send(LogAck())
        assert await collector.receive() is None
        assert await ends(node) == 0


async def test_a_second_signal_ends_at_once() -> None:
    async with (
        open_runner("--http-bind", "127.0.0.1:0") as (node, client),
        client.engage(fnt_call(), first=Data(b"never complete")),
    ):
        # Not one that waits, which would be refused.
        while not (await metrics_of(node)).get("fn_running"):  # noqa: ASYNC110  (nothing tells)
            await trio.sleep(0.01)
        node.process.send_signal(signal.SIGTERM)
        await node.wait_line("runner drains")
        assert await ends_at_once(node) == 128 + signal.SIGTERM


@pytest.mark.parametrize(
    ("hooks", "message"),
    [
        ("nonsense", "--hooks 'nonsense': takes module:attribute"),
        ("builtins:dict", "--hooks 'builtins:dict': must return hostler.runner.Hooks, not a dict"),
    ],
)
async def test_hooks_that_are_none_end_the_start(hooks: str, message: str) -> None:
    done = await run("runner", "--driver", "process", "--bind", "127.0.0.1:0", "--hooks", hooks)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
