"""Opening the datastore."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import structlog
import trio
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from hostler.config import StoreConfig
from hostler.datastore import DatastoreError
from hostler.rules.errors import DatastoreUnavailable

from ._engine import make_engine
from ._faults import reason, remedy
from ._migrate import TIME_LIMIT, check_current, for_migration, upgrade
from ._store import SqlDatastore
from ._transactions import Transactions
from ._url import Database, parse_database_url

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
    """What goes wrong at the start is for whoever set the URL, and tells all but the password."""
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
