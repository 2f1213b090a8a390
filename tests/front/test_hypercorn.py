"""The application is plain ASGI: another server can run it."""

from __future__ import annotations

from typing import Any

import h11
import httpx
import hypercorn.config
import hypercorn.trio
import pytest
import trio

from hostler.calls import PendingCall
from hostler.front import invoke_app

from ._agent import TABLE, ScriptedAgent, echo
from ._sockets import Client, until


async def part_then_hang(call: PendingCall) -> None:
    await call.writer.start(200, [])
    await call.writer.write(b"part")
    await trio.sleep_forever()


async def test_echo_error_and_disconnect_under_hypercorn() -> None:
    agent = ScriptedAgent()
    config = hypercorn.config.Config()
    config.bind = ["127.0.0.1:0"]
    config.errorlog = None
    stop = trio.Event()

    async def serve(task_status: trio.TaskStatus[list[str]]) -> None:
        app: Any = invoke_app(agent, TABLE)
        await hypercorn.trio.serve(app, config, shutdown_trigger=stop.wait, task_status=task_status)

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            [base] = await nursery.start(serve)
            async with httpx.AsyncClient(base_url=base, timeout=60) as client:
                assert (await client.post("/invoke/fn1", content=b"x" * 200_000)).status_code == 200
                assert (await client.post("/invoke/none")).status_code == 404
                agent.handler = part_then_hang
                raw = Client(await trio.open_tcp_stream("127.0.0.1", int(base.rpartition(":")[2])))
                await raw.send(b"POST /invoke/fn1 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
                assert isinstance(await raw.event(), h11.Response)
                assert isinstance(await raw.event(), h11.Data)
                await raw.stream.aclose()
                await until(lambda: not agent.running)
                assert agent.record == ["finished", "cancelled"]
                agent.handler = echo
                assert (await client.post("/invoke/fn1", content=b"x")).text == "x"
            stop.set()


async def test_in_process_by_httpx() -> None:
    transport = httpx.ASGITransport(invoke_app(ScriptedAgent(), TABLE))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://lb") as client:
        answer = await client.post("/invoke/fn1", content=b"hello")
        assert (answer.status_code, answer.content) == (200, b"hello")


@pytest.mark.parametrize("path", ["/", "/version", "/metrics", "/healthz", "/readyz"])
async def test_documents_by_httpx(path: str) -> None:
    transport = httpx.ASGITransport(invoke_app(ScriptedAgent(), TABLE))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://lb") as client:
        assert (await client.get(path)).status_code == 200
