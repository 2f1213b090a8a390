"""The program of docs/reference/api.md does what the page says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from hostler.datastore import Datastore
from hostler.front import invoke_app, node_app
from tests.front._agent import ScriptedAgent

from ._client import Client

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "api.md"


@pytest.fixture
def program() -> dict[str, Any]:
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    return names


async def test_the_example_composes(
    program: dict[str, Any], store: Datastore, capsys: pytest.CaptureFixture[str]
) -> None:
    node = program["make_node"](store)
    stranger = Client(node)
    assert (await stranger.get("/v2/apps")).fails(401, "Who are you?")
    assert (await stranger.get("/version")).status == 200

    api = Client(node, (("Authorization", "Bearer secret"),))
    assert (await api.post("/v2/apps", {"name": "a"})).fails(400, "config needs TEAM")
    app = await api.made("/v2/apps", {"name": "a", "config": {"TEAM": "blue"}})
    assert app["config"] == {"CHECKED": "yes", "TEAM": "blue"}
    assert capsys.readouterr().out == "created a\n"
    path = f"/v2/apps/{app['id']}"
    changed = (await api.put(path, {"config": {"TEAM": "red", "A": "1"}})).json
    assert changed["config"] == {"A": "1", "CHECKED": "yes", "TEAM": "blue"}
    assert (await api.get(f"{path}/team")).json == {"team": "blue"}


async def test_a_mount_replaces_a_built_in_route(store: Datastore) -> None:
    agent = ScriptedAgent()  # never reached
    node = Client(invoke_app(agent, store, mounts={"/invoke": node_app()}))
    answer = await node.post("/invoke/f1", b"")
    assert answer.fails(404, "Path not found: POST /invoke/f1")
    assert (await node.get("/t/app/source")).status == 404
