"""Database URLs: Fn's forms, and SQLAlchemy's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qs

import attrs
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from hostler.errors import ConfigError

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
