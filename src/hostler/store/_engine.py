"""Connections: one pool, and what each connection is told when it is made."""

from __future__ import annotations

import inspect
import math
import socket
import ssl
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, Dialect, Engine, QueuePool, StaticPool, create_engine, event

from hostler.config import StoreConfig
from hostler.errors import ConfigError

from ._guard import watch_new_connection
from ._url import Database, Kind

WRITES = "hostler_writes"
"""Execution option of a connection that will write."""

CANT_CONNECT = 2002
"""MySQL's number for a unix socket that nobody answers on."""

SQLITE_WAIT = 0.1
"""Seconds that SQLite waits for a lock by itself; nothing can interrupt it then."""

_EXTRAS = {"postgresql": "postgresql", "mysql": "mysql"}


def make_engine(database: Database, config: StoreConfig) -> Engine:
    """Connects to nothing yet. Makes the folder of an SQLite file.

    Raises `ConfigError` for a missing driver, and `OSError` for a folder that can't be made.
    """
    if database.path is not None:
        database.path.parent.mkdir(parents=True, exist_ok=True)
    options = _OPTIONS[database.kind](database, config)
    if database.in_memory:
        options["poolclass"] = StaticPool
    else:
        # A transaction holds a slot of the store's before it takes a connection: none waits here.
        options.update(
            poolclass=QueuePool,
            pool_size=config.db_pool_size,
            max_overflow=0,
            pool_timeout=config.db_timeout,
        )
    try:
        engine = create_engine(database.url, hide_parameters=True, **options)
    except ImportError as error:
        raise ConfigError(
            f"FN_DB_URL: the driver of {database.kind} databases is missing ({error.name}): "
            f"install hostler[{_EXTRAS.get(database.kind, '')}]"
        ) from error
    _LISTENERS[database.kind](engine, database, config)
    return engine


def _sqlite_options(database: Database, config: StoreConfig) -> dict[str, Any]:
    return {"connect_args": {"check_same_thread": False, "timeout": SQLITE_WAIT}}


def _postgresql_options(database: Database, config: StoreConfig) -> dict[str, Any]:
    arguments = {
        "connect_timeout": math.ceil(config.db_timeout),
        "application_name": "hostler",
        # Of a database without an encoding the driver would give bytes, even as its version.
        "client_encoding": "UTF8",
    }
    arguments = {key: value for key, value in arguments.items() if key not in database.url.query}
    return {"connect_args": arguments}


def _mysql_options(database: Database, config: StoreConfig) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "connect_timeout": math.ceil(config.db_timeout),
        "read_timeout": math.ceil(config.db_timeout),  # or the handshake could take forever
        "charset": "utf8mb4",
    }
    if database.tls:
        context = ssl.create_default_context()
        if database.tls == "encrypt":
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        arguments["ssl"] = context
    # Each statement sees what others have committed, as on PostgreSQL; and fewer locks.
    return {"connect_args": arguments, "isolation_level": "READ COMMITTED"}


def _listen_sqlite(engine: Engine, database: Database, config: StoreConfig) -> None:
    @event.listens_for(engine, "connect")
    def connected(connection: Any, record: object) -> None:
        connection.isolation_level = None  # transactions begin where `begin` says, not sqlite3
        connection.execute("PRAGMA foreign_keys=ON")
        if connection.execute("PRAGMA journal_mode").fetchone()[0] not in ("wal", "memory"):
            connection.execute("PRAGMA journal_mode=WAL")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A transaction that reads first and then wants to write would fail, not wait, if another
        # has written in between.
        writes = connection.get_execution_options().get(WRITES)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _listen_postgresql(engine: Engine, database: Database, config: StoreConfig) -> None:
    millis = math.ceil(config.db_timeout * 1000)

    @event.listens_for(engine, "connect")
    def connected(connection: Any, record: object) -> None:
        watch_new_connection(connection)
        # Not as an option of the connection: poolers such as PgBouncer refuse those.
        for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
            connection.execute(f"SET {name} = {millis}")
        encoding = connection.execute("SHOW server_encoding").fetchone()[0]
        connection.commit()
        if encoding != "UTF8":
            raise ConfigError(f"FN_DB_URL: the database's encoding is {encoding}, not UTF8")


def _listen_mysql(engine: Engine, database: Database, config: StoreConfig) -> None:
    seconds = math.ceil(config.db_timeout)
    driver: Any = engine.dialect.loaded_dbapi
    known = inspect.signature(driver.connections.Connection).parameters
    for option in engine.dialect.create_connect_args(engine.url)[1]:
        if option not in known:
            raise ConfigError(f"FN_DB_URL: mysql databases have no option {option!r}")

    @event.listens_for(engine, "do_connect")
    def connect(dialect: Dialect, record: object, arguments: Any, options: dict[str, Any]) -> Any:
        if "unix_socket" not in options:
            return None  # as usual
        return _connect_unix(dialect, options)

    @event.listens_for(engine, "connect")
    def connected(connection: Any, record: object) -> None:
        watch_new_connection(connection)
        with connection.cursor() as cursor:
            cursor.execute(f"SET SESSION innodb_lock_wait_timeout = {seconds}")
            # Too long texts are errors and not cut, whatever the server's default is.
            cursor.execute("SET SESSION sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES')")
            if database.tls:  # the driver goes on in the clear if the server has no TLS
                cursor.execute("SHOW SESSION STATUS LIKE 'Ssl_cipher'")
                if not cursor.fetchone()[1]:
                    raise ConfigError("FN_DB_URL: tls is asked for, but the server has none")


def _connect_unix(dialect: Dialect, options: dict[str, Any]) -> Any:
    """As PyMySQL does, which leaves the socket open if nobody answers on it."""
    driver: Any = dialect.loaded_dbapi
    connection = driver.connect(**options, defer_connect=True)
    plain = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    plain.settimeout(options["connect_timeout"])
    try:
        plain.connect(options["unix_socket"])
        connection.connect(plain)
    except OSError as error:
        plain.close()
        raise driver.err.OperationalError(
            CANT_CONNECT, f"can't connect to {options['unix_socket']}: {error}"
        ) from error
    except BaseException:
        plain.close()
        raise
    return connection


_OPTIONS: dict[Kind, Callable[[Database, StoreConfig], dict[str, Any]]] = {
    "sqlite": _sqlite_options,
    "postgresql": _postgresql_options,
    "mysql": _mysql_options,
}
_LISTENERS: dict[Kind, Callable[[Engine, Database, StoreConfig], None]] = {
    "sqlite": _listen_sqlite,
    "postgresql": _listen_postgresql,
    "mysql": _listen_mysql,
}
