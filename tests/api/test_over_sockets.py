"""The API on a real server: clients at the same time, a database that is locked, a node around
it."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import trio

from hostler.api import api_app
from hostler.config import NodeConfig, StoreConfig
from hostler.datastore import Datastore
from hostler.front import node_app
from hostler.store import open_datastore

from ._served import served


async def made(client: httpx.AsyncClient, path: str, **document: object) -> str:
    answer = await client.post(path, json=document)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


async def test_concurrent_updates_of_different_keys_all_win(store: Datastore) -> None:
    async with served(api_app(store)) as client:
        app = await made(client, "/v2/apps", name="demo")
        fn = await made(client, "/v2/fns", name="f", app_id=app, image="i")
        paths = [f"/v2/apps/{app}", f"/v2/fns/{fn}"]

        async def set_key(path: str, key: str) -> None:
            answer = await client.put(path, json={"config": {key: "set"}})
            assert answer.status_code == 200, answer.text

        async with trio.open_nursery() as clients:
            for path in paths:
                for index in range(12):
                    clients.start_soon(set_key, path, f"K{index}")
        for path in paths:
            config = (await client.get(path)).json()["config"]
            assert config == {f"K{index}": "set" for index in range(12)}


async def test_of_concurrent_creates_with_one_name_one_wins(store: Datastore) -> None:
    statuses: list[int] = []
    async with served(api_app(store)) as client:

        async def create() -> None:
            statuses.append((await client.post("/v2/apps", json={"name": "demo"})).status_code)

        async with trio.open_nursery() as clients:
            for _ in range(8):
                clients.start_soon(create)
    assert sorted(statuses) == [200, *[409] * 7]


async def test_a_locked_database_is_503_and_it_recovers_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "fn.db"
    config = StoreConfig(db_url=f"sqlite3://{path}", db_timeout=5.0)
    async with open_datastore(config) as store, served(api_app(store)) as client:
        other = sqlite3.connect(path)
        other.execute("BEGIN EXCLUSIVE")
        answer = await client.post("/v2/apps", json={"name": "demo"})
        assert answer.status_code == 503
        assert answer.json() == {"message": "Datastore unavailable, try again later"}
        assert answer.headers["retry-after"] == "1"
        assert answer.headers["content-type"] == "application/json; charset=utf-8"
        other.rollback()
        other.close()
        await made(client, "/v2/apps", name="demo")


async def test_it_is_a_part_of_a_node(store: Datastore) -> None:
    async with served(node_app(mounts={"/v2": api_app(store)})) as client:
        assert (await client.get("/version")).status_code == 200
        assert (await client.get("/v2/apps")).json() == {"items": []}
        answer = await client.get("/v2/apps/", follow_redirects=True)
        assert (answer.status_code, answer.url.path) == (200, "/v2/apps")
        answer = await client.get("/debug/pprof/")
        assert answer.json() == {"message": "Path not found: GET /debug/pprof/"}


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_client_reads_the_413_of_what_it_is_still_sending(
    store: Datastore, chunked: bool
) -> None:
    config = NodeConfig(max_request_size=1000)

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 1000

    body = pieces() if chunked else b"x" * 100_000
    async with served(api_app(store, config=config), config) as client:
        answer = await client.post("/v2/apps", content=body)
        assert answer.status_code == 413
        assert list(answer.json()) == ["message"]
        await made(client, "/v2/apps", name="demo")


async def test_a_204_has_no_length_and_the_connection_goes_on(store: Datastore) -> None:
    async with served(api_app(store)) as client:
        app = await made(client, "/v2/apps", name="demo")
        answer = await client.delete(f"/v2/apps/{app}")
        assert (answer.status_code, answer.content) == (204, b"")
        assert "content-length" not in answer.headers
        assert "transfer-encoding" not in answer.headers
        assert (await client.get("/v2/apps")).json() == {"items": []}
