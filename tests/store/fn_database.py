"""The tables of Fn's database, at each version of its schema, and rows as Fn writes them.

What stands here are facts of Fn's ``api/datastore/sql`` (0.3.753), in words of our own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, column, create_engine, insert, table, text

from hostler.config import StoreConfig
from hostler.store.engine import WRITES, make_engine, parse_database_url

LAST = 26
VERSIONS = range(LAST + 1)
"""0 is the time before Fn had versions."""

APP_ID = "01D0000000NG8G00GZJ0000001"
FN_ID = "01D0000000NG8G00GZJ0000002"
TRIGGER_ID = "01D0000000NG8G00GZJ0000003"

_KEY = "varchar(256) NOT NULL"
_DATE = "varchar(256)"


def tables_at(version: int) -> dict[str, list[str]]:
    """Columns and constraints, by table."""

    def since(first: int, *columns: str) -> list[str]:
        return [*columns] if version >= first else []

    apps = [
        *since(10, "id varchar(256)"),
        f"name {_KEY} PRIMARY KEY",
        "config text NOT NULL",
        *since(5, f"created_at {_DATE}"),
        *since(6, f"updated_at {_DATE}"),
        *since(8, "annotations text"),
        *since(13, "syslog_url text"),
        *since(25, "shape text"),
    ]
    if version >= 15:
        apps[:2] = [f"id {_KEY} PRIMARY KEY", f"name {_KEY} UNIQUE"]
    found = {"apps": apps}
    if version < 20:
        found["routes"] = [f"{'app_id' if version >= 10 else 'app_name'} {_KEY}", f"path {_KEY}"]
    if version < 23:
        found["calls"] = [f"id {_KEY} PRIMARY KEY"]
    if version < 24:
        found["logs"] = [f"id {_KEY} PRIMARY KEY", "log text NOT NULL"]
    if version >= 16:
        found["fns"] = [
            f"id {_KEY} PRIMARY KEY",
            *(f"{name} {_KEY}" for name in ("name", "app_id", "image")),
            *(["format varchar(16) NOT NULL"] if version < 22 else []),
            *(f"{name} int NOT NULL" for name in ("memory", "timeout", "idle_timeout")),
            "config text NOT NULL",
            "annotations text NOT NULL",
            *(f"{name} {_DATE} NOT NULL" for name in ("created_at", "updated_at")),
            *since(26, "shape text"),
            "CONSTRAINT name_app_id_unique UNIQUE (app_id, name)",
        ]
    if version >= 17:
        found["triggers"] = [
            f"id {_KEY} PRIMARY KEY",
            *(f"{name} {_KEY}" for name in ("name", "app_id", "fn_id")),
            *(f"{name} {_DATE} NOT NULL" for name in ("created_at", "updated_at")),
            *(f"{name} {_KEY}" for name in ("type", "source")),
            "annotations text NOT NULL",
            "CONSTRAINT name_app_id_fn_id_unique UNIQUE (app_id, fn_id, name)",
        ]
    return found


_DATES = {"created_at": "2019-01-02T03:04:05.678Z", "updated_at": "2020-02-03T04:05:06.789Z"}
_APP = {
    "id": APP_ID,
    "name": "shop",
    "config": '{"SHARED":"1","HTML":"\\u003cb\\u003e"}\n',
    "annotations": '{"example.com/tier":{"of": ["gold", 1]}}\n',
    "syslog_url": "tcp://logs.example:514",
    **_DATES,
}
_FN = {
    "id": FN_ID,
    "name": "pay",
    "app_id": APP_ID,
    "image": "shop/pay:1",
    "format": "http-stream",
    "memory": 256,
    "timeout": 40,
    "idle_timeout": 50,
    "config": '{"OWN":"2"}\n',
    "annotations": "",
    **_DATES,
}
_TRIGGER = {
    "id": TRIGGER_ID,
    "name": "web",
    "app_id": APP_ID,
    "fn_id": FN_ID,
    "type": "http",
    "source": "/pay",
    "annotations": "",
    **_DATES,
}
ROWS: Mapping[str, Mapping[str, Any]] = {"apps": _APP, "fns": _FN, "triggers": _TRIGGER}


@contextmanager
def writing(url: str) -> Iterator[Connection]:
    """As another program that leaves an SQLite file's journal as it is."""
    if url.startswith("sqlite3://"):
        engine = create_engine("sqlite:///" + url.removeprefix("sqlite3://"))
    else:
        engine = make_engine(parse_database_url(url), StoreConfig())
    try:
        with (
            engine.connect() as connection,
            connection.execution_options(**{WRITES: True}).begin(),
        ):
            yield connection
    finally:
        engine.dispose()


def make_fn_database(url: str, version: int = LAST, *, empty: bool = False, **fn: Any) -> None:
    """As Fn leaves it. ``fn`` are other values of the function."""
    with writing(url) as connection:
        for name, columns in tables_at(version).items():
            connection.execute(text(f"CREATE TABLE {name} ({', '.join(columns)})"))
        if version:
            connection.execute(
                text(
                    "CREATE TABLE schema_migrations "
                    "(version bigint NOT NULL PRIMARY KEY, dirty boolean NOT NULL)"
                )
            )
            query = text("INSERT INTO schema_migrations VALUES (:version, :dirty)")
            connection.execute(query, {"version": version, "dirty": False})
        if not empty:
            add(connection, "apps", version=version)
            if version >= 16:
                add(connection, "fns", version=version, **fn)
            if version >= 17:
                add(connection, "triggers", version=version)


def add(connection: Connection, kind: str, *, version: int = LAST, **values: Any) -> None:
    """A row as those of `ROWS`, with other values."""
    columns = {part.split()[0] for part in tables_at(version)[kind]}
    row = {name: value for name, value in {**ROWS[kind], **values}.items() if name in columns}
    connection.execute(insert(table(kind, *map(column, row))).values(row))


def fn_rows(url: str) -> dict[str, list[tuple[Any, ...]]]:
    with writing(url) as connection:
        query = "SELECT * FROM {} ORDER BY 1"
        names = (*ROWS, "schema_migrations")
        return {name: [*map(tuple, connection.execute(text(query.format(name))))] for name in names}
