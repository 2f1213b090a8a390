"""Bringing a database to the tables of this version, and taking Fn's over: one node at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
from alembic.operations import Operations
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
from ..datastore import Contents, DatastoreError
from .fn_tables import Action, FnTables, Side, act, decide, digest_then, read_fn_tables
from .schema import metadata
from .things import load_contents

VERSION_TABLE = "hostler_version"
TIME_LIMIT = 120.0
"""Seconds for a migration, and the wait for those of other nodes."""

NOT_CURRENT = "the database's tables are not up to date: run `hostler migrate` first"

MAX_NAMES = 5
"""Tables of another program that an error names."""

_LOCK_KEY = int.from_bytes(b"hostler", "big")
_SCRIPTS = Path(__file__).parent / "migrations"

_alembic = threading.Lock()
"""The ``op`` of Alembic's revisions is global."""


def for_migration(config: StoreConfig) -> StoreConfig:
    """The settings of the connection for `upgrade`, with longer time limits."""
    return attrs.evolve(config, db_pool_size=1, db_timeout=TIME_LIMIT)


_EMPTY = Contents()


@attrs.frozen
class Migration:
    """What was done to a database, or would be."""

    before: str | None
    """The revision of the tables; ``None`` = there were none."""
    after: str
    action: Action = ""
    fn: FnTables | None = None
    """Fn's tables, if the database has them."""
    own: Contents = _EMPTY
    """What hostler's tables held, if the database has Fn's, too."""


def upgrade(connection: Connection, use: Side = "") -> Migration:
    """Make or change the tables, and take Fn's over, as a whole transaction; a no-op on a database
    that is up to date.

    Waits for other nodes that do the same. Raises `DatastoreError`, before anything is changed, for
    a database that a newer hostler has changed, that another program's tables are in, or whose
    tables of Fn's can't be taken over.
    """
    with _locked(connection):
        before, fn = inspect_database(connection)
        scripts = _scripts()
        context = _migration_context(connection)
        with _alembic, Operations.context(context):
            for script in reversed([*scripts.iterate_revisions("head", before or "base")]):
                script.module.upgrade()
                context.stamp(scripts, script.revision)
        # One that can only be read is found out now, not by the first change.
        version = table(VERSION_TABLE, column("version_num"))
        connection.execute(update(version).where(false()).values(version_num=""))
        migration = _planned(connection, before, fn, use)
        if fn is not None:
            act(connection, fn, migration.action)
        return migration


def plan(connection: Connection, use: Side = "") -> Migration:
    """What `upgrade` would do. Changes nothing, and raises as it does."""
    return _planned(connection, *inspect_database(connection), use)


def _planned(
    connection: Connection, before: str | None, fn: FnTables | None, use: Side
) -> Migration:
    after = _head()
    if fn is None:
        if use:
            raise DatastoreError("the database has no tables of Fn's")
        return Migration(before, after)
    # Those of an older revision can't be read yet, and a plan has to do without.
    own = load_contents(connection) if _revision(connection) == after else Contents()
    return Migration(before, after, decide(connection, fn, own, use), fn, own)


def check_current(connection: Connection) -> None:
    """Raises `DatastoreError` if the tables are not those of this version, or lack what Fn has."""
    revision, fn = inspect_database(connection)
    if revision != _head() or (fn is not None and digest_then(connection) is None):
        raise DatastoreError(NOT_CURRENT)


def inspect_database(connection: Connection) -> tuple[str | None, FnTables | None]:
    """The revision of hostler's tables, and what is in Fn's. Only reads. Raises as `upgrade`."""
    revision = _revision(connection)
    known = {script.revision for script in _scripts().walk_revisions()}
    if revision is not None and revision not in known:
        raise DatastoreError(
            f"the database's tables are of a newer hostler (revision {revision}): "
            "upgrade this one, or restore a backup"
        )
    fn = read_fn_tables(connection)
    names = set(inspect(connection).get_table_names())
    if fn is None and VERSION_TABLE not in names:
        # On MySQL, which commits each statement, a migration that stopped early leaves our tables.
        _check_foreign(names - metadata.tables.keys())
    return revision, fn


def _check_foreign(names: set[str]) -> None:
    if not names:
        return
    shown = sorted(names)[:MAX_NAMES]
    more = ", ..." if len(names) > MAX_NAMES else ""
    raise DatastoreError(
        f"the database has tables of another program ({', '.join(shown)}{more}): "
        "give hostler a database of its own"
    )


def _migration_context(connection: Connection) -> MigrationContext:
    return MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})


def _revision(connection: Connection) -> str | None:
    return _migration_context(connection).get_current_revision()


def _scripts() -> ScriptDirectory:
    return ScriptDirectory(str(_SCRIPTS), version_locations=[str(_SCRIPTS)])


def _head() -> str:
    head = _scripts().get_current_head()
    assert head is not None
    return head


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
