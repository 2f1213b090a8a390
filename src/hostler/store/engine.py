"""Database URLs and connections of SQLite, PostgreSQL and MySQL."""

from __future__ import annotations

import contextlib
import inspect
import math
import os
import re
import socket
import sqlite3
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import parse_qs, quote

import attrs
from sqlalchemy import (
    URL,
    Connection,
    Dialect,
    Engine,
    QueuePool,
    StaticPool,
    create_engine,
    event,
    make_url,
)
from sqlalchemy.exc import ArgumentError

from ..config import StoreConfig
from ..errors import ConfigError

DEFAULT_URL = "sqlite3://data/fn.db"
MEMORY = ":memory:"
Kind = Literal["sqlite", "postgresql", "mysql"]

_KINDS: dict[str, Kind] = {
    "sqlite": "sqlite",
    "sqlite3": "sqlite",
    "postgres": "postgresql",
    "postgresql": "postgresql",
    "mysql": "mysql",
    "mariadb": "mysql",
}

_DRIVERS: dict[Kind, str] = {
    "sqlite": "sqlite+pysqlite",
    "postgresql": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
}

_GO_DSN = re.compile(
    r"(?:(?P<user>[^:@]*)(?::(?P<password>.*))?@)?"
    r"(?:(?P<net>tcp|unix)\((?P<address>[^()]*)\))?"
    r"/(?P<name>[^/?]+)(?:\?(?P<query>.*))?"
)
"""What https://github.com/go-sql-driver/mysql takes behind ``mysql://``; nothing is escaped."""

Tls = Literal["", "encrypt", "verify"]

_GO_TLS: dict[str, Tls] = {
    "": "",
    "false": "",
    "true": "verify",
    "skip-verify": "encrypt",
}


@attrs.frozen
class Database:
    """Which database, and how to reach it."""

    kind: Kind
    url: URL
    """For SQLAlchemy."""
    tls: Tls = ""
    """Whether a MySQL server must speak TLS. PostgreSQL's ``sslmode`` is in the URL."""

    @property
    def path(self) -> Path | None:
        """The file of an SQLite database; ``None`` = in memory, or no SQLite."""
        if self.kind != "sqlite" or self.url.database in (None, "", MEMORY):
            return None
        return Path(self.url.database)

    @property
    def in_memory(self) -> bool:
        return self.kind == "sqlite" and self.path is None

    def __str__(self) -> str:
        """Without the password."""
        if self.kind == "sqlite":
            return f"sqlite3://{self.path or MEMORY}"
        return self.url.render_as_string(hide_password=True)


def parse_database_url(text: str) -> Database:
    """Read a URL; an empty one is an SQLite file ``data/fn.db``.

    Raises `ConfigError`, which does not tell the URL, as it may hold a password.
    """
    scheme, separator, rest = (text or DEFAULT_URL).partition("://")
    kind = _KINDS.get(scheme.partition("+")[0])
    if not separator or kind is None:
        known = ", ".join(f"{name}://" for name in _KINDS)
        raise ConfigError(f"FN_DB_URL: begins with none of {known}")
    if scheme == "sqlite3":
        return _sqlite(rest)
    if scheme == "sqlite":
        return _sqlite(rest.removeprefix("/"))
    if kind == "mysql" and (dsn := _GO_DSN.fullmatch(rest)):
        return _go_mysql(dsn)
    try:
        url = make_url(f"{_DRIVERS[kind]}://{rest}")
    except (ArgumentError, ValueError) as error:  # its text has no part of the URL
        raise ConfigError(f"FN_DB_URL: not a URL of a {kind} database") from error
    if not url.database:
        raise ConfigError("FN_DB_URL: it names no database")
    if kind == "mysql":
        tls = url.query.get("tls", "")
        tls = tls if isinstance(tls, str) else tls[-1]
        return Database(kind, url.difference_update_query(["tls"]), _tls(tls))
    return Database(kind, url)


def _sqlite(path: str) -> Database:
    if "?" in path:
        raise ConfigError("FN_DB_URL: options of an SQLite database are not supported")
    return Database("sqlite", URL.create(_DRIVERS["sqlite"], database=path or MEMORY))


def _go_mysql(dsn: re.Match[str]) -> Database:
    options = parse_qs(dsn["query"] or "")
    tls = _tls(options.get("tls", [""])[-1])
    address = dsn["address"] or ""
    unix = dsn["net"] == "unix"
    host, port = (None, None) if unix else _host_and_port(address)
    url = URL.create(
        _DRIVERS["mysql"],
        username=dsn["user"] or None,
        password=dsn["password"],
        host=host,
        port=port,
        database=dsn["name"],
        query={"unix_socket": address} if unix else {},
    )
    return Database("mysql", url, tls)


