"""A database that is down, frozen, or busy: clear 503s in time, recovery by itself, and nothing
left behind by who was cancelled meanwhile."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pymysql
import pytest
import sqlalchemy
import trio

from hostler.config import StoreConfig
from hostler.datastore import AppPatch, DatastoreError
from hostler.models import App
from hostler.rules.errors import AppExists, DatastoreUnavailable
from hostler.store import SqlDatastore, open_datastore
from hostler.store import transactions as transactions_module

from ..conftest import Logs
from .servers import Server
from .things import an_app

LIMIT = 2.0
"""Seconds that an operation may take here."""
SOON = 50.0
"""Seconds that are a lot more than any limit here, and less than that of the patient."""


@pytest.fixture
async def quick(url: str) -> AsyncIterator[SqlDatastore]:
    """A store with little patience."""
    async with open_datastore(StoreConfig(db_url=url, db_timeout=LIMIT, db_pool_size=2)) as store:
        yield store


@pytest.fixture
async def patient(url: str) -> AsyncIterator[SqlDatastore]:
    async with open_datastore(StoreConfig(db_url=url, db_timeout=60, db_pool_size=2)) as store:
        yield store


@contextmanager
def locked(kind: str, server: Server | None, tmp_path: Path) -> Iterator[None]:
    """Somebody else has changed all apps, and does not end the transaction."""
    connection: Any
    if server is None:
        connection = sqlite3.connect(tmp_path / "data" / "fn.db", isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
    elif kind == "postgresql":
        connection = psycopg.connect(
            host=str(server.folder), port=server.port, user="postgres", dbname="shared"
        )
        connection.execute("UPDATE hostler_apps SET shape = 'x'")
    else:
        path = f"{server.folder}/socket"
        connection = pymysql.connect(unix_socket=path, user="root", database="shared")
        connection.cursor().execute("UPDATE hostler_apps SET shape = 'x'")
    try:
        yield
    finally:
        connection.rollback()
        connection.close()


def _in_use(store: SqlDatastore) -> tuple[int, int, int]:
    """Slots, threads and connections."""
    transactions = store._transactions
    pool: Any = transactions.engine.pool
    return (
        transactions._slots.borrowed_tokens,
        transactions._threads.borrowed_tokens,
        pool.checkedout(),
    )


async def _until(condition: Callable[[], bool]) -> None:
    """Poll, as databases and threads tell nobody."""
    while not condition():  # noqa: ASYNC110
        await trio.sleep(0.002)


async def _until_waiting(store: SqlDatastore, server: Server | None) -> None:
    """Until an operation waits for a lock; on SQLite, until it has its connection."""
    waiting = {
        "postgresql": "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'",
        "mysql": "SELECT 1 FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'",
    }
    with trio.fail_after(SOON):
        await _until(lambda: _in_use(store) == (1, 1, 1))
        if server is not None:
            await _until(lambda: bool(server.execute(waiting[server.name])))


async def test_a_cancelled_update_leaves_nothing_and_changes_nothing(
    patient: SqlDatastore, kind: str, server: Server | None, tmp_path: Path
) -> None:
    app = await patient.apps.create(an_app())
    with locked(kind, server, tmp_path):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(patient.apps.update, app.id, AppPatch(config={"a": "1"}))
            await _until_waiting(patient, server)
            nursery.cancel_scope.cancel()
            nursery.cancel_scope.deadline = trio.current_time() + SOON
            began = trio.current_time()
        assert trio.current_time() - began < SOON
        assert _in_use(patient) == (0, 0, 0)
    assert await patient.apps.get(app.id) == app
    assert (await patient.apps.update(app.id, AppPatch(config={"b": "2"}))).config == {"b": "2"}


async def test_a_cancelled_operation_that_is_quick_keeps_its_connection(
    patient: SqlDatastore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transactions_module, "CANCEL_GRACE", SOON)  # a busy machine's disk is slow
    engine = patient._transactions.engine
    token = trio.lowlevel.current_trio_token()
    connected: list[object] = []
    with trio.CancelScope() as scope:
        scope.cancel()
        await patient.apps.create(an_app())
    with trio.CancelScope() as scope:

        def cancel(*_: object) -> None:
            """On the operation's thread, before a statement of it."""
            trio.from_thread.run_sync(scope.cancel, trio_token=token)

        sqlalchemy.event.listen(engine, "connect", lambda *args: connected.append(args))
        sqlalchemy.event.listen(engine, "before_cursor_execute", cancel, once=True)
        await patient.apps.create(an_app("other"))
    assert scope.cancel_called
    assert _in_use(patient) == (0, 0, 0)
    assert await patient.app_id_by_name("other")
    assert connected == []


async def test_a_lock_that_is_held_too_long_is_a_503(
    patient: SqlDatastore,
    quick: SqlDatastore,
    kind: str,
    server: Server | None,
    tmp_path: Path,
    logs: Logs,
) -> None:
    app = await patient.apps.create(an_app())
    with locked(kind, server, tmp_path), trio.fail_after(SOON):
        with pytest.raises(DatastoreUnavailable) as caught:
            await quick.apps.update(app.id, AppPatch(config={"a": "1"}))
        assert (caught.value.code, caught.value.message) == (
            503,
            "Datastore unavailable, try again later",
        )
        assert await quick.apps.get(app.id) == app  # reading goes on
    assert _in_use(quick) == (0, 0, 0)
    assert (await quick.apps.update(app.id, AppPatch(config={"a": "1"}))).config == {"a": "1"}
    assert len(logs.with_event("database unavailable")) == 1
    assert len(logs.with_event("database available again")) == 1


