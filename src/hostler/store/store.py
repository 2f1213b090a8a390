"""The SQL datastore, and opening it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Generic

import structlog
import trio
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from .._arguments import check
from ..config import StoreConfig
from ..datastore import DatastoreError, Filter, Page, Patch, Thing
from ..models import App, Fn, Trigger
from ..rules import Limits
from ..rules.errors import DatastoreUnavailable
from .engine import Database, make_engine, parse_database_url
from .migrate import TIME_LIMIT, check_current, for_migration, upgrade
from .schema import triggers
from .things import (
    AppTable,
    FnTable,
    ThingTable,
    TriggerTable,
    find_app_id,
    load_app_and_fn,
)
from .transactions import Transactions, reason, remedy


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


RETRY_PAUSE = 1.0
"""Seconds between attempts to reach the database at the start (Fn's)."""

_log = structlog.get_logger(__name__)


@asynccontextmanager
async def open_datastore(
    config: StoreConfig | None = None, *, migrate: bool = True
) -> AsyncIterator[SqlDatastore]:
    """The datastore in the database of ``config`` (default: of the environment).

    Makes an SQLite file that is not there, with its folder. Waits for a database that is not yet
    up: ``ds_db_ping_max_retries`` attempts, one second apart. Then brings the tables up to date;
    with ``migrate=False`` it only checks that they are. Opening can be cancelled: what it did until
    then stays valid. Leaving the block waits for running operations, within their time limit, and
    closes all connections; operations from then on raise `DatastoreUnavailable`.

    Raises `ConfigError` for a bad URL and a missing driver, `OSError` for a folder that can't be
    made, and `DatastoreError` for a database that can't be reached or used.
    """
    check("open_datastore", optional=True, config=(config, StoreConfig))
    config = StoreConfig.from_env() if config is None else config
    database = parse_database_url(config.db_url)
    async with _opened(database, config, config.db_timeout) as transactions:
        with _explained(database):
            await _reach(transactions, config.ds_db_ping_max_retries)
            await _prepare(transactions, database, config, migrate=migrate)
        _log.info("database opened", database=str(database))
        yield SqlDatastore(transactions, config.limits)


async def migrate_database(config: StoreConfig | None = None) -> None:
    """Bring the tables up to date, for programs that deploy; nodes do so when they start.

    Raises as `open_datastore`.
    """
    async with open_datastore(config):
        pass


@asynccontextmanager
async def _opened(
    database: Database, config: StoreConfig, time_limit: float
) -> AsyncIterator[Transactions]:
    # In memory there is one connection, which is the database.
    concurrent = 1 if database.in_memory else config.db_pool_size
    engine = await trio.to_thread.run_sync(make_engine, database, config)
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


async def _reach(transactions: Transactions, attempts: int) -> None:
    for left in range(max(attempts, 1) - 1, -1, -1):
        try:
            await transactions.read(lambda db: db.scalar(select(1)))
        except DatastoreUnavailable:
            if not left:
                raise
            await trio.sleep(RETRY_PAUSE)
        else:
            return


async def _prepare(
    transactions: Transactions, database: Database, config: StoreConfig, *, migrate: bool
) -> None:
    if not migrate:
        await transactions.read(check_current)
    elif database.in_memory:
        await transactions.write(upgrade)
    else:
        async with _opened(database, for_migration(config), TIME_LIMIT) as patient:
            await patient.write(upgrade)
