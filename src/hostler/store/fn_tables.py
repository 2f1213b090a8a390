"""The tables of a database that Fn made: what they hold, and taking it over.

Hostler only reads them, and has tables of its own beside them: the way back to Fn is to start it
again. A digest of what was taken over tells later whether Fn has changed its tables since.

Facts are from Fn's ``api/datastore/sql`` (0.3.753): version N of the tables is what migration N
makes, and tables without a version are those of Fn before 0.3.178.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar

import attrs
import msgspec
from sqlalchemy import Connection, column, delete, insert, inspect, select, table, text

from .._api_documents import without_endpoints
from ..datastore import Contents, DatastoreError
from ..dates import parse_date
from ..ids import format_id
from ..models import App, Fn, Trigger
from .schema import taken_over
from .things import listed, problems_of, replace_contents, without_orphans

VERSION_TABLE = "schema_migrations"

NO_VERSION = 0
LAST_VERSION = 26
"""Of Fn 0.3.750 to 0.3.753, the last ones."""

FIRST_WITH_FNS = 16
FIRST_WITH_TRIGGERS = 17

_DATES = ("created_at", "updated_at")

_COLUMNS: dict[str, dict[str, int]] = {
    "apps": {
        "name": 0,
        "config": 0,
        "created_at": 5,
        "updated_at": 6,
        "annotations": 8,
        "id": 10,
        "syslog_url": 13,
        "shape": 25,
    },
    "fns": {
        **dict.fromkeys(["id", "name", "app_id", "image"], FIRST_WITH_FNS),
        **dict.fromkeys(["memory", "timeout", "idle_timeout"], FIRST_WITH_FNS),
        **dict.fromkeys(["config", "annotations", *_DATES], FIRST_WITH_FNS),
        "shape": 26,
    },
    "triggers": dict.fromkeys(
        ["id", "name", "app_id", "fn_id", "type", "source", "annotations", *_DATES],
        FIRST_WITH_TRIGGERS,
    ),
}
"""By table and column, the first version that has it."""

_OLD_TABLES = {"routes", "calls", "logs"}
"""Of Fn's first API. All of them are there as long as the tables have no version."""

_TRACES = {*_COLUMNS, *_OLD_TABLES, *(f"old_{name}" for name in (*_COLUMNS, *_OLD_TABLES))}
"""Tables that may be there when a migration of Fn's stopped half way."""


@attrs.frozen
class FnTables:
    """What Fn's tables hold."""

    version: int
    contents: Contents
    left_out: Sequence[str]
    """What hostler does not take over, in words."""
    digest: str
    """Of all rows."""

    def __str__(self) -> str:
        return f"Fn's tables, version {self.version}" if self.version else "Fn's first tables"


Row = Mapping[str, Any]


def read_fn_tables(connection: Connection) -> FnTables | None:
    """``None`` if there are none. Raises `DatastoreError` for tables that can't be taken over: Fn
    is in the middle of a migration, is a newer one, or has what hostler's tables can't hold."""
    names = set(inspect(connection).get_table_names())
    version = _version(connection, names)
    if version is None or not _has_columns(connection, names, min(version, LAST_VERSION)):
        return None
    if version > LAST_VERSION:
        raise DatastoreError(
            f"the database's tables are of a newer Fn (schema version {version}): "
            f"hostler takes over those up to version {LAST_VERSION}"
        )
    rows = {name: _rows(connection, name) for name in _COLUMNS if name in names}
    reader = _RowReader()
    found = Contents(
        reader.read(_app, rows["apps"]),
        reader.read(_fn, rows.get("fns", [])),
        reader.read(_trigger, rows.get("triggers", [])),
    )
    kept, orphans = without_orphans(found)
    if problems := [*reader.problems, *problems_of(kept)]:
        raise DatastoreError(
            f"Fn's tables have what hostler can't take over: {listed(problems)}. "
            "Start Fn, change that, and come back"
        )
    left_out = [f"{title}: what it belongs to is gone" for title in orphans]
    if "routes" in names and (routes := len(_rows(connection, "routes"))):
        left_out.append(f"{routes} routes of Fn's first API: hostler has functions and triggers")
    return FnTables(version, kept, left_out, _digest(rows))


def _version(connection: Connection, names: set[str]) -> int | None:
    """The version of Fn's tables; ``None`` if they are not Fn's."""
    if VERSION_TABLE not in names:
        return NO_VERSION if names >= {"apps", *_OLD_TABLES} else None
    columns = {column["name"] for column in inspect(connection).get_columns(VERSION_TABLE)}
    if columns != {"version", "dirty"} or not names & _TRACES:
        return None
    versions = table(VERSION_TABLE, column("version"), column("dirty"))
    row = connection.execute(select(versions)).first()
    if row is None:
        return NO_VERSION
    if row.dirty:
        raise DatastoreError(
            f"a migration of Fn's stopped half way (schema version {row.version} is dirty): "
            "complete it with Fn, or restore a backup"
        )
    return int(row.version)


