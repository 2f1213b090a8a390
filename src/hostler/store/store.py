"""The SQL datastore, and opening it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import structlog
import trio
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from ..config import StoreConfig
from ..datastore import (
    AppFilter,
    AppPatch,
    DatastoreError,
    FnFilter,
    FnPatch,
    Page,
    TriggerFilter,
    TriggerPatch,
)
from ..models import App, Fn, Trigger
from ..rules import Limits, check_new_app, check_new_fn, check_new_trigger
from ..rules.errors import (
    AppIDMismatch,
    AppMissingID,
    DatastoreUnavailable,
    FnIDMismatch,
    FnMissingAppID,
    FnMissingID,
    TriggerIDMismatch,
    TriggerMissingAppID,
    TriggerMissingID,
)
from . import things
from .engine import Database, make_engine, parse_database_url
from .migrate import TIME_LIMIT, check_current, for_migration, upgrade
from .things import APPS, FNS, TRIGGERS
from .transactions import Transactions, reason, remedy


class SqlDatastore:
    """A `hostler.datastore.Datastore`, which says what the methods do; `open_datastore` makes it.

    An operation occupies a worker thread and a connection. It takes ``FN_DB_TIMEOUT`` at most,
    and a little over a second from when it is cancelled; a connection that is still to be made has
    that limit once more (2 s at least on PostgreSQL, by its library). Time is the real one: under
    a mock clock with autojump every operation is out of time at once.
    """

    def __init__(self, transactions: Transactions, limits: Limits) -> None:
        self._transactions = transactions
        self._limits = limits

    def __repr__(self) -> str:
        return f"<SqlDatastore {self._transactions!r}>"

    # --- apps ---

    async def list_apps(self, where: AppFilter) -> Page[App]:
        """Reads one page. Raises `InvalidCursor`."""
        return await self._transactions.read(lambda db: things.page_of_apps(db, where))

    async def create_app(self, app: App) -> App:
        """Checks the values before it asks the database; runs again if another transaction was
        quicker."""
        new = check_new_app(app)
        return await self._transactions.write(lambda db: things.insert_app(db, new))

    async def get_app(self, app_id: str) -> App:
        """Raises `AppMissingID` for an empty id without asking the database, and `AppNotFound`."""
        if not app_id:
            raise AppMissingID
        return await self._transactions.read(lambda db: APPS.load(db, app_id))

    async def update_app(self, app_id: str, patch: AppPatch) -> App:
        """No other change of the app comes between its read and its write. Raises `AppMissingID`
        for an empty id."""
        if not app_id:
            raise AppMissingID
        if patch.id not in ("", app_id):
            raise AppIDMismatch
        return await self._transactions.write(lambda db: things.change_app(db, app_id, patch))

    async def delete_app(self, app_id: str) -> None:
        """Removes its functions and triggers too, by foreign keys. Raises `AppMissingID` and
        `AppNotFound`."""
        if not app_id:
            raise AppMissingID
        await self._transactions.write(lambda db: APPS.remove(db, app_id))

    async def app_id_by_name(self, name: str) -> str:
        """Reads the id alone, by the exact name. Raises `AppNotFound`."""
        return await self._transactions.read(lambda db: things.find_app_id(db, name))

    # --- functions ---

    async def list_fns(self, where: FnFilter) -> Page[Fn]:
        """Reads one page. Raises `FnMissingAppID` without asking the database, and
        `InvalidCursor`."""
        if not where.app_id:
            raise FnMissingAppID
        return await self._transactions.read(lambda db: things.page_of_fns(db, where))

    async def create_fn(self, fn: Fn) -> Fn:
        """As `create_app`. The limits of memory and times are those of the node's configuration."""
        new = check_new_fn(fn, self._limits)
        return await self._transactions.write(lambda db: things.insert_fn(db, new))

    async def get_fn(self, fn_id: str) -> Fn:
        """Raises `FnMissingID` for an empty id without asking the database, and `FnNotFound`."""
        if not fn_id:
            raise FnMissingID
        return await self._transactions.read(lambda db: FNS.load(db, fn_id))

    async def find(self, fn_id: str) -> tuple[App, Fn]:
        """Reads both in one query. Raises `FnNotFound`."""
        return await self._transactions.read(lambda db: things.load_app_and_fn(db, fn_id))

    async def update_fn(self, fn_id: str, patch: FnPatch) -> Fn:
        """As `update_app`, with the limits of the node's configuration. Raises `FnMissingID` for an
        empty id."""
        if not fn_id:
            raise FnMissingID
        if patch.id not in ("", fn_id):
            raise FnIDMismatch
        limits = self._limits
        return await self._transactions.write(lambda db: things.change_fn(db, fn_id, patch, limits))

    async def delete_fn(self, fn_id: str) -> None:
        """Removes its triggers too, by foreign keys. Raises `FnMissingID` and `FnNotFound`."""
        if not fn_id:
            raise FnMissingID
        await self._transactions.write(lambda db: FNS.remove(db, fn_id))

    # --- triggers ---

    async def list_triggers(self, where: TriggerFilter) -> Page[Trigger]:
        """Reads one page. Raises `TriggerMissingAppID` without asking the database, and
        `InvalidCursor`."""
        if not where.app_id:
            raise TriggerMissingAppID
        return await self._transactions.read(lambda db: things.page_of_triggers(db, where))

    async def create_trigger(self, trigger: Trigger) -> Trigger:
        """As `create_app`."""
        new = check_new_trigger(trigger)
        return await self._transactions.write(lambda db: things.insert_trigger(db, new))

    async def get_trigger(self, trigger_id: str) -> Trigger:
        """Raises `TriggerMissingID` for an empty id without asking the database, and
        `TriggerNotFound`."""
        if not trigger_id:
            raise TriggerMissingID
        return await self._transactions.read(lambda db: TRIGGERS.load(db, trigger_id))

    async def trigger_by_source(self, app_id: str, type: str, source: str) -> Trigger:
        """Reads it by exact match of all three. Raises `TriggerNotFound`."""
        return await self._transactions.read(
            lambda db: things.load_trigger_by_source(db, app_id, type, source)
        )

    async def update_trigger(self, trigger_id: str, patch: TriggerPatch) -> Trigger:
        """As `update_app`. Raises `TriggerMissingID` for an empty id."""
        if not trigger_id:
            raise TriggerMissingID
        if patch.id not in ("", trigger_id):
            raise TriggerIDMismatch
        return await self._transactions.write(
            lambda db: things.change_trigger(db, trigger_id, patch)
        )

    async def delete_trigger(self, trigger_id: str) -> None:
        """Raises `TriggerMissingID` and `TriggerNotFound`."""
        if not trigger_id:
            raise TriggerMissingID
        await self._transactions.write(lambda db: TRIGGERS.remove(db, trigger_id))


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
