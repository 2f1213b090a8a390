"""Apps, functions and triggers."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.mysql import MEDIUMTEXT, VARBINARY
from sqlalchemy.types import TypeEngine

revision = "0001"
down_revision = None

_MYSQL: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_default_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
    "mysql_row_format": "DYNAMIC",
}


def upgrade() -> None:
    _create(
        "apps",
        _key("id", 64),
        _key("name", 255),
        sa.Column("config", _big_text(), nullable=False),
        sa.Column("syslog_url", sa.Text(), nullable=False),
        sa.Column("shape", sa.String(32), nullable=False),
        *_values(),
        sa.UniqueConstraint("name", name="uq_apps_name"),
    )
    _create(
        "fns",
        _key("id", 64),
        _key("name", 255),
        _key("app_id", 64),
        sa.Column("image", sa.Text(), nullable=False),
        sa.Column("memory", sa.Integer(), nullable=False),
        sa.Column("timeout", sa.Integer(), nullable=False),
        sa.Column("idle_timeout", sa.Integer(), nullable=False),
        sa.Column("config", _big_text(), nullable=False),
        sa.Column("shape", sa.String(32), nullable=False),
        *_values(),
        _parent("fns", "app_id", "apps"),
        sa.UniqueConstraint("app_id", "name", name="uq_fns_app_id_name"),
    )
    _create(
        "triggers",
        _key("id", 64),
        _key("name", 255),
        _key("app_id", 64),
        _key("fn_id", 64),
        _key("type", 32),
        _key("source", 1024),
        *_values(),
        _parent("triggers", "app_id", "apps"),
        _parent("triggers", "fn_id", "fns"),
        sa.UniqueConstraint("fn_id", "name", name="uq_triggers_fn_id_name"),
        sa.UniqueConstraint("app_id", "type", "source", name="uq_triggers_app_id_type_source"),
    )
    op.create_index(
        "ix_triggers_app_id_name", "hostler_triggers", ["app_id", "name"], if_not_exists=True
    )


def _create(name: str, *parts: Any) -> None:
    key = sa.PrimaryKeyConstraint("id", name=f"pk_{name}")
    op.create_table(f"hostler_{name}", *parts, key, if_not_exists=True, **_MYSQL)


def _key(name: str, size: int) -> sa.Column[str]:
    kind: TypeEngine[str] = (
        sa.String(size)
        .with_variant(sa.String(size, collation="C"), "postgresql")
        .with_variant(VARBINARY(size), "mysql", "mariadb")
    )
    return sa.Column(name, kind, nullable=False)


def _big_text() -> TypeEngine[str]:
    return sa.Text().with_variant(MEDIUMTEXT(), "mysql", "mariadb")


def _values() -> list[sa.Column[Any]]:
    return [
        sa.Column("annotations", _big_text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
    ]


def _parent(table: str, column: str, parent: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        [column], [f"hostler_{parent}.id"], name=f"fk_{table}_{parent}", ondelete="CASCADE"
    )