def _has_columns(connection: Connection, names: set[str], version: int) -> bool:
    for name, columns in _COLUMNS.items():
        wanted = {column for column, first in columns.items() if first <= version}
        if not wanted:
            continue
        if name not in names:
            return False
        if not wanted <= {column["name"] for column in inspect(connection).get_columns(name)}:
            return False
    return True


def _rows(connection: Connection, name: str) -> list[Row]:
    return [*connection.execute(select(text("*")).select_from(table(name))).mappings()]


def _digest(rows: Mapping[str, Iterable[Row]]) -> str:
    """Another version of the same rows has the same one."""
    lines = sorted(
        msgspec.json.encode([name, *(row.get(column) or "" for column in columns)])
        for name, columns in _COLUMNS.items()
        for row in rows.get(name, ())
    )
    return hashlib.sha256(b"\n".join(lines)).hexdigest()


Made = TypeVar("Made")


class _RowReader:
    """Reads rows, and collects what can't be read."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def read(self, make: Callable[[Row], Made], rows: Iterable[Row]) -> list[Made]:
        found = []
        for row in rows:
            try:
                found.append(make(row))
            except (ValueError, TypeError, msgspec.DecodeError) as error:
                name = row.get("id") or row.get("name")
                self.problems.append(f"{make.__name__.strip('_')} {name} can't be read: {error}")
        return found


def _app(row: Row) -> App:
    return App(
        id=row.get("id") or _derived_id(row["name"]),
        name=row["name"],
        syslog_url=row.get("syslog_url") or "",
        shape=row.get("shape") or "",
        config=_config(row),
        **_values(row),
    )


def _fn(row: Row) -> Fn:
    return Fn(
        id=row["id"],
        name=row["name"],
        app_id=row["app_id"],
        image=row["image"],
        memory=int(row["memory"]),
        timeout=int(row["timeout"]),
        idle_timeout=int(row["idle_timeout"]),
        shape=row.get("shape") or "",
        config=_config(row),
        **_values(row),
    )


def _trigger(row: Row) -> Trigger:
    return Trigger(
        id=row["id"],
        name=row["name"],
        app_id=row["app_id"],
        fn_id=row["fn_id"],
        type=row["type"],
        source=row["source"],
        **_values(row),
    )


def _config(row: Row) -> dict[str, str]:
    found = _texts.decode(row["config"] or "{}") or {}
    return {key: value or "" for key, value in found.items()}


def _values(row: Row) -> dict[str, Any]:
    """What all three have. Fn's first apps have no dates, and later ones NULL."""
    dates = {name: None if row.get(name) is None else parse_date(row[name]) for name in _DATES}
    annotations = _raws.decode(row.get("annotations") or "{}") or {}
    return {"annotations": without_endpoints(annotations), **dates}


_texts = msgspec.json.Decoder(dict[str, str | None] | None)
_raws = msgspec.json.Decoder(dict[str, msgspec.Raw] | None)


def _derived_id(name: str) -> str:
    """The id of an app of a time when apps had none: the same whenever it is read."""
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:10])
    return format_id(0, number >> 32, number & 2**32 - 1)


Side = Literal["", "fn", "hostler"]
Action = Literal["", "take over", "keep"]


def decide(connection: Connection, fn: FnTables, own: Contents, use: Side = "") -> Action:
    """Whether to take Fn's tables over: once, into tables of hostler's that are empty, or if
    ``use`` says so.

    Raises `DatastoreError` if Fn changed its tables since: both sides may have changes then.
    """
    if use:
        return "take over" if use == "fn" else "keep"
    then = digest_then(connection)
    if then == fn.digest:
        return ""
    if then is None and not own.apps:
        return "take over"
    if then is None and not fn.contents.apps:
        return "keep"
    raise DatastoreError(
        f"Fn's tables ({fn.contents}) are not what hostler took over, and hostler has tables of "
        f"its own ({own}). Stop Fn, and run `hostler migrate --use fn` to replace what hostler has "
        "with what Fn has, or `hostler migrate --use hostler` to go on with what hostler has"
    )


def digest_then(connection: Connection) -> str | None:
    """The digest of Fn's tables when they were taken over; ``None`` if they never were."""
    if taken_over.name not in inspect(connection).get_table_names():
        return None
    return connection.scalar(select(taken_over.c.fn_digest))


def act(connection: Connection, fn: FnTables, action: Action) -> None:
    """Do what `decide` said, and note what Fn's tables were."""
    if not action:
        return
    if action == "take over":
        replace_contents(connection, fn.contents)
    connection.execute(delete(taken_over))
    connection.execute(insert(taken_over).values(fn_digest=fn.digest))
