"""Tables, and values as rows.

Ids, names and sources are compared, ordered and unique by the bytes of their UTF-8 form, on all
databases: the same as by code points. MySQL's collations are no help: of those that every server
has, even the binary ones ignore spaces at the end.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from typing import Any

import msgspec
from sqlalchemy import (
    BigInteger,
    Column,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.dialects.mysql import MEDIUMTEXT, VARBINARY

from ..dates import EPOCH

ID_BYTES = 64
"""Ours have 26; declared ones may be others."""

NAME_BYTES = 255

SOURCE_BYTES = 1024
"""With the other columns of its index still under MySQL's limit of 3072 bytes."""


class Key(TypeDecorator[str]):
    """A text that is compared by its bytes. A text that can't be kept (it has a NUL character, or
    half of a surrogate pair) becomes the empty one, which no row has: a search finds nothing."""

    impl = String
    cache_ok = True

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        if dialect.name in ("mysql", "mariadb"):
            return dialect.type_descriptor(VARBINARY(self.size))
        collation = "C" if dialect.name == "postgresql" else None
        return dialect.type_descriptor(String(self.size, collation=collation))

    def process_bind_param(self, value: str | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        try:
            encoded = b"" if "\0" in value else value.encode()
        except UnicodeEncodeError:
            encoded = b""
        return encoded if dialect.name in ("mysql", "mariadb") else encoded.decode()

    def process_result_value(self, value: Any, dialect: Dialect) -> str | None:
        return value.decode() if isinstance(value, bytes) else value


metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

_BIG_TEXT = Text().with_variant(MEDIUMTEXT(), "mysql", "mariadb")


def _table(name: str, columns: list[Column[Any]], *constraints: UniqueConstraint | Index) -> Table:
    """A table with the columns that all three have. Dates are milliseconds since 1970 in UTC."""
    return Table(
        name,
        metadata,
        Column("id", Key(ID_BYTES), primary_key=True),
        Column("name", Key(NAME_BYTES), nullable=False),
        *columns,
        Column("annotations", _BIG_TEXT, nullable=False),
        Column("created_at", BigInteger, nullable=False),
        Column("updated_at", BigInteger, nullable=False),
        *constraints,
        mysql_engine="InnoDB",
        mysql_default_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_row_format="DYNAMIC",
    )


def _parent(name: str, of: str) -> Column[Any]:
    return Column(name, Key(ID_BYTES), ForeignKey(of, ondelete="CASCADE"), nullable=False)


apps = _table(
    "apps",
    [
        Column("config", _BIG_TEXT, nullable=False),
        Column("syslog_url", Text, nullable=False),
        Column("shape", String(32), nullable=False),
    ],
    UniqueConstraint("name"),
)

fns = _table(
    "fns",
    [
        _parent("app_id", "apps.id"),
        Column("image", Text, nullable=False),
        Column("memory", Integer, nullable=False),
        Column("timeout", Integer, nullable=False),
        Column("idle_timeout", Integer, nullable=False),
        Column("config", _BIG_TEXT, nullable=False),
        Column("shape", String(32), nullable=False),
    ],
    UniqueConstraint("app_id", "name"),
)

triggers = _table(
    "triggers",
    [
        _parent("app_id", "apps.id"),
        _parent("fn_id", "fns.id"),
        Column("type", Key(32), nullable=False),
        Column("source", Key(SOURCE_BYTES), nullable=False),
    ],
    UniqueConstraint("fn_id", "name"),
    UniqueConstraint("app_id", "type", "source"),
    Index(None, "app_id", "name"),
)

_texts = msgspec.json.Decoder(dict[str, str])
_row_values = msgspec.json.Decoder(dict[str, msgspec.Raw])


def now(after: dt.datetime | None = None) -> dt.datetime:
    """The time, in whole milliseconds, as the API writes it; later than ``after`` in any case, so
    that a change can be told by its date even if the clock steps back."""
    date = _date(time.time_ns() // 1_000_000)
    return date if after is None else max(date, after + dt.timedelta(milliseconds=1))


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _annotations(text: str) -> dict[str, msgspec.Raw]:
    # Each on memory of its own, as those that were just decoded from a request.
    return {key: raw.copy() for key, raw in _row_values.decode(text).items()}


def _millis(date: dt.datetime | None) -> int:
    assert date is not None
    return (date - EPOCH) // dt.timedelta(milliseconds=1)


def _date(millis: int) -> dt.datetime:
    return EPOCH + dt.timedelta(milliseconds=millis)


ENCODERS: dict[str, Callable[[Any], Any]] = {
    "config": _json,
    "annotations": _json,
    "created_at": _millis,
    "updated_at": _millis,
}
"""By field. Other fields are stored as they are."""

DECODERS: dict[str, Callable[[Any], Any]] = {
    "config": _texts.decode,
    "annotations": _annotations,
    "created_at": _date,
    "updated_at": _date,
}
