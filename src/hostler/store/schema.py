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

SHORT_BYTES = 32
"""Of words of which there are few: types, shapes."""

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


PREFIX = "hostler_"
"""Of the names of tables: ``apps``, ``fns`` and ``triggers`` are those of Fn."""


def _short(constraint: Any, table: Table) -> str:
    return table.name.removeprefix(PREFIX)


def _referred(constraint: Any, table: Table) -> str:
    return str(constraint.referred_table.name).removeprefix(PREFIX)


metadata = MetaData(
    naming_convention={
        "short": _short,
        "referred": _referred,
        "pk": "pk_%(short)s",
        "fk": "fk_%(short)s_%(referred)s",
        "uq": "uq_%(short)s_%(column_0_N_name)s",
        "ix": "ix_%(short)s_%(column_0_N_name)s",
    }
)

_OPTIONS: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_default_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
    "mysql_row_format": "DYNAMIC",
}

_BIG_TEXT = Text().with_variant(MEDIUMTEXT(), "mysql", "mariadb")


def _table(name: str, columns: list[Column[Any]], *constraints: UniqueConstraint | Index) -> Table:
    """A table with the columns that all three have. Dates are milliseconds since 1970 in UTC."""
    return Table(
        PREFIX + name,
        metadata,
        Column("id", Key(ID_BYTES), primary_key=True),
        Column("name", Key(NAME_BYTES), nullable=False),
        *columns,
        Column("annotations", _BIG_TEXT, nullable=False),
        Column("created_at", BigInteger, nullable=False),
        Column("updated_at", BigInteger, nullable=False),
        *constraints,
        **_OPTIONS,
    )


def _parent(name: str, of: str) -> Column[Any]:
    return Column(name, Key(ID_BYTES), ForeignKey(PREFIX + of, ondelete="CASCADE"), nullable=False)


apps = _table(
    "apps",
    [
        Column("config", _BIG_TEXT, nullable=False),
        Column("syslog_url", Text, nullable=False),
        Column("shape", String(SHORT_BYTES), nullable=False),
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
        Column("shape", String(SHORT_BYTES), nullable=False),
    ],
    UniqueConstraint("app_id", "name"),
)

triggers = _table(
    "triggers",
    [
        _parent("app_id", "apps.id"),
        _parent("fn_id", "fns.id"),
        Column("type", Key(SHORT_BYTES), nullable=False),
        Column("source", Key(SOURCE_BYTES), nullable=False),
    ],
    UniqueConstraint("fn_id", "name"),
    UniqueConstraint("app_id", "type", "source"),
    Index(None, "app_id", "name"),
)

taken_over = Table(
    PREFIX + "taken_over",
    metadata,
    Column("fn_digest", String(64), primary_key=True),
    **_OPTIONS,
)
"""What Fn's tables were when they were taken over. One row; none if there never were any."""

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


_UNSET = (dt.datetime.min.replace(tzinfo=dt.UTC) - EPOCH) // dt.timedelta(milliseconds=1)
"""As Fn, which knows no dates of its oldest apps."""


def _millis(date: dt.datetime | None) -> int:
    return _UNSET if date is None else (date - EPOCH) // dt.timedelta(milliseconds=1)


def _date(millis: int) -> dt.datetime:
    return EPOCH + dt.timedelta(milliseconds=millis)


def _date_or_none(millis: int) -> dt.datetime | None:
    return None if millis == _UNSET else _date(millis)


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
    "created_at": _date_or_none,
    "updated_at": _date_or_none,
}
