"""The SQL datastore, and opening it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Generic

import structlog
import trio
from sqlalchemy import Connection, select
from sqlalchemy.exc import SQLAlchemyError

from .._arguments import check
from ..config import StoreConfig
from ..datastore import Changes, Contents, DatastoreError, Filter, Page, Patch, Thing
from ..models import App, Fn, Trigger
from ..rules import Limits
from ..rules.errors import DatastoreUnavailable
from .engine import Database, make_engine, parse_database_url
from .fn_tables import Side
from .migrate import (
    TIME_LIMIT,
    Migration,
    check_current,
    for_migration,
    plan,
    upgrade,
)
from .schema import triggers
from .things import (
    AppTable,
    FnTable,
    ThingTable,
    TriggerTable,
    find_app_id,
    load_app_and_fn,
    load_contents,
    put_contents,
)
from .transactions import Result, Transactions, Work, reason, remedy


class SqlCollection(Generic[Thing, Patch, Filter]):
    """A `hostler.datastore.Collection` in a table. It checks values and ids before it asks the
    database."""

    def __init__(self, transactions: Transactions, table: ThingTable[Thing, Patch, Filter]) -> None:
        self._transactions = transactions
        self._table = table

    async def list(self, where: Filter) -> Page[Thing]:
        self._table.check_where(where)
        return await self._transactions.read(lambda db: self._table.page(db, where))

    async def create(self, new: Thing) -> Thing:
        checked = self._table.check(new)
        return await self._transactions.write(lambda db: self._table.insert(db, checked))

    async def get(self, id: str) -> Thing:
        self._check_id(id)
        return await self._transactions.read(lambda db: self._table.load(db, id))

    async def update(self, id: str, patch: Patch) -> Thing:
        """No other change happens between the read and the write."""
        self._check_id(id)
        if patch.id not in ("", id):
            raise self._table.other_id
        return await self._transactions.write(lambda db: self._table.change(db, id, patch))

    async def delete(self, id: str) -> None:
        self._check_id(id)
        await self._transactions.write(lambda db: self._table.remove(db, id))

    def _check_id(self, id: str) -> None:
        if not id:
            raise self._table.missing_id


class SqlDatastore:
    """A `hostler.datastore.Datastore`. `open_datastore` makes it.

    An operation occupies a worker thread and a connection. It takes ``FN_DB_TIMEOUT`` at most,
    and a little over a second from when it is cancelled; a connection that is still to be made has
    that limit once more (2 s at least on PostgreSQL, by its library). Time is the real one: under
    a mock clock with autojump every operation is out of time at once.
    """

    def __init__(self, transactions: Transactions, limits: Limits) -> None:
        self._transactions = transactions
        self._triggers = TriggerTable(limits)
        self.apps = SqlCollection(transactions, AppTable(limits))
        self.fns = SqlCollection(transactions, FnTable(limits))
        self.triggers = SqlCollection(transactions, self._triggers)

    def __repr__(self) -> str:
        return f"<SqlDatastore {self._transactions!r}>"

    async def app_id_by_name(self, name: str) -> str:
        """Reads the id alone, by the exact name. Raises `AppNotFound`."""
        return await self._transactions.read(lambda db: find_app_id(db, name))

    async def find(self, fn_id: str) -> tuple[App, Fn]:
        """Reads both in one query. Raises `FnNotFound`."""
        return await self._transactions.read(lambda db: load_app_and_fn(db, fn_id))

    async def find_trigger(self, app_name: str, source: str) -> tuple[App, Fn, Trigger]:
        """The HTTP trigger at ``source``, with its app and function; a look-up for each, as
        `hostler.functions.TriggerSource` has it. Raises `AppNotFound`, `TriggerNotFound`."""
        app_id = await self.app_id_by_name(app_name)
        trigger = await self.trigger_by_source(app_id, "http", source)
        app, fn = await self.find(trigger.fn_id)
        return app, fn, trigger

    async def trigger_by_source(self, app_id: str, type: str, source: str) -> Trigger:
        """Reads it by exact match of all three. Raises `TriggerNotFound`."""
        columns = triggers.c
        place = columns.app_id == app_id, columns.type == type, columns.source == source
        return await self._transactions.read(lambda db: self._triggers.load_where(db, *place))

    async def contents(self) -> Contents:
        """All that is there, for a backup."""
        return await self._transactions.read(load_contents)

    async def put(self, contents: Contents, *, dry_run: bool = False) -> Changes:
        """Bring apps, functions and triggers to the state that they have in ``contents``, with
        their ids and dates, and leave all others as they are. A second time it changes nothing,
        as with ``dry_run``.

        Raises `DatastoreError` with all that can't be, and then changes nothing.
        """
        run = self._transactions.read if dry_run else self._transactions.write
        return await run(lambda db: put_contents(db, contents, dry_run=dry_run))


RETRY_PAUSE = 1.0
"""Seconds between attempts to reach the database at the start (Fn's)."""

_log = structlog.get_logger(__name__)


@asynccontextmanager
async def open_datastore(
    config: StoreConfig | None = None, *, migrate: bool = True
) -> AsyncIterator[SqlDatastore]:
    """The datastore in the database of ``config`` (default: of the environment).

    Makes an SQLite file that is not there, with its folder. Waits for a database that is not yet
    up: ``ds_db_ping_max_retries`` attempts, one second apart. Then brings the tables up to date,
    and takes those of Fn over; with ``migrate=False`` it only checks that this was done. Opening
    can be cancelled: what it did until then stays valid. Leaving the block waits for running
    operations, within their time limit, and closes all connections; operations from then on raise
    `DatastoreUnavailable`.

    Raises `ConfigError` for a bad URL and a missing driver, `OSError` for a folder that can't be
    made, and `DatastoreError` for a database that can't be reached or used.
    """
    check("open_datastore", optional=True, config=(config, StoreConfig))
    config = StoreConfig.from_env() if config is None else config
    database = parse_database_url(config.db_url)
    with _explained(database):
        await _look_first(database, config, plan if migrate else check_current)
    async with _opened(database, config, config.db_timeout) as transactions:
        with _explained(database):
            await _reach(transactions, config.ds_db_ping_max_retries, _ask)
            if migrate:
                _log_takeover(await _migrate(transactions, database, config))
            else:
                await transactions.read(check_current)
        _log.info("database opened", database=str(database))
        yield SqlDatastore(transactions, config.limits)


async def migrate_database(
    config: StoreConfig | None = None, *, use: Side = "", dry_run: bool = False
) -> Migration:
    """Bring the tables up to date, and take those of Fn over, for programs that deploy; nodes do so
    when they start.

    If Fn's tables were changed after they had been taken over, ``use`` says whose contents stay:
    those of ``fn`` or those of ``hostler``. ``dry_run`` changes nothing,
    and only returns what would be done. Raises as `open_datastore`.
    """
    config = StoreConfig.from_env() if config is None else config
    database = parse_database_url(config.db_url)
    with _explained(database):
        if dry_run:
            return await _plan(database, config, use)
        await _look_first(database, config, lambda db: plan(db, use))
        async with _opened(database, config, config.db_timeout) as transactions:
            await _reach(transactions, config.ds_db_ping_max_retries, _ask)
            return await _migrate(transactions, database, config, use)


def database_name(config: StoreConfig | None = None) -> str:
    """The database of ``config``, without its password. Raises `ConfigError` for a bad URL."""
    return str(parse_database_url((config or StoreConfig.from_env()).db_url))


@asynccontextmanager
async def _opened(
    database: Database, config: StoreConfig, time_limit: float, *, read_only: bool = False
) -> AsyncIterator[Transactions]:
    # In memory there is one connection, which is the database.
    concurrent = 1 if database.in_memory else config.db_pool_size
    make = partial(make_engine, read_only=read_only)
    engine = await trio.to_thread.run_sync(make, database, config)
    transactions = Transactions(
        engine, concurrent=concurrent, time_limit=time_limit, name=str(database)
    )
    try:
        yield transactions
    finally:
        await transactions.aclose()


@contextmanager
def _explained(database: Database) -> Iterator[None]:
    """Errors at the start are for whoever set the URL: the text has everything but the password."""
    try:
        yield
    except DatastoreUnavailable as error:
        cause = error.__cause__ or error
        text = f"{database} can't be reached: {reason(cause)}{remedy(cause)}"
        raise DatastoreError(text) from error
    except SQLAlchemyError as error:
        raise DatastoreError(f"{database} can't be used: {reason(error)}") from error


def _ask(connection: Connection) -> None:
    connection.scalar(select(1))


async def _reach(transactions: Transactions, attempts: int, work: Work[Result]) -> Result:
    """What ``work`` reads, when the database is there."""
    for _ in range(attempts - 1):
        try:
            return await transactions.read(work)
        except DatastoreUnavailable:
            await trio.sleep(RETRY_PAUSE)
    return await transactions.read(work)


async def _look_first(database: Database, config: StoreConfig, check: Work[object]) -> None:
    """Check an SQLite file before it is opened to write, which already changes it. A server's
    database is checked in the transaction that would change it."""
    if database.path is None:
        return
    if database.path.is_file() and database.path.stat().st_size:
        await _look(database, config, check)
    elif check is check_current:
        raise DatastoreError(f"{database} does not exist: run `hostler migrate` first")


async def _look(database: Database, config: StoreConfig, work: Work[Result]) -> Result:
    async with _opened(database, config, config.db_timeout, read_only=True) as transactions:
        return await _reach(transactions, config.ds_db_ping_max_retries, work)


async def _plan(database: Database, config: StoreConfig, use: Side = "") -> Migration:
    if database.path is not None and not database.path.is_file():
        memory = parse_database_url("sqlite3://:memory:")
        return await _look(memory, config, lambda db: plan(db, use))
    return await _look(database, config, lambda db: plan(db, use))


async def _migrate(
    transactions: Transactions, database: Database, config: StoreConfig, use: Side = ""
) -> Migration:
    def work(connection: Connection) -> Migration:
        return upgrade(connection, use)

    if database.in_memory:
        return await transactions.write(work)
    async with _opened(database, for_migration(config), TIME_LIMIT) as patient:
        return await patient.write(work)


def _log_takeover(migration: Migration) -> None:
    if migration.fn is None or migration.action != "take over":
        return
    _log.info(
        "took over the database of Fn; its own tables stay as they are",
        fn_version=migration.fn.version,
        contents=str(migration.fn.contents),
    )
    for title in migration.fn.left_out:
        _log.warning("this was not taken over from Fn", what=title)
