"""How a database gets its tables: by the migrations, which are exactly the declared ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trio
from sqlalchemy import Engine, inspect, text

from hostler.config import StoreConfig
from hostler.datastore import AppFilter, DatastoreError
from hostler.store import migrate, migrate_database, open_datastore
from hostler.store.engine import WRITES, make_engine, parse_database_url
from hostler.store.schema import metadata

from .servers import Server
from .things import a_fn, a_trigger, an_app


@contextmanager
def _engine(url: str) -> Iterator[Engine]:
    engine = make_engine(parse_database_url(url), StoreConfig())
    try:
        yield engine
    finally:
        engine.dispose()


def _execute(url: str, *statements: str) -> None:
    with _engine(url) as engine, engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def _structure(engine: Engine) -> dict[str, Any]:
    """All that the database tells of the tables."""
    tables = inspect(engine)
    return {
        name: {
            "columns": [repr(column) for column in tables.get_columns(name)],
            "key": tables.get_pk_constraint(name),
            "foreign": sorted(map(str, tables.get_foreign_keys(name))),
            "unique": sorted(map(str, tables.get_unique_constraints(name))),
            "indexes": sorted(map(str, tables.get_indexes(name))),
            "options": tables.get_table_options(name),
        }
        for name in tables.get_table_names()
        if name != migrate.VERSION_TABLE
    }


async def test_migrations_make_exactly_the_declared_tables(new_url: str) -> None:
    await migrate_database(StoreConfig(db_url=new_url))
    with _engine(new_url) as engine:
        migrated = _structure(engine)
        with engine.connect() as plain, plain.execution_options(**{WRITES: True}).begin():
            metadata.drop_all(plain)
        assert _structure(engine) == {}
        with engine.begin() as connection:
            metadata.create_all(connection)
        assert _structure(engine) == migrated
    assert set(migrated) == set(metadata.tables)


async def test_tables_and_text_are_as_promised_on_a_server_with_other_defaults(
    mariadb: Server,
) -> None:
    mariadb.execute("CREATE DATABASE defaults CHARACTER SET latin1")
    await migrate_database(StoreConfig(db_url=mariadb.url("defaults")))
    (row,) = mariadb.execute("SHOW CREATE TABLE hostler_apps", "defaults")
    assert "ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin" in row[1]
    assert "`name` varbinary(255) NOT NULL" in row[1]


async def test_a_second_start_finds_all_done_and_the_rows_in_place(new_url: str) -> None:
    config = StoreConfig(db_url=new_url)
    async with open_datastore(config) as store:
        app = await store.apps.create(an_app())
        trigger = await store.triggers.create(a_trigger(await store.fns.create(a_fn(app))))
    async with open_datastore(config) as store:
        assert await store.triggers.get(trigger.id) == trigger
    async with open_datastore(config, migrate=False) as store:
        assert await store.apps.get(app.id) == app


async def _revisions(url: str) -> list[str]:
    with _engine(url) as engine, engine.connect() as connection:
        query = text(f"SELECT version_num FROM {migrate.VERSION_TABLE}")
        return [*connection.scalars(query)]


async def test_an_upgrade_keeps_rows(
    new_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """A revision after the newest one, run on tables with rows in them."""
    config = StoreConfig(db_url=new_url)
    async with open_datastore(config) as store:
        app = await store.apps.create(an_app())
    (head,) = await _revisions(new_url)
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    for path in migrate._SCRIPTS.glob("v*.py"):
        (scripts / path.name).write_text(path.read_text())
    (scripts / "next.py").write_text(
        f"import sqlalchemy as sa\nfrom alembic import op\n"
        f"revision, down_revision = 'next', {head!r}\n"
        "def upgrade():\n"
        "    column = sa.Column('extra', sa.Integer(), nullable=False, server_default='7')\n"
        "    op.add_column('hostler_apps', column)\n"
    )
    monkeypatch.setattr(migrate, "_SCRIPTS", scripts)
    with pytest.raises(DatastoreError, match="not up to date"):
        async with open_datastore(config, migrate=False):
            pass
    async with open_datastore(config) as store:
        assert await store.apps.get(app.id) == app
    with _engine(new_url) as engine, engine.connect() as connection:
        assert connection.scalar(text("SELECT extra FROM hostler_apps")) == 7
    monkeypatch.undo()
    with pytest.raises(DatastoreError, match=r"of a newer hostler \(revision next\)"):
        async with open_datastore(config):
            pass


async def test_many_nodes_start_at_once_on_an_empty_database(new_url: str) -> None:
    async def start(number: int) -> None:
        async with open_datastore(StoreConfig(db_url=new_url, db_pool_size=2)) as store:
            await store.apps.create(an_app(f"of-{number}"))

    async with trio.open_nursery() as nursery:
        for number in range(6):
            nursery.start_soon(start, number)
    async with open_datastore(StoreConfig(db_url=new_url), migrate=False) as store:
        assert len((await store.apps.list(AppFilter())).items) == 6


@pytest.mark.parametrize("kind", ["postgresql", "mysql"], indirect=True)
async def test_a_node_waits_for_one_that_migrates(new_url: str, server: Server) -> None:
    database = parse_database_url(new_url).url.database
    take, free, waits = {
        "postgresql": (
            f"SELECT pg_advisory_lock({migrate._LOCK_KEY})",
            f"SELECT pg_advisory_unlock({migrate._LOCK_KEY})",
            "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted",
        ),
        "mysql": (
            f"SELECT GET_LOCK('hostler {database}', 1)",
            f"SELECT RELEASE_LOCK('hostler {database}')",
            "SELECT 1 FROM information_schema.processlist WHERE state = 'User lock'",
        ),
    }[server.name]
    opened = trio.Event()

    async def start() -> None:
        async with open_datastore(StoreConfig(db_url=new_url)):
            opened.set()

    with _engine(new_url) as engine, engine.connect() as connection:
        connection.execute(text(take))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(start)
            with trio.fail_after(60):
                while not server.execute(waits):  # noqa: ASYNC110  (a server tells nobody)
                    await trio.sleep(0.02)
            assert not opened.is_set()
            assert not inspect(connection).get_table_names()
            connection.execute(text(free))
    assert opened.is_set()


async def test_tables_of_another_program_are_not_touched(new_url: str) -> None:
    _execute(new_url, "CREATE TABLE fns (id INTEGER)", "INSERT INTO fns VALUES (1)")
    with pytest.raises(DatastoreError, match=r"tables of another program \(fns\)"):
        async with open_datastore(StoreConfig(db_url=new_url)):
            pass
    with _engine(new_url) as engine, engine.connect() as connection:
        assert connection.scalar(text("SELECT id FROM fns")) == 1
        assert inspect(connection).get_table_names() == ["fns"]


async def test_a_migration_that_stopped_half_way_is_run_again(new_url: str) -> None:
    """MySQL commits each statement: what is left then is a part of the tables, and no revision."""
    config = StoreConfig(db_url=new_url)
    await migrate_database(config)
    _execute(new_url, "DROP TABLE hostler_triggers", f"DELETE FROM {migrate.VERSION_TABLE}")
    async with open_datastore(config) as store:
        fn = await store.fns.create(a_fn(await store.apps.create(an_app())))
        await store.triggers.create(a_trigger(fn))


async def test_the_tables_of_the_first_revision_get_their_new_names(new_url: str) -> None:
    config = StoreConfig(db_url=new_url)
    async with open_datastore(config) as store:
        fn = await store.fns.create(a_fn(await store.apps.create(an_app())))
        trigger = await store.triggers.create(a_trigger(fn))
    with _engine(new_url) as engine:
        structure = _structure(engine)
    _execute(
        new_url,
        "DROP TABLE hostler_taken_over",
        *(f"ALTER TABLE hostler_{name} RENAME TO {name}" for name in ("apps", "fns", "triggers")),
        f"UPDATE {migrate.VERSION_TABLE} SET version_num = '0001'",
    )
    async with open_datastore(config) as store:
        assert await store.triggers.get(trigger.id) == trigger
        await store.apps.delete(fn.app_id)
        assert not (await store.contents()).triggers
    with _engine(new_url) as engine:
        assert _structure(engine) == structure
