"""A database that Fn made is taken over: once, whole or not at all, and Fn's tables stay."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest
import trio
from sqlalchemy import text

from hostler.config import StoreConfig
from hostler.datastore import DatastoreError
from hostler.store import migrate_database, open_datastore
from tests.cli._process import open_node, run
from tests.functions.build import fnt_path
from tests.nodes.client import asking

from .fn_database import (
    APP_ID,
    FN_ID,
    TRIGGER_ID,
    VERSIONS,
    add,
    fn_rows,
    make_fn_database,
    writing,
)
from .things import a_fn, an_app

NODE = ("serve", "--driver", "process", "--bind", "127.0.0.1:0")


async def test_a_deployment_moves_by_starting_the_other_binary(
    new_url: str, tmp_path: Path
) -> None:
    make_fn_database(new_url, image=str(fnt_path()))
    before = fn_rows(new_url)
    env = {"FN_DB_URL": new_url}
    async with open_node(*NODE, env=env, cwd=tmp_path) as process, asking(process.url) as node:
        assert (await node.invoke({"id": FN_ID})).content == b"hello"
        assert (await node.client.post("/t/shop/pay", content=b"hello")).content == b"hello"
        app = (await node.client.get(f"/v2/apps/{APP_ID}")).json()
        assert app["config"] == {"SHARED": "1", "HTML": "<b>"}
        assert app["annotations"] == {"example.com/tier": {"of": ["gold", 1]}}
        assert app["syslog_url"] == "tcp://logs.example:514"
        assert app["created_at"] == "2019-01-02T03:04:05.678Z"
        fn = (await node.client.get(f"/v2/fns/{FN_ID}")).json()
        assert (fn["memory"], fn["timeout"], fn["idle_timeout"]) == (256, 40, 50)
        assert fn["config"] == {"OWN": "2"}
        trigger = (await node.client.get(f"/v2/triggers/{TRIGGER_ID}")).json()
        assert (trigger["fn_id"], trigger["source"]) == (FN_ID, "/pay")
        line = await process.wait_line("took over the database of Fn")
        assert line["contents"] == "1 app, 1 function and 1 trigger"
        put = await node.client.put(f"/v2/apps/{APP_ID}", json={"config": {"SHARED": "2"}})
        assert put.status_code == 200
    assert fn_rows(new_url) == before
    async with open_node(*NODE, env=env, cwd=tmp_path) as process, asking(process.url) as node:
        app = (await node.client.get(f"/v2/apps/{APP_ID}")).json()
        assert app["config"]["SHARED"] == "2"


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
@pytest.mark.parametrize("version", VERSIONS)
async def test_each_version_of_fns_tables(new_url: str, version: int) -> None:
    make_fn_database(new_url, version)
    async with open_datastore(StoreConfig(db_url=new_url)) as store:
        app_id = await store.app_id_by_name("shop")
        assert app_id == APP_ID if version >= 10 else len(app_id) == len(APP_ID)
        app = await store.apps.get(app_id)
        assert app.config["SHARED"] == "1"
        assert bool(app.annotations) == (version >= 8)
        created = dt.datetime(2019, 1, 2, 3, 4, 5, 678_000, dt.UTC)
        assert app.created_at == (created if version >= 5 else None)
        if version >= 16:
            assert (await store.fns.get(FN_ID)).image == "shop/pay:1"
        if version >= 17:
            assert (await store.trigger_by_source(APP_ID, "http", "/pay")).id == TRIGGER_ID


async def test_an_empty_database_of_fns(new_url: str) -> None:
    make_fn_database(new_url, empty=True)
    config = StoreConfig(db_url=new_url)
    async with open_datastore(config) as store:
        app = await store.apps.create(an_app())
    async with open_datastore(config) as store:
        assert await store.apps.get(app.id) == app


async def test_two_nodes_start_at_once(new_url: str) -> None:
    make_fn_database(new_url)

    async def start() -> None:
        async with open_datastore(StoreConfig(db_url=new_url)) as store:
            assert (await store.fns.get(FN_ID)).name == "pay"

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(start)


REFUSED: dict[str, tuple[str, str]] = {
    "dirty": ("UPDATE schema_migrations SET dirty = true", "schema version 26 is dirty"),
    "newer": ("UPDATE schema_migrations SET version = 27", r"of a newer Fn \(schema version 27\)"),
    "half": ("ALTER TABLE fns RENAME TO old_fns", "tables of another program"),
    "config": ("UPDATE fns SET config = '{\"A\":'", f"fn {FN_ID} can't be read"),
    "date": ("UPDATE apps SET created_at = 'then'", f"app {APP_ID} can't be read"),
    "memory": ("UPDATE fns SET memory = -1", "its memory is out of range"),
    "image": ("UPDATE fns SET image = ''", "its image is empty"),
}


@pytest.mark.parametrize("problem", REFUSED)
async def test_what_is_refused_is_not_touched(new_url: str, problem: str) -> None:
    make_fn_database(new_url)
    statement, says = REFUSED[problem]
    with writing(new_url) as connection:
        connection.execute(text(statement))
    folder = Path(new_url.removeprefix("sqlite3://")).parent
    before = _files(folder) if new_url.startswith("sqlite") else {}
    for migrates in (True, False):
        with pytest.raises(DatastoreError, match=says):
            async with open_datastore(StoreConfig(db_url=new_url), migrate=migrates):
                pass
    if before:
        assert _files(folder) == before
    with writing(new_url) as connection:
        tables = [*connection.scalars(text(_TABLES[connection.dialect.name]))]
    assert not [name for name in tables if name.startswith("hostler_")]


_TABLES = {
    "sqlite": "SELECT name FROM sqlite_master",
    "postgresql": "SELECT tablename FROM pg_tables",
    "mysql": "SELECT table_name FROM information_schema.tables WHERE table_schema = database()",
}


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


async def test_triggers_that_share_a_source_are_named(new_url: str) -> None:
    """Fn's API refuses them, unless they are made at the same time; its tables don't."""
    make_fn_database(new_url)
    with writing(new_url) as connection:
        add(connection, "triggers", id="other", name="again")
    with pytest.raises(DatastoreError, match=r"trigger shop/pay/again .* have the same source"):
        await migrate_database(StoreConfig(db_url=new_url))


async def test_what_belongs_to_nothing_is_left_out(new_url: str) -> None:
    """Fn before 0.3.500 leaves functions of an app that was removed."""
    make_fn_database(new_url)
    with writing(new_url) as connection:
        add(connection, "fns", id="lost", app_id="gone")
    done = await migrate_database(StoreConfig(db_url=new_url))
    assert done.fn is not None
    assert done.fn.left_out == ["function gone/pay (lost): what it belongs to is gone"]


async def test_the_way_back_and_here_again(new_url: str) -> None:
    """Fn runs again for a while, and changes what hostler had taken over."""
    make_fn_database(new_url)
    config = StoreConfig(db_url=new_url)
    async with open_datastore(config) as store:
        app = await store.apps.create(an_app("ours"))
        ours = await store.fns.create(a_fn(app))
    with writing(new_url) as connection:
        connection.execute(text("UPDATE fns SET memory = 512"))
    with pytest.raises(DatastoreError, match="hostler migrate --use fn"):
        async with open_datastore(config):
            pass
    async with open_datastore(config, migrate=False) as store:  # for `hostler export`
        assert await store.fns.get(ours.id) == ours
    planned = await migrate_database(config, use="fn", dry_run=True)
    assert str(planned.own) == "2 apps, 2 functions and 1 trigger"
    await migrate_database(config, use="hostler")
    async with open_datastore(config) as store:
        assert (await store.fns.get(FN_ID)).memory == 256
        assert await store.fns.get(ours.id) == ours
    await migrate_database(config, use="fn")
    async with open_datastore(config) as store:
        assert (await store.fns.get(FN_ID)).memory == 512
        assert [fn.id for fn in (await store.contents()).fns] == [FN_ID]


async def test_the_command_says_what_it_would_do(new_url: str, tmp_path: Path) -> None:
    make_fn_database(new_url)
    before = fn_rows(new_url)
    env = {"FN_DB_URL": new_url}
    planned = await run("migrate", "--dry-run", env=env)
    assert "1 app, 1 function and 1 trigger would be taken over from Fn's tables, version 26" in (
        planned.stdout
    )
    assert planned.stdout.endswith("nothing was changed\n")
    with pytest.raises(DatastoreError, match="run `hostler migrate` first"):
        async with open_datastore(StoreConfig(db_url=new_url), migrate=False):
            pass
    assert "1 trigger taken over" in (await run("migrate", env=env)).stdout
    assert "up to date" in (await run("migrate", env=env)).stdout
    assert fn_rows(new_url) == before


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
async def test_a_back_up_and_its_import(new_url: str, tmp_path: Path) -> None:
    make_fn_database(new_url)
    env, other = {"FN_DB_URL": new_url}, {"FN_DB_URL": f"sqlite3://{tmp_path}/other.db"}
    await run("migrate", env=env)
    file = tmp_path / "backup.json"
    done = await run("export", str(file), env=env)
    assert done.stdout == f"1 app, 1 function and 1 trigger exported to {file}\n"
    assert file.stat().st_mode & 0o777 == 0o600
    assert (await run("import", str(file), "--dry-run", env=other)).returncode != 0
    await run("migrate", env=other)
    planned = await run("import", str(file), "--dry-run", env=other)
    assert "function shop/pay would be created" in planned.stdout
    assert "3 created, 0 changed" in (await run("import", str(file), env=other)).stdout
    again = await run("import", str(file), env=other)
    assert again.stdout == "0 created, 0 changed, 3 unchanged\n"
    assert (await run("export", env=other)).stdout == file.read_text()
    file.write_text("{}")
    refused: Any = await run("import", str(file), env=other)
    assert refused.returncode == 1
    assert "not a file of hostler export" in refused.stderr


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
async def test_import_from_the_api_of_a_node(new_url: str, tmp_path: Path) -> None:
    make_fn_database(new_url)
    other = f"sqlite3://{tmp_path}/other.db"
    async with open_node(*NODE, env={"FN_DB_URL": new_url}, cwd=tmp_path) as node:
        done = await run("import", "--from", node.url, env={"FN_DB_URL": other})
    assert "3 created, 0 changed, 0 unchanged" in done.stdout
    async with (
        open_datastore(StoreConfig(db_url=new_url), migrate=False) as one,
        open_datastore(StoreConfig(db_url=other), migrate=False) as two,
    ):
        assert await one.contents() == await two.contents()