def _tls(text: str) -> Tls:
    if text.lower() not in _GO_TLS:
        raise ConfigError("FN_DB_URL: tls= takes true, false and skip-verify")
    return _GO_TLS[text.lower()]


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":") if re.search(r":\d*$", address) else (address, "", "")
    if port and not 0 < int(port) < 2**16:
        raise ConfigError(f"FN_DB_URL: not a port: {port}")
    return host.strip("[]") or "127.0.0.1", int(port or 3306)


WRITES = "hostler_writes"
"""Execution option of a connection that will write."""

CANT_CONNECT = 2002
"""MySQL's number for a unix socket that nobody answers on."""

SQLITE_WAIT = 0.1
"""Seconds that SQLite waits for a lock by itself; nothing can interrupt it then."""


def make_engine(database: Database, config: StoreConfig, *, read_only: bool = False) -> Engine:
    """Connects to nothing yet. Makes the folder of an SQLite file.

    ``read_only`` leaves an SQLite file as it is, which must be there; of a server it changes
    nothing. Raises `ConfigError` for a missing driver, and `OSError` for a folder that can't be
    made.
    """
    url = database.url
    if database.path is not None:
        if read_only:
            url = _read_only_url(database.path)
        else:
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
        engine = create_engine(url, hide_parameters=True, **options)
    except ImportError as error:
        raise ConfigError(
            f"FN_DB_URL: the driver of {database.kind} databases is missing ({error.name}): "
            f"install hostler[{database.kind}]"
        ) from error
    _LISTENERS[database.kind](engine, database, config)
    if database.kind == "sqlite" and not read_only:
        event.listen(engine, "connect", _use_wal)
    return engine


_WAL_FORMAT = b"\2"
"""At byte 18 of an SQLite file: https://www.sqlite.org/fileformat.html"""


def _read_only_url(path: Path) -> URL:
    """For a connection that writes nothing to an SQLite file, nor beside it."""
    query = {"mode": "ro", "uri": "true"}
    if _beside(path, "-journal").exists():
        # Its program was killed. Without writing back what is in the journal nothing can be read.
        query["mode"] = "rw"
    elif not _beside(path, "-wal").exists():
        with contextlib.suppress(OSError), open(path, "rb") as file:  # SQLite tells of it better
            if file.read(19)[18:] == _WAL_FORMAT:  # nobody has it open, and nobody shall see us
                query["immutable"] = "1"
    return URL.create(_DRIVERS["sqlite"], database=f"file:{quote(str(path))}", query=query)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _use_wal(connection: Any, record: object) -> None:
    if connection.execute("PRAGMA journal_mode").fetchone()[0] not in ("wal", "memory"):
        connection.execute("PRAGMA journal_mode=WAL")


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


class Aborted(Exception):
    """The transaction was aborted before it had a connection."""


class _OfThread(threading.local):
    guard: Guard | None = None


_of_thread = _OfThread()


class Guard:
    """Knows the connection of one transaction while it has one. Entered by the thread that runs
    the transaction; `abort` may be called from any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: Any = None
        self.aborted = False
        self.committing = False
        """Whether the end of the transaction was reached: then it may have been committed even if
        it failed."""

    def __enter__(self) -> Self:
        _of_thread.guard = self
        return self

    def __exit__(self, *_: object) -> None:
        _of_thread.guard = None

    @contextmanager
    def watching(self, connection: Any) -> Iterator[None]:
        """The block uses this connection of the driver's. Raises `Aborted` after `abort`."""
        self._attach(connection)
        try:
            yield
        finally:
            with self._lock:  # it goes back to the pool, and may be another's
                self._connection = None

    def _attach(self, connection: Any) -> None:
        with self._lock:
            if self.aborted:
                raise Aborted
            self._connection = connection

    def abort(self) -> None:
        """Fail what the connection waits for, now. Never waits itself.

        An SQLite connection can be used again; others are broken, as if the network was.
        """
        with self._lock:
            self.aborted = True
            if isinstance(self._connection, sqlite3.Connection):
                self._connection.interrupt()
            elif self._connection is not None:
                _cut(self._connection)


def watch_new_connection(connection: Any) -> None:
    """To be called when a thread has made a connection, before it waits for it."""
    if _of_thread.guard is not None:
        _of_thread.guard._attach(connection)


def _cut(connection: Any) -> None:
    """Shut the socket down under a driver that reads from it. The server sees the end of the
    session, and rolls back."""
    # psycopg tells its descriptor; PyMySQL has no public name for its socket.
    source = getattr(connection, "_sock", None) or connection
    with contextlib.suppress(Exception):  # a connection that was closed has no descriptor
        duplicate = socket.socket(fileno=os.dup(source.fileno()))
        try:
            duplicate.shutdown(socket.SHUT_RDWR)
        finally:
            duplicate.close()
