"""Bringing a database to the tables of this version, by one node at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import (
    Connection,
    column,
    false,
    func,
    inspect,
    select,
    table,
    text,
    update,
)

from ..config import StoreConfig
from ..datastore import DatastoreError
from .schema import metadata

VERSION_TABLE = "hostler_version"
TIME_LIMIT = 120.0
"""Seconds for a migration, and the wait for those of other nodes."""

_LOCK_KEY = int.from_bytes(b"hostler", "big")
_SCRIPTS = Path(__file__).parent / "migrations"

_alembic = threading.Lock()
"""The ``op`` and ``context`` of Alembic's scripts are global."""


def for_migration(config: StoreConfig) -> StoreConfig:
    """The settings of the connection for `upgrade`, with longer time limits."""
    return attrs.evolve(config, db_pool_size=1, db_timeout=TIME_LIMIT)


def upgrade(connection: Connection) -> None:
    """Make or change the tables, as a whole transaction; a no-op on a database that is up to date.

    Waits for other nodes that do the same. Raises `DatastoreError` for a database that a newer
    hostler has changed, or that another program's tables are in.
    """
    with _locked(connection):
        _check_origin(connection)
        config = _config(connection)
        with _alembic:
            command.upgrade(config, "head")
        # One that can only be read is found out now, not by the first change.
        version = table(VERSION_TABLE, column("version_num"))
        connection.execute(update(version).where(false()).values(version_num=""))


def check_current(connection: Connection) -> None:
    """Raises `DatastoreError` if the tables are not those of this version."""
    _check_origin(connection)
    head = ScriptDirectory(str(_SCRIPTS)).get_current_head()
    if _revision(connection) != head:
        raise DatastoreError("the database's tables are not up to date: migrate it first")


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.attributes.update(connection=connection, metadata=metadata, version_table=VERSION_TABLE)
    return config


def _revision(connection: Connection) -> str | None:
    options = {"version_table": VERSION_TABLE}
    return MigrationContext.configure(connection, opts=options).get_current_revision()


def _check_origin(connection: Connection) -> None:
    known = {script.revision for script in ScriptDirectory(str(_SCRIPTS)).walk_revisions()}
    revision = _revision(connection)
    if revision is not None and revision not in known:
        raise DatastoreError(
            f"the database's tables are of a newer hostler (revision {revision}): "
            "upgrade this one, or restore a backup"
        )
    names = set(inspect(connection).get_table_names())
    if VERSION_TABLE not in names and (foreign := sorted(names & metadata.tables.keys())):
        raise DatastoreError(
            f"the database has tables of another program ({', '.join(foreign)}): "
            "give hostler a database of its own"
        )


@contextmanager
def _locked(connection: Connection) -> Iterator[None]:
    dialect = connection.dialect.name
    if dialect == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_LOCK_KEY)))
        yield
    elif dialect == "mysql":
        # Names of locks are the whole server's.
        name = {"name": f"hostler {connection.engine.url.database}"[:64]}
        if not connection.scalar(text("SELECT GET_LOCK(:name, :limit)"), {**name, "limit": 100}):
            raise DatastoreError("another node has been migrating the database for too long")
        try:
            yield
        finally:
            connection.execute(text("SELECT RELEASE_LOCK(:name)"), name)
    else:
        yield  # on SQLite the transaction itself, begun as one that writes, is the lock
