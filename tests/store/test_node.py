"""A whole node whose database server goes away and comes back."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.cli._process import END_SECONDS, open_node
from tests.nodes.client import asking

from .servers import Server


@pytest.mark.parametrize("kind", ["postgresql", "mysql"], indirect=True)
async def test_calls_go_on_and_the_api_comes_back_by_itself(
    url: str, server: Server, tmp_path: Path
) -> None:
    env = {"FN_DB_URL": url, "FN_LOOKUP_TTL": "50ms"}
    command = ("serve", "--driver", "process", "--bind", "127.0.0.1:0")
    async with open_node(*command, env=env, cwd=tmp_path) as process, asking(process.url) as node:
        app, fn, _ = await node.deploy()
        assert (await node.invoke(fn)).content == b"hello"
        change: dict[str, Any] = {"json": {"config": {"A": "1"}}}
        server.end()
        try:
            await trio.sleep(0.1)  # what was looked up has become old
            assert (await node.invoke(fn)).content == b"hello"
            for answer in (
                await node.client.get("/v2/apps"),
                await node.client.put(f"/v2/apps/{app['id']}", **change),
                await node.client.post("/invoke/unknown"),
            ):
                assert answer.status_code == 503
                assert answer.json()["message"]
            assert int((await node.client.get("/v2/apps")).headers["retry-after"]) > 0
        finally:
            server.start()
        assert (await node.client.put(f"/v2/apps/{app['id']}", **change)).status_code == 200
        assert (await node.client.get(f"/v2/apps/{app['id']}")).json()["config"]["A"] == "1"
        assert (await node.invoke(fn)).content == b"hello"
        process.process.send_signal(signal.SIGTERM)
        with trio.fail_after(END_SECONDS):
            assert await process.process.wait() == 0
    assert not [line for line in process.lines() if line["level"] == "error"]