async def test_who_waits_for_a_connection_waits_no_longer_than_the_limit(
    patient: SqlDatastore, quick: SqlDatastore, kind: str, server: Server | None, tmp_path: Path
) -> None:
    app = await patient.apps.create(an_app())
    refused = 0

    async def update(number: int) -> None:
        nonlocal refused
        try:
            await quick.apps.update(app.id, AppPatch(config={f"K{number}": "1"}))
        except DatastoreUnavailable:
            refused += 1

    with locked(kind, server, tmp_path), trio.fail_after(SOON):
        async with trio.open_nursery() as nursery:
            for number in range(12):  # with connections for two
                nursery.start_soon(update, number)
    assert refused == 12
    assert await quick.apps.get(app.id) == app


async def test_closing_waits_for_what_runs(
    url: str, kind: str, server: Server | None, tmp_path: Path
) -> None:
    changed: list[App] = []

    async def update(store: SqlDatastore, app: App) -> None:
        changed.append(await store.apps.update(app.id, AppPatch(config={"a": "1"})))

    async with trio.open_nursery() as nursery:
        async with open_datastore(StoreConfig(db_url=url, db_timeout=30)) as store:
            app = await store.apps.create(an_app())
            with locked(kind, server, tmp_path):
                nursery.start_soon(update, store, app)
                await _until_waiting(store, server)
        assert [app.config for app in changed] == [{"a": "1"}]
        assert _in_use(store)[1:] == (0, 0)
    with pytest.raises(DatastoreUnavailable):
        await store.apps.get(app.id)


@pytest.mark.parametrize("kind", ["postgresql", "mysql"], indirect=True)
async def test_a_frozen_server_is_a_503_in_time(
    patient: SqlDatastore, quick: SqlDatastore, server: Server
) -> None:
    app = await patient.apps.create(an_app())
    assert await quick.apps.get(app.id) == app
    with server.frozen(), trio.fail_after(SOON):
        for _ in range(2):  # on the connection that was there, and on a new one
            with pytest.raises(DatastoreUnavailable):
                await quick.apps.get(app.id)
        assert _in_use(quick) == (0, 0, 0)
        with trio.move_on_after(0.1):
            await quick.apps.get(app.id)
        assert _in_use(quick) == (0, 0, 0)
    with trio.fail_after(SOON):
        assert await quick.apps.get(app.id) == app


@pytest.mark.parametrize("kind", ["postgresql", "mysql"], indirect=True)
async def test_a_server_that_goes_away_and_comes_back(
    patient: SqlDatastore, server: Server, logs: Logs
) -> None:
    app = await patient.apps.create(an_app())
    server.end()
    try:
        for _ in range(3):
            with pytest.raises(DatastoreUnavailable), trio.fail_after(SOON):
                await patient.apps.create(an_app("other"))
    finally:
        server.start()
    assert await patient.apps.get(app.id) == app
    (down,) = logs.with_event("database unavailable")
    assert down["reason"]
    assert len(logs.with_event("database available again")) == 1
    server.end()
    server.start()  # nobody has noticed: the connections in the pool are dead
    assert (await patient.apps.create(an_app("other"))).name == "other"
    with pytest.raises(AppExists):
        await patient.apps.create(an_app("other"))
    assert len(logs.with_event("database unavailable")) == 1


@pytest.mark.parametrize("kind", ["postgresql", "mysql"], indirect=True)
async def test_a_node_waits_for_a_server_that_starts_later(url: str, server: Server) -> None:
    config = StoreConfig(db_url=url, ds_db_ping_max_retries=30)
    server.end()

    async def start_later() -> None:
        await trio.to_thread.run_sync(server.start)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(start_later)
        async with open_datastore(config) as store:
            await store.apps.create(an_app())


@pytest.mark.parametrize("kind", ["postgresql", "mysql"], indirect=True)
async def test_a_node_that_reaches_no_server_says_why_without_the_password(
    url: str, server: Server
) -> None:
    config = StoreConfig(
        db_url=url.replace("@", ":hunter2@").replace("hostler-db", "nowhere"),
        ds_db_ping_max_retries=0,
    )
    with pytest.raises(DatastoreError, match=r"can't be reached: .*nowhere") as caught:
        async with open_datastore(config):
            pass
    assert "hunter2" not in str(caught.value)


async def test_a_file_that_is_no_database_says_so(tmp_path: Path) -> None:
    (tmp_path / "fn.db").write_text("no database " * 100)
    config = StoreConfig(db_url=f"sqlite3://{tmp_path}/fn.db", ds_db_ping_max_retries=1)
    with pytest.raises(DatastoreError, match=r"fn\.db can't be used: file is not a database"):
        async with open_datastore(config):
            pass


async def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        async with open_datastore(StoreConfig(db_url=f"sqlite3://{tmp_path}/file/x/fn.db")):
            pass
