"""Ids tell the node that made them."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from hostler import ids
from hostler.ids import IdGenerator, machine_id_of, new_id
from hostler.nodes import settings
from hostler.nodes.settings import own_address, take_machine_id
from tests.support.ids import parse_id

from ..cli._process import open_node


@pytest.fixture(autouse=True)
def generator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "_process_ids", IdGenerator(7))


@pytest.mark.parametrize(
    ("bound", "own", "machine_id"),
    [
        ("10.0.0.1:8080", None, machine_id_of("10.0.0.1", 8080)),
        ("0.0.0.0:9190", "10.0.0.2", machine_id_of("10.0.0.2", 9190)),
        ("[::]:9190", "10.0.0.2", machine_id_of("10.0.0.2", 9190)),
        ("[::]:9190", None, 7),
        ("[fd00::1]:9190", "10.0.0.2", 7),
    ],
)
def test_the_machine_id_is_the_address(
    monkeypatch: pytest.MonkeyPatch, bound: str, own: str | None, machine_id: int
) -> None:
    monkeypatch.setattr(settings, "own_address", lambda: own)
    take_machine_id(bound)
    assert parse_id(new_id()).machine_id == machine_id


def test_own_address() -> None:
    assert own_address("127.0.0.1") == "127.0.0.1"
    assert own_address("255.255.255.255") is None  # broadcasting has to be asked for


@pytest.mark.parametrize(
    "command", [("serve", "--driver", "process"), ("lb", "--runners", "127.0.0.1:1")]
)
async def test_calls_of_a_node_carry_it(tmp_path: Path, command: tuple[str, ...]) -> None:
    functions = tmp_path / "functions.yaml"
    functions.write_text("apps: [{name: app, fns: [{name: gone, id: gone, image: /none/such}]}]")
    args = (*command, "--bind", "127.0.0.1:0", "--functions", str(functions))
    env = {"FN_PLACER_TIMEOUT": "100ms"}
    async with (
        open_node(*args, env=env) as node,
        httpx.AsyncClient(base_url=node.url, timeout=60) as client,
    ):
        answer = await client.post("/invoke/gone")
    port = int(node.url.rpartition(":")[2])
    call_id = answer.headers["fn-call-id"]
    assert parse_id(call_id).machine_id == machine_id_of("127.0.0.1", port)
