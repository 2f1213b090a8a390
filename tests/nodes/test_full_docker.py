"""A full node as it is without options: its own database, and Docker."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import trio

from tests.functions.build import docker_image

from ..cli._process import END_SECONDS, ends, open_node
from .client import Node, asking

pytestmark = pytest.mark.docker


async def idle_containers(node: Node) -> int:
    text = (await node.client.get("/metrics")).text
    found = re.findall(r"^fn_container_(?:idle|paused)_total\{.*\} (\d+)", text, re.MULTILINE)
    return sum(map(int, found))


async def until_ready(node: Node, count: int) -> None:
    with trio.fail_after(END_SECONDS):
        while await idle_containers(node) != count:  # noqa: ASYNC110  (metrics don't tell)
            await trio.sleep(0.02)


async def test_deployed_functions_run_are_kept_ready_and_survive_a_restart(
    tmp_path: Path, docker_host: str
) -> None:
    image = await trio.to_thread.run_sync(docker_image, docker_host, "hostler-test/cli-serve:1")
    env = {"DOCKER_HOST": docker_host}
    command = ("serve", "--bind", "127.0.0.1:0")
    async with open_node(*command, cwd=tmp_path, env=env) as process, asking(process.url) as node:
        assert process.ready["driver"] == "docker"
        app, fn, _ = await node.deploy(image=image)
        cold = await node.invoke(fn, **{"Fnt-Do": "who"})
        assert (cold.status_code, cold.json()["request"]) == (200, 1)
        hot = await node.invoke(fn, **{"Fnt-Do": "who"})
        assert (hot.json()["id"], hot.json()["request"]) == (cold.json()["id"], 2)
        await node.client.put(f"/v2/apps/{app['id']}", json={"config": {"SHARED": "2"}})
        wish = {"annotations": {"hostler/min-warm": 1}}
        assert (await node.client.put(f"/v2/fns/{fn['id']}", json=wish)).status_code == 200
        assert await ends(process) == 0
        assert not [line for line in process.lines() if line["level"] == "error"]
    async with open_node(*command, cwd=tmp_path, env=env) as process, asking(process.url) as node:
        await until_ready(node, 1)  # nobody has called yet
        assert (await node.client.get(f"/v2/fns/{fn['id']}")).json()["name"] == "fnt"
        first = await node.invoke(fn, **{"Fnt-Do": "env"})
        assert first.json()["env"]["SHARED"] == "2"
        assert (await node.client.get("/t/shop/pay")).status_code == 200
        off = {"annotations": {"hostler/min-warm": None}}
        assert (await node.client.put(f"/v2/fns/{fn['id']}", json=off)).status_code == 200
        assert await ends(process) == 0
